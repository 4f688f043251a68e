"""Find the 8-bit form of matrix products that loses least, on real vectors.

For each activation the search tries smoothing strengths and ranges and measures what counts: the error of
the products' *outputs* on vectors that calibration kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

from edgekit.quantize.observers import RunningHistogram, TensorStats
from edgekit.quantize.ranges import choose_range
from edgekit.quantize.rounding import compensated_codes
from edgekit.quantize.schemes import ActivationScheme, Affine, pair_sums, quantize_product_weight

# Share of the outlier that moves from activations into weights; 0.5 is the paper's default, transformers
# of the BERT family want more. Source: Xiao et al. 2022, SmoothQuant, arXiv:2211.10438, equation 4.
_ALPHAS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_SHRINKS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
# A smoothing that must stay in the graph as a Mul costs time: it has to take away this share of the error.
_WORTH = 0.1
# And no Mul is spent where the error is this small without: smoothed layers of MiniLM keep about as much.
_NEGLIGIBLE = 2e-4
# The search tries dozens of forms; this many vectors rank them as well as all do. All columns, though: a few
# hold most of the outputs' energy.
_ROWS_SEARCHED = 768


@dataclass(frozen=True)
class QuantizedWeight:
    """int8 codes [K, N] with float32 scales [N] (or a scalar), and the shift of the output's mean.

    Attributes:
        codes: The quantized weight, smoothing already in it.
        scale: Per output channel, or one.
        mean_shift: Mean over the data of float output minus quantized output, [N]; what bias correction adds.
    """

    codes: np.ndarray
    scale: np.ndarray
    mean_shift: np.ndarray


@dataclass(frozen=True)
class LinearSolution:
    """How to quantize the products of one activation.

    Attributes:
        affine: Codes of the activation, after smoothing.
        smoothing: What each channel of the activation is divided by, [K]; None where it does not pay.
        alpha: Strength of the smoothing.
        weights: One per product.
        error: Energy of the outputs' error over the energy of the outputs, chosen form.
        error_plain: The same without smoothing, with the full range, rounded to nearest.
    """

    affine: Affine
    smoothing: np.ndarray | None
    alpha: float | None
    weights: tuple[QuantizedWeight, ...]
    error: float
    error_plain: float


@dataclass(frozen=True)
class LinearRules:
    """What a profile and a recipe allow here."""

    scheme: ActivationScheme
    per_channel: bool
    reduce_range: bool
    smoothing: bool
    range_method: str
    percentile: float
    rounding: str = "nearest"


def solve(
    stats: TensorStats, weights: Sequence[np.ndarray], rules: LinearRules, *, free: bool
) -> LinearSolution:
    """Return the best 8-bit form of `activation @ weight` for each weight.

    Args:
        stats: Of the activation; must hold rows.
        weights: Each [K, N_i], float32.
        rules: What is allowed.
        free: Smoothing can be folded into the node before, so it costs no time.
    """
    rows = stats.rows[:_ROWS_SEARCHED]
    joined = np.concatenate(weights, axis=1)
    target = rows @ joined

    @cache
    def smoothed(alpha: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        smoothing = smoothing_factors(stats, joined, alpha)
        codes, scale = quantize_product_weight(
            joined * smoothing[:, None], per_channel=rules.per_channel, saturation_safe=rules.reduce_range
        )
        return smoothing, rows / smoothing, codes * scale

    def attempt(alpha: float | None, shrink: float) -> tuple[float, Affine]:
        smoothing, divided, weight = smoothed(alpha)
        affine = _affine(stats, smoothing, shrink, rules)
        return _lost(affine.fake(divided) @ weight, target), affine

    tried: dict[tuple[float | None, float], tuple[float, Affine]] = {(None, 1.0): attempt(None, 1.0)}
    plain = tried[None, 1.0][0]
    alphas = _ALPHAS if rules.smoothing else ()
    tried |= {(alpha, 1.0): attempt(alpha, 1.0) for alpha in alphas}
    if rules.range_method == "mse":
        promising = sorted(tried, key=lambda key: tried[key][0])[:2]
        for a in dict.fromkeys([*(a for a, _ in promising), None]):
            # The error falls with the range until it clips more than it saves, and rises from there.
            for before, s in pairwise(_SHRINKS):
                tried[a, s] = attempt(a, s)
                if tried[a, s][0] > tried[a, before][0]:
                    break
    best = min(tried, key=lambda key: tried[key][0])
    unsmoothed = min((key for key in tried if key[0] is None), key=lambda key: tried[key][0])
    enough = max(_NEGLIGIBLE, tried[best][0] / (1 - _WORTH))
    if not free and tried[unsmoothed][0] < enough:
        best = unsmoothed
    alpha, affine = best[0], tried[best][1]
    smoothing = smoothed(alpha)[0]
    faked = affine.fake(stats.rows / smoothing)
    quantized = tuple(_quantize_one(stats.rows, faked, weight, smoothing, rules) for weight in weights)
    found = np.concatenate([faked[: len(rows)] @ (w.codes * w.scale) for w in quantized], axis=1)
    error = _lost(found, target)
    return LinearSolution(affine, None if alpha is None else smoothing, alpha, quantized, error, plain)


def at_fixed_codes(
    stats: TensorStats, weights: Sequence[np.ndarray], rules: LinearRules, affine: Affine
) -> LinearSolution:
    """Return the 8-bit form whose activation has given codes: no smoothing, weights rounded to nearest.

    Args:
        stats: Of the activation; must hold rows.
        weights: Each [K, N_i], float32.
        rules: What is allowed.
        affine: Codes of the activation.
    """
    made = [
        quantize_product_weight(weight, per_channel=rules.per_channel, saturation_safe=rules.reduce_range)
        for weight in weights
    ]
    quantized = tuple(
        QuantizedWeight(codes, scale, np.zeros(codes.shape[1], np.float32)) for codes, scale in made
    )
    rows = stats.rows[:_ROWS_SEARCHED]
    found = np.concatenate([affine.fake(rows) @ (w.codes * w.scale) for w in quantized], axis=1)
    error = _lost(found, rows @ np.concatenate(weights, axis=1))
    return LinearSolution(affine, None, None, quantized, error, error)


def _lost(found: np.ndarray, target: np.ndarray) -> float:
    """Return the energy of the error over the energy of the target."""
    energy = float(np.mean(target**2, dtype=np.float64)) or 1.0
    return float(np.mean((found - target) ** 2, dtype=np.float64)) / energy


def smoothing_factors(stats: TensorStats, weight: np.ndarray, alpha: float | None) -> np.ndarray:
    """Return what to divide each channel of the activation by, [K]; ones where alpha is None.

    s = max|x|^alpha / max|w|^(1 - alpha), scaled to a geometric mean of 1. A channel that is dead on either
    side keeps 1. Each is the inverse of a number that float16 holds, which is what a file may have to store.

    Source: Xiao et al. 2022, SmoothQuant, arXiv:2211.10438, equation 4.
    """
    activation = np.maximum(np.abs(stats.low), np.abs(stats.high)).astype(np.float64)
    if alpha is None:
        return np.ones(len(activation), np.float32)
    peak = np.abs(weight).max(axis=1).astype(np.float64)
    alive = (activation > 1e-6 * activation.max(initial=0)) & (peak > 1e-6 * peak.max(initial=0))
    if not alive.any():
        return np.ones(len(activation), np.float32)
    factors = np.ones(len(activation))
    factors[alive] = activation[alive] ** alpha / peak[alive] ** (1 - alpha)
    factors[alive] /= np.exp(np.mean(np.log(factors[alive])))
    return 1 / smoothing_inverse(np.clip(factors, 1e-3, 1e3))


def smoothing_inverse(factors: np.ndarray) -> np.ndarray:
    """Return what to multiply by instead of dividing by factors between 0.001 and 1000, float32 [K]."""
    return (1 / factors).astype(np.float16).astype(np.float32)


def _affine(stats: TensorStats, smoothing: np.ndarray, shrink: float, rules: LinearRules) -> Affine:
    if rules.range_method == "percentile":
        tail = 100 - rules.percentile
        low, high = np.percentile(stats.rows / smoothing, [tail, 100 - tail])
    elif rules.range_method == "entropy":
        smoothed, histogram = stats.rows / smoothing, RunningHistogram()
        histogram.update(smoothed)
        bounds = float(smoothed.min()), float(smoothed.max())
        return choose_range(histogram, bounds, rules.scheme, "entropy")
    else:
        low, high = (stats.low / smoothing).min(), (stats.high / smoothing).max()
    return rules.scheme.affine(float(low) * shrink, float(high) * shrink)


def _quantize_one(
    rows: np.ndarray, faked: np.ndarray, weight: np.ndarray, smoothing: np.ndarray, rules: LinearRules
) -> QuantizedWeight:
    codes, scale = quantize_product_weight(
        weight * smoothing[:, None], per_channel=rules.per_channel, saturation_safe=rules.reduce_range
    )
    if rules.rounding == "compensated":
        better = compensated_codes(weight * smoothing[:, None], scale, faked)
        # Where moved codes could saturate, the column keeps the nearest ones.
        kept = pair_sums(better) <= 128 if rules.reduce_range else True
        codes = np.where(kept, better, codes)
    # Products are linear, so the mean of the outputs' difference is the product of the means.
    real = rows.mean(axis=0, dtype=np.float64) @ weight
    found = faked.mean(axis=0, dtype=np.float64) @ (codes * scale)
    return QuantizedWeight(codes, scale, (real - found).astype(np.float32))
