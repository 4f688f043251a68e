"""Remove attention heads and neurons of the feed-forward blocks: whole ones, so that the matrices shrink.

Either the same number in every layer, or under a budget for all of them: then each layer gives up what the
outputs depend on least, which a knapsack solves exactly over measured times or multiply-adds. The matrices
behind are fitted anew (`edgekit.compress.repair`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.compress.anatomy import keep_heads, keep_neurons, layers_of
from edgekit.compress.base import Data, branch, finished, sizes
from edgekit.compress.costs import TICKS_PER_MS, Cost, multiply_adds, times, tokens_per_sample, total, widths
from edgekit.compress.importance import Kind, Part, Ranking, parts_of, rank
from edgekit.compress.knapsack import Choice, allocate
from edgekit.compress.repair import Repaired, repair
from edgekit.compression import WidthOptions
from edgekit.errors import RecipeError
from edgekit.model import TorchModel
from edgekit.record import Clock, Fact, Skip

Widths = dict[str, int]
"""Name of a part's matrix -> units that it keeps."""


def prune_width(model: TorchModel, options: WidthOptions, data: Data) -> TorchModel:
    """Return the model with fewer heads and neurons.

    Raises:
        RecipeError: The request contradicts itself or cannot be met; or `time` is given and no table of
            times, or one without these widths.
        ModelError: The architecture is unknown, or worths on the data are not finite.
    """
    clock = Clock()
    _refuse_contradictions(options)
    parts = parts_of(model)
    fixed = parts[0].layer.family.fixed_heads
    skipped = (Skip("heads", fixed),) if fixed else ()
    counted = multiply_adds(tokens_per_sample(model, data))
    if options.time is None and options.multiply_adds is None:
        kept = _given(parts, options)
        rankings = rank(model, _losing(parts, kept), options.importance, data)
    else:
        cost, share, key = _budget(options, data, counted)
        _refuse_unreachable(parts, options.multiple, cost, share, key)
        free = [part for part in parts if len(widths(part, options.multiple)) > 1]
        rankings = rank(model, free, options.importance, data)
        kept = _allocated(parts, rankings, options.multiple, cost, share)
    smaller = _without(model, parts, rankings, kept)
    pruned = data.judge.loss(smaller)
    done = Repaired(smaller, pruned, (), ())
    if options.repair:
        done = repair(model, smaller, _losing(parts, kept), data)
    after = parts_of(done.model)
    facts: dict[str, Any] = {
        "importance": options.importance,
        **_listed(parts, "before"),
        **_listed(after, "after"),
        "multiply_adds_before": total(counted, parts),
        "multiply_adds_after": total(counted, after),
        "loss_before": data.judge.loss(model),
        "loss_pruned": pruned,
        "loss": done.loss,
        "repaired": list(done.fits),
        **_predicted(parts, after, data),
    }
    less = 1 - total(counted, after) / total(counted, parts)
    mended = f", {done.loss:.4g} after {len(done.fits)} repairs" if options.repair else ""
    record = clock.record(
        "compress",
        "width",
        f"Removed {_gone(parts, after)}, {less:.0%} of the layers' multiply-adds: loss {pruned:.4g} against "
        f"the original{mended}.",
        skipped=(*skipped, *done.skipped),
        **sizes(model, done.model),
        **facts,
    )
    return finished(done.model, record)


def _losing(parts: Sequence[Part], kept: Widths) -> list[Part]:
    return [part for part in parts if kept[part.matrix] < part.units]


def _refuse_contradictions(options: WidthOptions) -> None:
    given = {"ffn or heads": options.ffn or options.heads, "time": options.time}
    given["multiply_adds"] = options.multiply_adds
    asked = [name for name, value in given.items() if value is not None]
    if len(asked) != 1:
        raise RecipeError(
            f"[compress] width says {' and '.join(asked) or 'nothing'} of how much is to go",
            "Give ffn and heads, which are the same in every layer, or one of time and multiply_adds.",
        )


def _given(parts: Sequence[Part], options: WidthOptions) -> Widths:
    """Return the widths that the request names, for all layers or one by one.

    Raises:
        RecipeError: A layer does not have so many heads or neurons, or cannot keep that number.
    """
    kept = {}
    for part in parts:
        layer = part.layer
        if part.kind == "ffn":
            asked, has, unit, what = options.ffn, layer.neurons, options.multiple, "neurons"
        else:
            asked, has, unit, what = options.heads, layer.heads, layer.heads // layer.kv_heads, "heads"
        wanted = _of_layer(asked, layer.index, part.kind, sum(other.kind == part.kind for other in parts))
        key = f"[compress] width.{part.kind} = {wanted}"
        if wanted is None or wanted == has:
            kept[part.matrix] = part.units
            continue
        if part.kind == "heads" and layer.family.fixed_heads:
            raise RecipeError(
                f"{key}: heads cannot be removed here, {layer.family.fixed_heads}", "Leave heads out."
            )
        if wanted > has:
            raise RecipeError(f"{key}: layer {layer.index} has {has} {what}")
        if wanted % unit:
            below = wanted // unit * unit
            near = " or ".join(str(n) for n in (below, below + unit) if 0 < n <= has)
            why = "of heads that share keys and values" if part.kind == "heads" else "multiple"
            raise RecipeError(
                f"{key} is no multiple of {unit}, the {'group' if part.kind == 'heads' else 'key'} {why}",
                f"Give {near or has}." + (" Or set multiple." if part.kind == "ffn" else ""),
            )
        kept[part.matrix] = wanted * part.units // has
    return kept


def _of_layer(asked: int | tuple[int, ...] | None, index: int, kind: Kind, layers: int) -> int | None:
    """Return the width that is asked for in one layer."""
    if not isinstance(asked, tuple):
        return asked
    if len(asked) != layers:
        raise RecipeError(
            f"[compress] width.{kind} lists {len(asked)} widths, and the model has {layers} layers",
            "Give one number for all layers, or one for each.",
        )
    return asked[index]


def _budget(options: WidthOptions, data: Data, counted: Cost) -> tuple[Cost, float, str]:
    """Return what is counted, the share of it that may remain, and the key that said so."""
    if options.multiply_adds is not None:
        return counted, options.multiply_adds, "multiply_adds"
    assert options.time is not None
    if data.latency is None:
        raise RecipeError(
            "[compress] width.time needs times measured in ONNX Runtime, and none were taken",
            "Give Data a table of times, or ask for a share of the multiply_adds.",
        )
    return times(data.latency), options.time, "time"


def _refuse_unreachable(parts: Sequence[Part], multiple: int, cost: Cost, share: float, key: str) -> None:
    least = sum(min(cost(part, width) for width in widths(part, multiple)) for part in parts)
    whole = total(cost, parts)
    if least > int(share * whole):
        raise RecipeError(
            f"[compress] width.{key} = {share:g} cannot be met: the least is {least / whole:.2f}",
            f"That is one head, or group of heads, and {multiple} neurons in each layer; give more, or a "
            "smaller multiple, or drop layers.",
        )


def _allocated(
    parts: Sequence[Part], rankings: Mapping[str, Ranking], multiple: int, cost: Cost, share: float
) -> Widths:
    menus = []
    for part in parts:
        lost = rankings[part.matrix].lost if part.matrix in rankings else [0.0] * (part.units + 1)
        menus.append([Choice(width, cost(part, width), lost[width]) for width in widths(part, multiple)])
    chosen = allocate(menus, int(share * total(cost, parts)))
    assert chosen is not None  # reachable, or it would have been refused
    return {part.matrix: choice.width for part, choice in zip(parts, chosen, strict=True)}


def _without(
    model: TorchModel, parts: Sequence[Part], rankings: Mapping[str, Ranking], kept: Widths
) -> TorchModel:
    """Return a branch that keeps the worthiest units, and whose configuration says so where it can."""
    smaller = branch(model)
    layers = layers_of(smaller)
    for part in _losing(parts, kept):
        remove = keep_heads if part.kind == "heads" else keep_neurons
        remove(layers[part.layer.index], rankings[part.matrix].kept(kept[part.matrix]))
    neurons = {layer.neurons for layer in layers_of(smaller)}
    if len(neurons) == 1 and layers[0].family.width:
        setattr(smaller.module.get_submodule("model").config, layers[0].family.width, neurons.pop())
    return smaller


def _listed(parts: Sequence[Part], when: str) -> dict[str, Fact]:
    return {
        f"heads_{when}": [part.layer.heads for part in parts if part.kind == "heads"],
        f"ffn_{when}": [part.units for part in parts if part.kind == "ffn"],
    }


def _predicted(before: Sequence[Part], after: Sequence[Part], data: Data) -> dict[str, Fact]:
    """Return the layers' times by the table; nothing where there is none for these widths."""
    if data.latency is None:
        return {}
    cost = times(data.latency)
    try:
        found = [total(cost, parts) / TICKS_PER_MS for parts in (before, after)]
    except RecipeError:  # a given width that was not measured
        return {}
    return {
        "predicted_ms_before": found[0],
        "predicted_ms_after": found[1],
        "predicted_by": data.latency.kind,
    }


def _gone(before: Sequence[Part], after: Sequence[Part]) -> str:
    heads, ffn = (
        [
            (old.layer.heads, new.layer.heads) if kind == "heads" else (old.units, new.units)
            for old, new in zip(before, after, strict=True)
            if old.kind == kind
        ]
        for kind in ("heads", "ffn")
    )
    said = [
        f"{sum(old - new for old, new in pairs)} of {sum(old for old, _ in pairs)} {what}"
        for pairs, what in ((heads, "heads"), (ffn, "neurons"))
    ]
    return " and ".join(said)
