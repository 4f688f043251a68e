"""Drop the rows of the table of positions that no text reaches: exact for every text that the model reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from edgekit.compress.base import Data, branch, finished, sizes
from edgekit.compress.token_tables import transformer_of
from edgekit.compression import PositionOptions
from edgekit.errors import ModelError, RecipeError
from edgekit.model import TorchModel
from edgekit.record import Clock
from edgekit.tasks.text import TextPreprocessor

_TABLES = ("embeddings.position_embeddings", "wpe")
"""Names of a learned table of positions below the transformer: of the BERT families, of GPT-2."""


def trim_positions(model: TorchModel, options: PositionOptions, data: Data) -> TorchModel:
    """Keep the rows that texts of at most so many tokens use.

    Tables of the RoBERTa kind begin with rows for padding, which stay. Where fewer tokens are asked for than
    the model's texts are cut to, they are cut to those.

    Args:
        model: A text model with a learned table of positions.
        options: How many tokens the longest text has.
        data: Not looked at.

    Raises:
        ModelError: The model does not read text, or has no such table.
        RecipeError: The table has fewer rows than that, or no more.
    """
    clock = Clock()
    preprocessor = model.preprocessor
    if not isinstance(preprocessor, TextPreprocessor):
        raise ModelError(f"{model.name} reads no text, so it has no positions of tokens")
    smaller = branch(model)
    inner: Any = transformer_of(smaller).base_model
    tables = dict(inner.named_modules())
    name = next((name for name in _TABLES if isinstance(tables.get(name), nn.Embedding)), None)
    if name is None:
        raise ModelError(
            f"{model.name} has no learned table of positions",
            "Leave [compress.positions] out: positions that are computed take no bytes.",
        )
    table: Any = tables[name]
    ahead = 0 if table.padding_idx is None else table.padding_idx + 1
    longest = preprocessor.max_length if options.keep == "limit" else options.keep
    if longest < preprocessor.min_length:
        raise RecipeError(f"[compress] positions.keep = {longest} leaves no room between special tokens")
    rows = ahead + longest
    if rows >= table.num_embeddings:
        raise RecipeError(
            f"[compress] positions.keep = {longest}: the table has {table.num_embeddings - ahead} positions,"
            " so that nothing would go",
            "Ask for fewer, or leave [compress.positions] out.",
        )
    new = nn.Embedding(rows, table.embedding_dim, table.padding_idx)
    new.weight = nn.Parameter(table.weight.detach()[:rows].clone(), requires_grad=False)
    inner.set_submodule(name, new)
    inner.config.max_position_embeddings = rows
    owner = inner.get_submodule(name.rpartition(".")[0]) if "." in name else inner
    for key in ("position_ids", "token_type_ids"):
        held = owner._buffers.get(key)
        if held is not None:
            owner._buffers[key] = held[:, :rows].clone()
    cut = replace(preprocessor, max_length=min(longest, preprocessor.max_length))
    record = clock.record(
        "compress",
        "positions",
        f"Kept the {rows} of {table.num_embeddings} rows of positions that texts of {longest} tokens use.",
        **sizes(model, smaller),
        rows_before=table.num_embeddings,
        rows_after=rows,
    )
    return finished(replace(smaller, preprocessor=cut), record)
