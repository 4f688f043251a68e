"""From a tensor's histogram to the range that its codes cover."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit.quantize.observers import RunningHistogram
from edgekit.quantize.schemes import ActivationScheme, Affine

# Ends of the range that the searches try, as a share of the observed end; first every fourth, then those
# around the best.
_SHRINK = np.linspace(0.3, 1.0, 29)
_COARSE = 4


def choose_range(
    histogram: RunningHistogram,
    bounds: tuple[float, float],
    scheme: ActivationScheme,
    method: str,
    percentile: float = 99.99,
) -> Affine:
    """Return the scale and zero point for a tensor.

    Args:
        histogram: Of all its values.
        bounds: Exact minimum and maximum.
        scheme: Type and symmetry of the codes.
        method: `minmax` covers all; `percentile` covers that share on each side; `mse` searches the range
            whose rounding and clipping errors, weighed by the histogram, are least together; `entropy` the
            range whose codes tell most about the values (`divergence`).
            Source: Banner et al. 2019, arXiv:1810.05723 (the trade-off of clipping against rounding).
        percentile: For `percentile`, in percent.
    """
    low, high = bounds
    if method == "minmax" or high <= low or histogram.limit == 0.0:
        return scheme.affine(low, high)
    if method == "percentile":
        return scheme.affine(*percentile_bounds(histogram, bounds, percentile))
    values, weights = _points(histogram, bounds)
    if method == "entropy":
        return _search(bounds, scheme, lambda affine: divergence(values, weights, affine))
    return _search(bounds, scheme, lambda affine: _squared(values, weights, affine, histogram.bin_width))


def percentile_bounds(
    histogram: RunningHistogram, bounds: tuple[float, float], percentile: float
) -> tuple[float, float]:
    """Return the two-sided percentile range: `100 - percentile` percent lie below it and above it each."""
    share = histogram.counts.cumsum() / max(histogram.counts.sum(), 1)
    edges, tail = histogram.edges, 1 - percentile / 100
    low = edges[:-1][np.searchsorted(share, tail, side="right").clip(0, len(share) - 1)]
    high = edges[1:][np.searchsorted(share, 1 - tail, side="left").clip(0, len(share) - 1)]
    return max(float(low), bounds[0]), min(float(high), bounds[1])


def divergence(values: np.ndarray, weights: np.ndarray, affine: Affine) -> float:
    """Return the Kullback-Leibler divergence from the values to what their codes tell of them, in nats.

    The reference keeps every value's weight; what lies outside the range is added to the outermost value
    inside. The candidate knows each code's weight alone and spreads it evenly over the code's values, and
    nothing tells it of what was clipped. Zero is exact in every range, so it shares no code here; else the
    zeros of a ReLU or of padding would speak for the narrowest range.

    Args:
        values: Ascending, [n]; 0.0 stands for exact zeros.
        weights: How often each occurs, [n].
        affine: The range and its codes; asymmetric ranges are clipped on both sides.

    Returns:
        0 where nothing is lost; infinity where no value lies inside.

    Source: S. Migacz, "8-bit inference with TensorRT", GTC 2017, there one-sided and on 2048 bins.
    """
    half = affine.scale / 2
    first = int(np.searchsorted(values, affine.low - half, side="left"))
    last = int(np.searchsorted(values, affine.high + half, side="right"))
    if first == last:
        return float("inf")
    inside, known = values[first:last], weights[first:last].astype(np.float64)
    reference = known.copy()
    reference[0] += weights[:first].sum()
    reference[-1] += weights[last:].sum()
    codes = np.rint(inside / affine.scale).astype(np.intp)
    codes -= codes[0] - 1
    codes[inside == 0.0] = 0
    spread = np.bincount(codes, known) / np.maximum(np.bincount(codes), 1)
    candidate = spread[codes]
    total = reference.sum()
    log_ratio = np.log(reference / candidate) + np.log(candidate.sum() / total)
    return float(reference @ log_ratio / total)


def _points(histogram: RunningHistogram, bounds: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the centers of the bins that are not empty, float32 ascending, and their shares.

    The middle bin stands for exact zeros (padding, ReLU), which every range represents.
    """
    seen = histogram.counts > 0
    edges = histogram.edges
    values = np.clip(((edges[:-1] + edges[1:]) / 2)[seen], *bounds).astype(np.float32)
    values[np.flatnonzero(seen) == len(seen) // 2] = 0.0
    return values, histogram.counts[seen] / histogram.counts.sum()


def _squared(values: np.ndarray, weights: np.ndarray, affine: Affine, bin_width: float) -> float:
    """Return the mean squared error of rounding and clipping."""
    squared = (values - affine.fake(values)) ** 2
    if bin_width > affine.scale / 2:
        # A bin is wider than half a step, so its center does not tell; inside the range the rounding error
        # is then uniform: step² / 12. Zero costs nothing.
        inside = (values >= affine.low) & (values <= affine.high) & (values != 0)
        squared = np.where(inside, affine.scale**2 / 12, squared)
    return float(squared @ weights)


def _search(
    bounds: tuple[float, float], scheme: ActivationScheme, error: Callable[[Affine], float]
) -> Affine:
    """Return the candidate range with the least error: both ends are tried on their own where they can be."""
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    count = len(_SHRINK)
    full = [count - 1]
    tried: dict[tuple[int, int], float] = {}

    def affine(at: tuple[int, int]) -> Affine:
        return scheme.affine(low * _SHRINK[at[0]], high * _SHRINK[at[1]])

    def best_of(lows: range | list[int], highs: range | list[int]) -> tuple[int, int]:
        pairs = [(i, i) for i in highs] if scheme.symmetric else [(i, j) for i in lows for j in highs]
        for pair in pairs:
            if pair not in tried:
                tried[pair] = error(affine(pair))
        return min(tried, key=lambda pair: (tried[pair], -sum(pair)))

    def sides(span: Callable[[int], range], at: tuple[int, int]) -> tuple[int, int]:
        return best_of(span(at[0]) if low < 0 else full, span(at[1]) if high > 0 else full)

    at = sides(lambda _: range(0, count, _COARSE), (0, 0))
    return affine(sides(lambda i: range(max(i - _COARSE + 1, 0), min(i + _COARSE, count)), at))
