"""Which inputs of a matrix the others can stand in for: elimination by the inverse of their second moments.

What is lost when input k goes, and the weights of the others are refitted, is

    w_kᵀ · G · w_k / [H⁻¹]_kk

with H the inputs' second moments and G how steeply the model's outputs depend on the matrix's. Once it is
gone, H⁻¹ and the weights of the rest follow in closed form, so the next one is judged by what is left then.

Source: Hassibi and Stork 1993, Second Order Derivatives for Network Pruning: Optimal Brain Surgeon;
Kurtic et al. 2023, ZipLM, arXiv:2302.04089, algorithm 1 (columns at once); G is the second factor of K-FAC,
Martens and Grosse 2015, arXiv:1503.05671.
"""

from __future__ import annotations

import torch

RIDGE = 1e-3
"""Added to H, over its mean diagonal: as much as the least squares that follow need."""

_ROUNDS = 96
"""Most rounds; where there are more units, several go at once."""


def eliminate(
    spread: torch.Tensor, reader: torch.Tensor, steepness: torch.Tensor, columns: int
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return units by how long they stay, the last one first, and what is lost where n of them stay.

    Args:
        spread: H, float64 [units * columns, units * columns].
        reader: The matrix, [units * columns, out].
        steepness: G, [out, out].
        columns: Inputs that go together.

    Returns:
        The units, and [units + 1] losses.
    """
    wide = len(spread)
    units = wide // columns
    ridge = RIDGE * spread.diagonal().mean() + torch.finfo(torch.float64).tiny
    inverse = torch.linalg.inv(spread + ridge * torch.eye(wide, dtype=torch.float64))
    weights = reader.double() @ _root(steepness)
    at_once = max(1, units // _ROUNDS)
    alive = torch.arange(units)
    gone: list[int] = []
    costs: list[float] = []
    while len(alive):
        worth = _worth(inverse, weights, columns)
        picks = torch.sort(worth, stable=True).indices[:at_once]
        at = (picks[:, None] * columns + torch.arange(columns)).reshape(-1)
        stay = torch.ones(len(inverse), dtype=torch.bool)
        stay[at] = False
        across = inverse[stay][:, at]
        solved = torch.linalg.solve(inverse[at][:, at], torch.cat([weights[at], across.T], 1))
        # All that go in one round go together: their joint loss is shared out evenly.
        joint = float((solved[:, : weights.shape[1]] * weights[at]).sum())
        costs += [max(joint, 0.0) / len(picks)] * len(picks)
        gone += alive[picks].tolist()
        weights = weights[stay] - across @ solved[:, : weights.shape[1]]
        inverse = inverse[stay][:, stay] - across @ solved[:, weights.shape[1] :]
        alive = alive[stay[::columns]]
    lost = torch.tensor([0.0, *costs], dtype=torch.float64).cumsum(0).flip(0).tolist()
    return tuple(reversed(gone)), tuple(lost)


def _worth(inverse: torch.Tensor, weights: torch.Tensor, columns: int) -> torch.Tensor:
    """Return what each unit's going would lose, [units]."""
    if columns == 1:
        return weights.square().sum(1) / inverse.diagonal()
    count = len(inverse) // columns
    blocks = inverse.reshape(count, columns, count, columns)[torch.arange(count), :, torch.arange(count)]
    own = weights.reshape(count, columns, -1)
    return (torch.linalg.solve(blocks, own) * own).sum((1, 2))


def _root(matrix: torch.Tensor) -> torch.Tensor:
    """Return R with R·Rᵀ equal to a symmetric positive matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp_min(0).sqrt()
