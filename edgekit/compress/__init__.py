"""TorchModel -> TorchModel, smaller: one technique per file, and the order in which they run.

    adapters ─▶ vocabulary ─▶ positions ─▶ embeddings ─▶ layers ─▶ width, channels (+ repair)
             ─▶ (distillation) ─▶ low rank ─▶ sparsity

- Adapters are merged first: everything after looks at the weights that count.
- The vocabulary commutes with the layers, whose weights it leaves alone, and makes what follows cheaper. The
  table of embeddings can only be factorized once its rows are known.
- Positions that no text reaches are rows of a table of their own; without them nothing else changes.
- Whole layers go before parts of layers: what a layer's heads and neurons are worth depends on which other
  layers are there, and a part that is repaired for a layer that then goes is repaired in vain.
- Width is repaired at once, by least squares; distillation (`edgekit.distill`) starts from there.
- Matrices are factorized and zeros are set in what is left: both fit themselves to final inputs, and a pair
  of factors has no neurons that could be removed afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekit.compress.adapters import merge_adapters
from edgekit.compress.base import Data
from edgekit.compress.channels import prune_channels
from edgekit.compress.costs import table_request
from edgekit.compress.embeddings import factorize_embeddings
from edgekit.compress.layers import drop_layers
from edgekit.compress.low_rank import factorize, wanted_pairs
from edgekit.compress.positions import trim_positions
from edgekit.compress.sparsity import sparsify
from edgekit.compress.vocabulary import trim_vocabulary
from edgekit.compress.width import prune_width
from edgekit.compression import CompressOptions
from edgekit.latency_table import TableRequest
from edgekit.model import TorchModel

STEPS: dict[str, Callable[[TorchModel, Any, Data], TorchModel]] = {
    "adapters": merge_adapters,
    "vocabulary": trim_vocabulary,
    "positions": trim_positions,
    "embeddings": factorize_embeddings,
    "layers": drop_layers,
    "width": prune_width,
    "channels": prune_channels,
    "low_rank": factorize,
    "sparsity": sparsify,
}
"""Technique -> its function; the order is that of `edgekit.compression.TECHNIQUES`."""


AFTER_TRAINING = ("low_rank", "sparsity")
"""Techniques that come after distillation where there is one; all others come before it."""


def steps_of(options: CompressOptions) -> tuple[tuple[str, Callable[[TorchModel, Data], TorchModel]], ...]:
    """Return (technique, what it does to a model) for those that are asked for, in running order."""

    def step(name: str) -> Callable[[TorchModel, Data], TorchModel]:
        return lambda model, data: STEPS[name](model, getattr(options, name), data)

    return tuple((name, step(name)) for name in options.techniques)


def wanted_table(model: TorchModel, options: CompressOptions, technique: str) -> TableRequest | None:
    """Return what has to be timed in ONNX Runtime before a technique runs, or None."""
    if technique == "width" and options.width is not None and options.width.time is not None:
        return table_request(model, options.width.multiple)
    if technique == "low_rank" and options.low_rank is not None and options.low_rank.measured:
        pairs = wanted_pairs(model, options.low_rank)
        return TableRequest(hidden=0, head_dim=0, pairs=pairs)
    return None
