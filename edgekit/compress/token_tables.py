"""The parts of a transformer that have a row per token, and the configuration entries that are token ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from edgekit.errors import ModelError
from edgekit.model import TorchModel
from edgekit.record import Skip
from edgekit.structure import LowRankEmbedding, LowRankLinear

_LISTS_OF_IDS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")


def transformer_of(model: TorchModel) -> Any:
    """Return the transformers model inside.

    Raises:
        ModelError: There is none, or it has no table of token embeddings.
    """
    inner: Any = getattr(model.module, "model", None)
    try:
        table = inner.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        table = None
    if not isinstance(table, (nn.Embedding, LowRankEmbedding)):
        raise ModelError(
            f"{model.name} has no table of token embeddings that edgekit knows",
            "Vocabularies and embeddings can be made smaller in text models of transformers.",
        )
    return inner


def rows_of(inner: Any) -> int:
    """Return how many tokens a transformer has embeddings for."""
    return int(inner.get_input_embeddings().num_embeddings)


def offset_by_padding(inner: nn.Module) -> bool:
    """Return whether positions are counted from the padding token's id, as RoBERTa does."""
    return any(
        "position" in name and isinstance(part, nn.Embedding) and part.padding_idx is not None
        for name, part in inner.named_modules()
    )


def keep_rows(inner: Any, new_ids: Mapping[int, int]) -> None:
    """Keep the embeddings of some tokens, and what the model's head has for them; tied tables stay tied.

    Args:
        inner: The transformer, on a branch of the model.
        new_ids: Old id -> new id, 0 to n - 1.

    Raises:
        ModelError: A table has as many rows as there are tokens, and edgekit does not know what it is.
    """
    rows, count = rows_of(inner), len(new_ids)
    index = torch.tensor(sorted(new_ids, key=new_ids.__getitem__))
    replaced = {
        id(old): nn.Parameter(old.detach()[index].clone(), requires_grad=old.requires_grad)
        for old in _tensors_by_token(inner, rows)
    }
    for name, part in inner.named_modules():
        ours = [key for key, tensor in part._parameters.items() if id(tensor) in replaced]
        for key in ours:
            part.register_parameter(key, replaced[id(part._parameters[key])])
        sizes = vars(part)
        for key in ("num_embeddings", "out_features", "vocab_size"):
            if sizes.get(key) == rows and (ours or key == "vocab_size" or isinstance(part, LowRankEmbedding)):
                setattr(part, key, count)
        positions = isinstance(part, nn.Embedding) and not ours
        if isinstance(sizes.get("padding_idx"), int) and not positions:
            part.padding_idx = new_ids.get(sizes["padding_idx"])
        if positions and sizes["num_embeddings"] == rows and not ("position" in name or "type" in name):
            raise ModelError(
                f"{name} has {rows:,} rows, one per token, and edgekit does not know what they are for"
            )


def _tensors_by_token(inner: Any, rows: int) -> Iterator[torch.Tensor]:
    table, head = inner.get_input_embeddings(), inner.get_output_embeddings()
    yield table.table.weight if isinstance(table, LowRankEmbedding) else table.weight
    if head is None:
        return
    last = head.up if isinstance(head, LowRankLinear) else head
    for tensor in (last.weight, getattr(last, "bias", None)):
        if tensor is None:
            continue
        if len(tensor) != rows:
            raise ModelError(
                f"the model reads {rows:,} tokens and writes {len(tensor):,}; they have to be the same"
            )
        yield tensor


def configured_ids(config: Mapping[str, Any]) -> frozenset[int]:
    """Return the token ids that a configuration names, such as `eos_token_id`."""

    def flat(value: Any) -> Iterator[int]:
        if isinstance(value, int) and not isinstance(value, bool):
            yield value
        elif isinstance(value, (list, tuple)):
            for each in value:
                yield from flat(each)

    return frozenset(index for key, value in _id_entries(config) for index in flat(value))


def renumbered(config: Mapping[str, Any], new_ids: Mapping[int, int]) -> dict[str, Any]:
    """Return a configuration as JSON values with the new ids and the new size of the vocabulary."""
    return {
        key: renumbered(value, new_ids) if isinstance(value, dict) else _new_value(key, value, new_ids)
        for key, value in config.items()
    }


def renumber_configs(inner: Any, new_ids: Mapping[int, int]) -> tuple[Skip, ...]:
    """Change a transformer's configurations in place; return the entries that named no token of its own."""
    skipped = []
    for config in _configs(inner):
        for key, value in list(vars(config).items()):
            new = _new_value(key, value, new_ids)
            if new != value:
                setattr(config, key, new)
            if new is None and value is not None:
                skipped.append(Skip(key, f"no token has the id {value}; it is unset"))
    return tuple(dict.fromkeys(skipped))


def all_configured_ids(inner: Any) -> frozenset[int]:
    """Return the token ids that any configuration of a transformer names."""
    return frozenset[int]().union(*(configured_ids(vars(config)) for config in _configs(inner)))


def _configs(inner: Any) -> Iterator[Any]:
    """Yield the configurations of a model: its own, nested ones, and that of its generation."""
    seen: set[int] = set()
    waiting = [inner.config, getattr(inner, "generation_config", None)]
    while waiting:
        config = waiting.pop(0)
        if config is None or id(config) in seen:
            continue
        seen.add(id(config))
        yield config
        waiting += [
            value
            for key, value in vars(config).items()
            if key.endswith("_config") and hasattr(value, "to_dict")
        ]


def _id_entries(config: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _id_entries(value)
        elif isinstance(key, str) and _names_ids(key):  # id2label has numbers as keys
            yield key, value


def _names_ids(key: str) -> bool:
    return key.endswith(("_token_id", "_token_ids", "_tokens_ids")) or key in _LISTS_OF_IDS


def _new_value(key: str, value: Any, new_ids: Mapping[int, int]) -> Any:
    if key == "vocab_size" and isinstance(value, int):
        return len(new_ids)
    return _new_id(value, new_ids) if _names_ids(key) else value


def _new_id(value: Any, new_ids: Mapping[int, int]) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [new for each in value if (new := _new_id(each, new_ids)) is not None]
    return new_ids.get(value) if isinstance(value, int) and not isinstance(value, bool) else value
