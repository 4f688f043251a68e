"""Four-bit codes of tables: a scale for each block of a row, chosen by the error that it leaves.

    real = scale * (code - zero point), codes 0 to 15

Source: Dettmers and Zettlemoyer 2022, "The case for 4-bit precision", arXiv:2212.09720 (blocks); the search
for the scale with the least squared error is that of Banner et al. 2019, arXiv:1810.05723, in its plain form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BLOCK = 32
"""Columns that share a scale."""

MIDDLE = 8
"""Zero point where there is none of its own."""

_SHRINKS = (1.05, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
_ROWS_AT_ONCE = 4096
_ROWS_TRIED = 2048
# Zero points take 4 bits per block, 1/8 bit per number. A bit more per number quarters the energy of the
# error, so spent on finer codes they would take it down to this share: zero points have to do better.
# Source: Gersho and Gray 1992, Vector Quantization and Signal Compression, 6 dB per bit.
_WORTH_ZERO_POINTS = 0.25 ** (4 / BLOCK)


@dataclass(frozen=True)
class BlockCodes:
    """A table in 4 bits.

    Attributes:
        codes: 0 to 15, uint8 [rows, columns].
        scale: Per block, float32 [rows, blocks]; float16 holds each exactly that is in its range.
        zero_point: Per block, 0 to 15, uint8 [rows, blocks]; None where it is `MIDDLE` everywhere.
        error: Energy of the error over the energy of the table.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray | None
    error: float

    def real(self) -> np.ndarray:
        """Return the numbers that the codes stand for, float32 [rows, columns]."""
        columns = self.codes.shape[1]
        zero = np.full_like(self.scale, MIDDLE) if self.zero_point is None else self.zero_point
        spread_zero, spread_scale = (np.repeat(v, BLOCK, axis=1)[:, :columns] for v in (zero, self.scale))
        real = (self.codes.astype(np.float32) - spread_zero.astype(np.float32)) * spread_scale
        return np.asarray(real, np.float32)


def block_codes(table: np.ndarray) -> BlockCodes:
    """Return a table in 4 bits, with zero points where they take away more error than their bytes would.

    Args:
        table: float32 [rows, columns]; the last block of a row may be short.
    """
    rows = np.unique(np.linspace(0, len(table) - 1, min(len(table), _ROWS_TRIED)).astype(np.int64))
    tried = [_search(_in_blocks(table[rows]), zero_points=own)[3].sum() for own in (False, True)]
    own = bool(tried[1] < _WORTH_ZERO_POINTS * tried[0])
    codes, scale, zero, error = _part_by_part(table, lambda cut, _: _search(cut, zero_points=own))
    return BlockCodes(codes, scale, zero if own else None, error)


def codes_at(table: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None) -> BlockCodes:
    """Return a table in 4 bits with the scales and zero points that are given.

    Args:
        table: float32 [rows, columns].
        scale: Per block, float32 [rows, blocks].
        zero_point: Per block, uint8 [rows, blocks]; None where it is `MIDDLE` everywhere.
    """
    zero = np.full(scale.shape, MIDDLE, np.uint8) if zero_point is None else zero_point
    codes, _, _, error = _part_by_part(table, lambda cut, part: _coded(cut, scale[part], zero[part]))
    return BlockCodes(codes, scale, zero_point, error)


def _part_by_part(
    table: np.ndarray, code: Callable[[np.ndarray, slice], _Coded]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return a table's codes, scales, zero points and relative squared error.

    Args:
        table: float32 [rows, columns].
        code: Some rows [rows, blocks, BLOCK], and which they are -> their codes.
    """
    blocks = -(-table.shape[1] // BLOCK)
    codes = np.empty(table.shape, np.uint8)
    scale, zero = (np.empty((len(table), blocks), dtype) for dtype in (np.float32, np.uint8))
    lost = energy = 0.0
    for start in range(0, len(table), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        cut = _in_blocks(table[part])
        found, scale[part], zero[part], errors = code(cut, part)
        codes[part] = found.reshape(len(cut), -1)[:, : table.shape[1]]
        lost += float(errors.sum(dtype=np.float64))
        energy += float(np.square(cut, dtype=np.float64).sum())
    return codes, scale, zero, lost / energy if energy else 0.0


def _in_blocks(table: np.ndarray) -> np.ndarray:
    """Return [rows, blocks, BLOCK], zeros behind the end of each row."""
    short = -table.shape[1] % BLOCK
    return np.pad(table, ((0, 0), (0, short))).reshape(len(table), -1, BLOCK)


def _search(cut: np.ndarray, *, zero_points: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the codes, scales, zero points and squared errors of blocks that lose least.

    Args:
        cut: [rows, blocks, BLOCK].
        zero_points: Blocks have zero points of their own.

    Returns:
        uint8 [rows, blocks, BLOCK]; float32, uint8 and float32 [rows, blocks].
    """
    low, high = cut.min(axis=-1, initial=0.0), cut.max(axis=-1, initial=0.0)
    best = None
    for shrink in _SHRINKS:
        for scale, zero in _candidates(low * shrink, high * shrink, zero_points):
            found = _coded(cut, scale, zero)
            best = found if best is None else _better(best, found)
    assert best is not None
    codes, _, zero, _ = best
    return _better(best, _coded(cut, _fitted(cut, codes, zero), zero))


_Coded = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _candidates(low: np.ndarray, high: np.ndarray, zero_points: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return scales and zero points that cover a range, [rows, blocks] each."""
    if zero_points:
        scale = _storable((high - low) / 15)
        return [(scale, np.clip(np.rint(-low / scale), 0, 15).astype(np.uint8))]
    # Codes reach from -8 to 7. The larger side is given the 8, by the scale's sign, or both get 7.
    larger = np.where(-low > high, low, high)
    middle = np.full(low.shape, MIDDLE, np.uint8)
    return [(_storable(-larger / 8), middle), (_storable(np.abs(larger) / 7), middle)]


def _storable(scale: np.ndarray) -> np.ndarray:
    """Return the scales that float16 holds next to these, as float32; 1 for 0, and as is out of its range."""
    with np.errstate(over="ignore"):
        half = scale.astype(np.float16)
    normal = (np.abs(half) >= np.finfo(np.float16).tiny) & np.isfinite(half)
    kept = np.where(normal, half.astype(np.float32), scale)
    return np.where(np.abs(kept) > np.finfo(np.float32).tiny, kept, np.float32(1)).astype(np.float32)


def _coded(cut: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> _Coded:
    real, offset = scale[..., None], zero[..., None].astype(np.float32)
    codes = np.clip(np.rint(cut / real) + offset, 0, 15)
    errors = np.square((codes - offset) * real - cut).sum(axis=-1)
    return codes.astype(np.uint8), scale, zero, errors


def _better(one: _Coded, other: _Coded) -> _Coded:
    """Return the block of smaller error of each two."""
    wins = other[3] < one[3]
    return (
        np.where(wins[..., None], other[0], one[0]),
        np.where(wins, other[1], one[1]),
        np.where(wins, other[2], one[2]),
        np.where(wins, other[3], one[3]),
    )


def _fitted(cut: np.ndarray, codes: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """Return the scales with which these codes come closest: least squares, block by block."""
    steps = codes.astype(np.float32) - zero[..., None].astype(np.float32)
    energy = np.square(steps).sum(axis=-1)
    fit = np.divide((steps * cut).sum(axis=-1), energy, out=np.zeros_like(energy), where=energy > 0)
    return _storable(fit)
