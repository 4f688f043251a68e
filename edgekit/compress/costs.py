"""What the heads and neurons of a layer cost: multiply-adds, or times measured in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from edgekit.compress.anatomy import layers_of, matrix_of
from edgekit.compress.base import Data, batches, watching
from edgekit.compress.importance import Part, parts_of
from edgekit.errors import DataError, RecipeError
from edgekit.latency_table import LatencyTable, TableRequest
from edgekit.model import TorchModel

Cost = Callable[[Part, int], int]
"""What a part costs with so many units, in whole numbers of something."""

TICKS_PER_MS = 100_000
"""Times are whole numbers of 10 nanoseconds."""

_ACTIVATIONS = ("hidden_act", "activation", "activation_function", "hidden_activation")
"""Keys under which configurations name the activation between the products of a feed-forward block."""


def multiply_adds(tokens: int) -> Cost:
    """Return the cost in multiply-adds of one sample: products with weights, scores and contexts.

    Args:
        tokens: Of the sample.
    """

    def cost(part: Part, units: int) -> int:
        layer, hidden = part.layer, len(matrix_of(part.layer.part(part.reader)))
        if part.kind == "ffn":
            products = len(layer.family.up) + layer.family.gate_in_up + 1
            return products * hidden * units * tokens
        heads = units * (layer.heads // layer.kv_heads)
        return layer.head_dim * tokens * (2 * hidden * (heads + units) + 2 * heads * tokens)

    return cost


def times(table: LatencyTable) -> Cost:
    """Return the cost in ticks by a table of times.

    The cost of a width that the table does not hold is a `RecipeError`.
    """

    def cost(part: Part, units: int) -> int:
        if part.kind == "ffn":
            measured, width, what = table.ffn_ms, units, "neurons"
        else:
            share = part.layer.heads // part.layer.kv_heads
            measured, width, what = table.heads_ms, units * share, "heads"
        if width not in measured:
            raise RecipeError(
                f"[compress] width.time: the table of times has no entry for {width} {what}",
                f"It has: {', '.join(map(str, sorted(measured))) or 'none'}.",
            )
        return round(measured[width] * TICKS_PER_MS)

    return cost


def total(cost: Cost, parts: Iterable[Part]) -> int:
    """Return what parts cost as they are."""
    return sum(cost(part, part.units) for part in parts)


def widths(part: Part, multiple: int) -> tuple[int, ...]:
    """Return the widths that a part may have, ascending: its own, and narrower ones that kernels like.

    Args:
        part: The part.
        multiple: Numbers of neurons are multiples of it.
    """
    if part.kind == "heads":
        return (part.units,) if part.layer.family.fixed_heads else tuple(range(1, part.units + 1))
    return (*range(multiple, part.units, multiple), part.units)


def table_request(model: TorchModel, multiple: int) -> TableRequest:
    """Return what has to be timed so that heads and neurons of a model can be chosen by their time.

    Args:
        model: The model.
        multiple: As in `widths`.

    Raises:
        ModelError: The architecture is unknown.
    """
    parts = parts_of(model)
    layer, config = parts[0].layer, model.module.get_submodule("model").config
    named = (getattr(config, key, None) for key in _ACTIVATIONS)
    share = layer.heads // layer.kv_heads
    return TableRequest(
        hidden=len(matrix_of(layer.part(layer.family.output))),
        head_dim=layer.head_dim,
        heads=_every(parts, "heads", multiple, share),
        kv_share=share,
        ffn=_every(parts, "ffn", multiple, 1),
        gated=len(layer.family.up) > 1 or layer.family.gate_in_up,
        activation=next((name for name in named if isinstance(name, str)), "gelu"),
    )


def _every(parts: Sequence[Part], kind: str, multiple: int, share: int) -> tuple[int, ...]:
    found = {width for part in parts if part.kind == kind for width in widths(part, multiple)}
    return tuple(width * share for width in sorted(found))


def tokens_per_sample(model: TorchModel, data: Data) -> int:
    """Return how many tokens, or patches, a sample has on average, without padding.

    Raises:
        DataError: There is no sample.
    """
    lengths: list[int] = []
    first = layers_of(model)[0].name

    def see(_name: str, entering: torch.Tensor, _leaving: torch.Tensor) -> None:
        lengths.append(entering.shape[1])

    for inputs in batches(model, data.fit):
        mask: Any = inputs.get("attention_mask")
        if mask is not None:
            lengths += mask.sum(1).tolist()
            continue

        with torch.no_grad(), watching(model.module, [first], see):
            model.module(**inputs)
        break  # without a mask all samples are alike
    if not lengths:
        raise DataError("there is no sample to look at", "Give samples of what the app will see.")
    return max(1, round(sum(lengths) / len(lengths)))
