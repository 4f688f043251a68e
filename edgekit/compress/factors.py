"""The best product of two narrow matrices in the place of one, on the inputs that it really has.

What counts is not the error of W but that of W·x. With E[x·xᵀ] = L·Lᵀ the error E|W·x - W'·x|² is
|(W - W')·L|², so the best W' of a rank is the truncated singular value decomposition of W·L, times L⁻¹, and
its error is the energy of the singular values that were cut off.

Source: Wang et al. 2024, SVD-LLM, arXiv:2403.07378 (whitening by the Cholesky factor); Hsu et al. 2022,
Language Model Compression with Weighted Low-Rank Factorization, arXiv:2207.00112 (rows weighted by Fisher
information); Izenman 1975, Reduced-Rank Regression for the Multivariate Linear Model (`refitted`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgekit.compress.matrices import Moments

_DAMPING = 0.01
"""Share of the inputs' mean energy that is added in every direction: what few samples do not show."""


@dataclass(frozen=True)
class Factors:
    """A matrix as left · diag(values) · right, float64.

    Attributes:
        left: [out, most].
        values: Falling, [most].
        right: [most, in]; on the inputs that it was made for, each row's products have an energy of 1.
    """

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor

    def lost(self, rank: int) -> float:
        """Return the error that cutting off at a rank makes: the energy of the values beyond."""
        return float(self.values[rank:].square().sum())

    def pair(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (down [rank, in], up [out, rank]), whose product `up · down` is the matrix of that rank.

        What lies between the two has the same energy in each channel, as one quantization scale for all of
        them likes it.
        """
        return self.right[:rank], self.left[:, :rank] * self.values[:rank]


def decompose(
    weight: torch.Tensor, own: torch.Tensor | None = None, rows: torch.Tensor | None = None
) -> Factors:
    """Decompose a matrix so that cutting off loses least.

    Args:
        weight: [out, in].
        own: E[x·xᵀ] of its inputs, [in, in]; None takes all directions for equal (plain SVD).
        rows: What an error of each output counts, [out], positive; None counts all the same.
    """
    matrix = weight.double()
    scale = torch.ones(len(matrix), dtype=torch.float64) if rows is None else rows.double().sqrt()
    if own is None:
        left, values, right = torch.linalg.svd(scale[:, None] * matrix, full_matrices=False)
    else:
        factor = torch.linalg.cholesky(_damped(own))
        left, values, right = torch.linalg.svd(scale[:, None] * matrix @ factor, full_matrices=False)
        right = torch.linalg.solve_triangular(factor, right, upper=False, left=False)
    return Factors(left / scale[:, None], values, right)


def refitted(weight: torch.Tensor, seen: Moments) -> torch.Tensor:
    """Return the matrix whose products with inputs x are closest to W·x₀, where x₀ is what they once were.

    Args:
        weight: W, [out, in].
        seen: E[x·xᵀ] and E[x₀·xᵀ].
    """
    damping = _damping(seen.own)
    wanted = weight.double() @ (seen.cross + damping * torch.eye(len(seen.cross), dtype=torch.float64))
    return torch.linalg.solve(_damped(seen.own), wanted.T).T  # the damped moments are symmetric


def _damping(own: torch.Tensor) -> float:
    return _DAMPING * (float(own.diagonal().mean()) or 1.0)


def _damped(own: torch.Tensor) -> torch.Tensor:
    return own + _damping(own) * torch.eye(len(own), dtype=torch.float64)
