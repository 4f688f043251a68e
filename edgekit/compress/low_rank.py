"""Replace matrices by pairs of narrower ones, where that is smaller and, where asked, faster.

Which matrices become pairs, and of which rank, is allocated exactly: each error is weighed by how much the
model's outputs move with that matrix's, and the least sum is taken that a budget of parameters allows. A pair
may be fitted to the inputs that the matrix had (in parallel), or to those that it gets once the layers before
it are pairs, with the outputs of the original as what is wanted (sequential): the better one is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgekit.compress.anatomy import matrix_of
from edgekit.compress.base import Data, branch, finished, sizes
from edgekit.compress.factors import Factors, decompose, refitted
from edgekit.compress.knapsack import Choice, allocate
from edgekit.compress.matrices import blocks_of, features, gradient_energy, matrices_of, moments, plain_name
from edgekit.compression import LowRankOptions
from edgekit.errors import RecipeError
from edgekit.latency_table import LatencyTable
from edgekit.model import TorchModel
from edgekit.record import Clock, Skip
from edgekit.structure import LowRankLinear

_MOST_RANKS = 12
"""Ranks to choose from for one shape; each of them has to be measured."""

_GRADIENT_SAMPLES = 128
"""Samples that gradients are taken on; they only weigh errors."""

_MOMENTS_BYTES = 1 << 30
"""Memory for the second moments of inputs; where it is not enough, the model runs again for the next ones."""

_LEAST_WEIGHT = 0.01
"""Share of the mean weight that each output has at least: it may count for more on other data."""

_KEY = "[compress] low_rank"

Shape = tuple[int, int]
"""(in, out) of a matrix product."""


@dataclass(frozen=True)
class Target:
    """A matrix that may become a pair.

    Attributes:
        factors: What its pair of any rank is made of.
        rows: What an error of each output counts, or None.
        scale: Makes its error comparable with other matrices'.
    """

    factors: Factors
    rows: torch.Tensor | None
    scale: float


def factorize(model: TorchModel, options: LowRankOptions, data: Data) -> TorchModel:
    """Return the model with pairs in the place of some of its matrices.

    Raises:
        RecipeError: The budget cannot be met, or pairs have to be faster and no times were given.
        ModelError: The model has no matrices.
    """
    clock = Clock()
    found = matrices_of(model, exclude=options.exclude, key=f"{_KEY}.exclude")
    shapes = {name: features(model.module.get_submodule(name)) for name in found.names}
    ranks, slow = _usable(sorted(set(shapes.values())), options, data.latency)
    targets = _targets(model, [name for name in found.names if ranks[shapes[name]]], options, data)
    chosen = _allocated(targets, shapes, ranks, options) if targets else {}
    smaller, facts = model, dict[str, Any]()
    if chosen:
        smaller, facts = _best(model, chosen, targets, options, data)
    whole = sum(a * b for a, b in shapes.values())
    left = _cost(shapes, chosen)
    did = "Factorized nothing: no pair is faster here than the matrix that it would stand for."
    if chosen:
        did = (
            f"Factorized {len(chosen)} of {len(shapes)} matrices, {left / whole:.1%} of their parameters "
            f"stay: loss {facts['loss']:.4f} against the original, {facts['plain_loss']:.4f} with plain SVD."
        )
    record = clock.record(
        "compress",
        "low_rank",
        did,
        skipped=(*found.skipped, *slow),
        **sizes(model, smaller),
        share_of_parameters=left / whole,
        ranks={plain_name(name): rank for name, rank in chosen.items()},
        weighting=options.weighting,
        **facts,
    )
    return finished(smaller, record)


def wanted_pairs(model: TorchModel, options: LowRankOptions) -> tuple[tuple[int, int, int], ...]:
    """Return the (in, rank, out) that `factorize` has to know the times of; rank 0 is the one whole matrix.

    Raises:
        RecipeError: A pattern in `exclude` fits nothing.
        ModelError: The model has no matrices.
    """
    if not options.measured:
        return ()
    names = matrices_of(model, exclude=options.exclude, key=f"{_KEY}.exclude").names
    shapes = sorted({features(model.module.get_submodule(name)) for name in names})
    ranks = {shape: smaller_ranks(shape, options.multiple) for shape in shapes}
    return tuple(
        (shape[0], rank, shape[1]) for shape in shapes if ranks[shape] for rank in (0, *ranks[shape])
    )


def smaller_ranks(shape: Shape, multiple: int) -> tuple[int, ...]:
    """Return ranks, at most twelve and evenly spaced, with which a pair is smaller than the matrix."""
    most = (shape[0] * shape[1] - 1) // (sum(shape) * multiple)  # so that rank · (in + out) < in · out
    step = max(1, -(-most // _MOST_RANKS))
    return tuple(multiple * count for count in range(step, most + 1, step))


def _usable(
    shapes: Collection[Shape], options: LowRankOptions, latency: LatencyTable | None
) -> tuple[dict[Shape, tuple[int, ...]], tuple[Skip, ...]]:
    """Return the ranks that each shape may have, and why a shape may have none."""
    ranks = {shape: smaller_ranks(shape, options.multiple) for shape in shapes}
    skipped = []
    if not any(ranks.values()):
        raise RecipeError(
            f"{_KEY}.multiple = {options.multiple}: no such rank makes any of the model's matrices smaller",
            f"The widest is {'×'.join(map(str, max(shapes, key=min)))}: lower it, or leave low_rank out.",
        )
    if options.measured and latency is None:
        raise RecipeError(
            f"{_KEY}.measured: no times of pairs were measured, so it is not known which are faster",
            "Set measured = false where only bytes count.",
        )
    for shape in shapes:
        named = f"matrices {shape[0]} → {shape[1]}"
        if not ranks[shape]:
            skipped.append(Skip(named, f"no rank that is a multiple of {options.multiple} is smaller"))
        elif options.measured and latency is not None:
            times = {
                rank: latency.pairs_ms[shape[0], rank, shape[1]]
                for rank in (0, *ranks[shape])
                if (shape[0], rank, shape[1]) in latency.pairs_ms
            }
            whole = times.pop(0, 0.0)
            ranks[shape] = tuple(rank for rank, time in times.items() if time < whole)
            if not times or not whole:
                skipped.append(Skip(named, "no times were measured for this shape"))
            elif not ranks[shape]:
                rank, time = min(times.items(), key=lambda item: item[1])
                why = f"no pair is faster: rank {rank}, the fastest, takes {time / whole:.2f} times as long"
                skipped.append(Skip(named, f"{why} ({latency.kind})" if latency.kind else why))
    return ranks, tuple(skipped)


def _targets(
    model: TorchModel, names: Collection[str], options: LowRankOptions, data: Data
) -> dict[str, Target]:
    """Return what each matrix that runs on the data is decomposed into."""
    if not names:
        return {}
    seen = moments(model, tuple(names), data.fit)
    moved = {}
    if options.weighting != "plain":
        moved = gradient_energy(model, tuple(seen), data.fit[:_GRADIENT_SAMPLES], data.seed)
    targets = {}
    for index, name in enumerate(seen):
        data.progress("compress", f"low rank: {plain_name(name)}", index / len(seen))
        weight = matrix_of(model.module.get_submodule(name))
        if options.weighting == "plain":
            targets[name] = Target(
                decompose(weight), None, 1 / (float(weight.double().square().sum()) or 1.0)
            )
            continue
        worth = moved.get(name, torch.ones(len(weight), dtype=torch.float64))
        mean = float(worth.mean())
        rows = worth + _LEAST_WEIGHT * mean if options.weighting == "fisher" and mean else None
        targets[name] = Target(decompose(weight, seen[name].own, rows), rows, mean if rows is None else 1.0)
    return targets


def _allocated(
    targets: Mapping[str, Target],
    shapes: Mapping[str, Shape],
    ranks: Mapping[Shape, tuple[int, ...]],
    options: LowRankOptions,
) -> dict[str, int]:
    """Return the ranks of those matrices that become pairs."""
    parts = []
    for name, target in targets.items():
        a, b = shapes[name]
        parts.append([Choice(0, a * b, 0.0)])
        parts[-1] += [
            Choice(rank, rank * (a + b), target.scale * target.factors.lost(rank)) for rank in ranks[a, b]
        ]
    whole = sum(a * b for a, b in shapes.values())
    fixed = sum(a * b for name, (a, b) in shapes.items() if name not in targets)
    chosen = allocate(parts, int(options.parameters * whole) - fixed)
    if chosen is None:
        least = fixed + sum(min(choice.cost for choice in part) for part in parts)
        hint = "set measured = false where only bytes count" if options.measured else "lower the multiple"
        raise RecipeError(
            f"{_KEY}.parameters = {options.parameters:g} cannot be met: the least is {least / whole:.3f}",
            f"That is with the lowest rank everywhere; ask for more, or {hint}.",
        )
    return {name: choice.width for name, choice in zip(targets, chosen, strict=True) if choice.width}


def _best(
    model: TorchModel,
    chosen: Mapping[str, int],
    targets: Mapping[str, Target],
    options: LowRankOptions,
    data: Data,
) -> tuple[TorchModel, dict[str, Any]]:
    """Return the better of the models with these ranks, and the losses of all of them."""
    parallel = _with_pairs(model, {name: targets[name].factors for name in chosen}, chosen)
    facts: dict[str, Any] = {"order": "parallel", "loss": data.judge.loss(parallel)}
    if options.weighting == "plain":
        return parallel, {**facts, "plain_loss": facts["loss"]}
    plain = {name: decompose(matrix_of(model.module.get_submodule(name))) for name in chosen}
    facts["plain_loss"] = data.judge.loss(_with_pairs(model, plain, chosen))
    sequential = _in_sequence(model, chosen, targets, data)
    facts |= {"parallel_loss": facts["loss"], "sequential_loss": data.judge.loss(sequential)}
    if facts["sequential_loss"] < facts["loss"]:
        return sequential, {**facts, "order": "sequential", "loss": facts["sequential_loss"]}
    return parallel, facts


def _in_sequence(
    model: TorchModel, chosen: Mapping[str, int], targets: Mapping[str, Target], data: Data
) -> TorchModel:
    """Return the model with pairs, each fitted to what the pairs in the layers before it leave it with."""
    smaller = model
    groups = blocks_of(model, tuple(chosen))
    for index, names in enumerate(groups):
        data.progress("compress", f"low rank: block {index + 1} of {len(groups)}", index / len(groups))
        seen = moments(smaller, names, data.fit, reference=model)
        factors = {}
        for name in names:
            weight = matrix_of(model.module.get_submodule(name))
            factors[name] = decompose(refitted(weight, seen[name]), seen[name].own, targets[name].rows)
        smaller = _with_pairs(smaller, factors, chosen)
    return smaller


def _with_pairs(model: TorchModel, factors: Mapping[str, Factors], ranks: Mapping[str, int]) -> TorchModel:
    """Return a branch with a pair of its rank in the place of each matrix in `factors`."""
    smaller = branch(model)
    for name, found in factors.items():
        matrix = smaller.module.get_submodule(name)
        wide, out = features(matrix)
        bias = getattr(matrix, "bias", None)
        with torch.device("meta"):
            pair = LowRankLinear(wide, ranks[name], out, bias=bias is not None)
        down, up = found.pair(ranks[name])
        pair.down.weight = nn.Parameter(down.float().contiguous(), requires_grad=False)
        pair.up.weight = nn.Parameter(up.float().contiguous(), requires_grad=False)
        if bias is not None:
            pair.up.bias = bias
        smaller.module.set_submodule(name, pair)
    return smaller


def _cost(shapes: Mapping[str, Shape], chosen: Mapping[str, int]) -> int:
    return sum(chosen[n] * (a + b) if n in chosen else a * b for n, (a, b) in shapes.items())
