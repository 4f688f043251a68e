"""Fit the matrix behind removed heads or neurons anew, so that what is left does their work: least squares.

Layer by layer in running order. The inputs X are those of the smaller model, repaired so far. Two targets Y
are tried: what the original's matrix gives (`own`), and that plus the distance by which the smaller model's
residual stream is off by then (`stream`), so that a layer makes up for those before it.

What the outputs of the whole model are no closer for, on samples that nothing is fitted to, is not taken.

Source: Kwon et al. 2022, arXiv:2204.09656, section 4.4 (least squares after pruning); the target `stream` is
our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.compress.base import Data, branch
from edgekit.compress.importance import Part, parts_of
from edgekit.compress.least_squares import affine, set_affine, solve
from edgekit.compress.walk import accumulate, walks_of
from edgekit.model import TorchModel
from edgekit.record import Fact, Skip

TARGETS = {"own": 0.0, "stream": 1.0}
"""How much of the residual stream's distance the matrix is to make up for."""


@dataclass(frozen=True)
class Repaired:
    """A model whose matrices were fitted anew.

    Attributes:
        model: It.
        loss: By the judge.
        fits: What was fitted, one entry per matrix that was kept.
        skipped: What was not taken.
    """

    model: TorchModel
    loss: float
    fits: tuple[dict[str, Fact], ...]
    skipped: tuple[Skip, ...]


def repair(original: TorchModel, smaller: TorchModel, parts: Sequence[Part], data: Data) -> Repaired:
    """Fit the matrices behind `parts` anew.

    Args:
        original: The model before its heads and neurons were removed.
        smaller: The same after; the given one is not changed.
        parts: Those that lost units, in running order, as `original` has them.
        data: Samples to fit, and the judge.
    """
    loss = data.judge.loss(smaller)
    fits: list[dict[str, Fact]] = []
    skipped: list[Skip] = []
    if not parts:
        return Repaired(smaller, loss, (), ())
    first, last = parts[0].layer.index, parts[-1].layer.index
    walks = walks_of(original, data, first)
    for index in range(first, last + 1):
        for part in (part for part in parts if part.layer.index == index):
            data.progress("compress", f"repairing {part.name}", parts.index(part) / len(parts))
            sums = accumulate(part, _like(part, smaller), walks, index)
            best, found = smaller, loss
            fit: dict[str, Fact] = {}
            for target, share in TARGETS.items():
                solution = solve(sums, affine(smaller, part.matrix), share)
                candidate = branch(smaller)
                set_affine(candidate, part.matrix, solution.weight)
                now = data.judge.loss(candidate)
                if now < found:
                    best, found = candidate, now
                    fit = {"part": part.name, "target": target, "ridge": solution.ridge, "loss": now}
            if best is smaller:
                skipped.append(Skip(f"repair of {part.name}", f"the loss would not fall below {loss:.4g}"))
            else:
                fits.append(fit)
            smaller, loss = best, found
        if index < last:
            for walk in walks:
                walk.advance(original, smaller, index)
    return Repaired(smaller, loss, tuple(fits), tuple(skipped))


def _like(part: Part, smaller: TorchModel) -> Part:
    """Return the same part of the smaller model."""
    return next(other for other in parts_of(smaller) if other.matrix == part.matrix)
