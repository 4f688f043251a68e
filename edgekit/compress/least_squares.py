"""Least squares for one matrix, over any number of rows and with memory for none of them.

    W' = argmin ‖X·W − Y‖² + λ·‖W − W_now‖²

λ is the one that predicts rows best that W' was not fitted to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgekit.compress.anatomy import matrix_of, set_matrix
from edgekit.model import TorchModel

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""λ over the inputs' mean square; the largest leaves the weights nearly as they are."""


@dataclass(frozen=True)
class Sums:
    """What least squares needs of any number of rows: inputs x with a 1 at the end where there is a bias.

    Attributes:
        rows: How many.
        xx: Σ x·xᵀ, float64 [in, in].
        xy: Σ x·yᵀ, float64 [in, out].
        xs: Σ x·sᵀ, s being the residual stream's distance, [in, out].
        yy: Σ y·y.
        ys: Σ y·s.
        ss: Σ s·s.
        biased: Whether the last input is the 1.
    """

    rows: int
    xx: torch.Tensor
    xy: torch.Tensor
    xs: torch.Tensor
    yy: float
    ys: float
    ss: float
    biased: bool

    @classmethod
    def of(cls, x: torch.Tensor, y: torch.Tensor, s: torch.Tensor, *, biased: bool) -> Sums:
        """Sum over rows: x [rows, in], y and s [rows, out], float32."""
        if biased:
            x = torch.cat([x, torch.ones(len(x), 1)], 1)
        x, y, s = x.double(), y.double(), s.double()
        yy, ys, ss = (float((a * b).sum()) for a, b in ((y, y), (y, s), (s, s)))
        return cls(len(x), x.T @ x, x.T @ y, x.T @ s, yy, ys, ss, biased)

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.rows + other.rows,
            self.xx + other.xx,
            self.xy + other.xy,
            self.xs + other.xs,
            self.yy + other.yy,
            self.ys + other.ys,
            self.ss + other.ss,
            self.biased,
        )


@dataclass(frozen=True)
class Solution:
    """A refitted matrix.

    Attributes:
        weight: float64 [in, out], the bias below it.
        ridge: The λ that was taken, over the inputs' mean square.
        error: Energy of the error per row where λ was chosen, before and after.
    """

    weight: torch.Tensor
    ridge: float
    error: tuple[float, float]


def solve(sums: tuple[Sums, Sums], kept: torch.Tensor, share: float) -> Solution:
    """Return the weights that give y + share·s from x best, λ chosen on the second sums.

    Args:
        sums: Of the rows to fit, and of those that λ is chosen on.
        kept: Weights now, float64 [in, out].
        share: Of the residual stream's distance.
    """
    fit, chosen_on = sums
    errors = {ridge: _error(chosen_on, _ridge(fit, kept, share, ridge), share) for ridge in RIDGES}
    best = min(errors, key=lambda ridge: errors[ridge])
    before = _error(chosen_on, kept, share)
    return Solution(_ridge(fit + chosen_on, kept, share, best), best, (before, errors[best]))


def _ridge(sums: Sums, kept: torch.Tensor, share: float, ridge: float) -> torch.Tensor:
    diagonal = sums.xx.diagonal().clone()
    real = slice(None, -1 if sums.biased else None)
    pull = torch.zeros_like(diagonal)
    pull[real] = ridge * diagonal[real].mean() + torch.finfo(torch.float64).tiny
    left = sums.xx + torch.diag(pull)
    right = sums.xy + share * sums.xs + pull[:, None] * kept
    return torch.linalg.solve(left, right)


def _error(sums: Sums, weight: torch.Tensor, share: float) -> float:
    target = sums.xy + share * sums.xs
    energy = sums.yy + 2 * share * sums.ys + share**2 * sums.ss
    error = float((weight * (sums.xx @ weight - 2 * target)).sum()) + energy
    return max(error, 0.0) / max(sums.rows, 1)


def affine(model: TorchModel, name: str) -> torch.Tensor:
    """Return a matrix as float64 [in, out], its bias, where there is one, as the last row."""
    matrix = model.module.get_submodule(name)
    weight, bias = matrix_of(matrix).T.double(), getattr(matrix, "bias", None)
    return weight if bias is None else torch.cat([weight, bias.detach().double()[None]])


def set_affine(model: TorchModel, name: str, weight: torch.Tensor) -> None:
    matrix = model.module.get_submodule(name)
    values = weight.float()
    if getattr(matrix, "bias", None) is None:
        set_matrix(matrix, values.T)
    else:
        set_matrix(matrix, values[:-1].T, values[-1])
