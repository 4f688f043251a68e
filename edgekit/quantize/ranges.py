"""From a tensor's histogram to the range that its codes cover."""

from __future__ import annotations

import numpy as np

from edgekit.quantize.observers import RunningHistogram
from edgekit.quantize.schemes import ActivationScheme, Affine

# Ends of the range that the MSE search tries, as a share of the observed end.
_SHRINK = np.linspace(0.3, 1.0, 29)


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
            whose rounding and clipping errors, weighed by the histogram, are least together.
            Source: Banner et al. 2019, arXiv:1810.05723 (the trade-off of clipping against rounding).
        percentile: For `percentile`, in percent.
    """
    low, high = bounds
    if method == "minmax" or high <= low or histogram.limit == 0.0:
        return scheme.affine(low, high)
    if method == "percentile":
        return scheme.affine(*percentile_bounds(histogram, bounds, percentile))
    return _least_squares(histogram, bounds, scheme)


def percentile_bounds(
    histogram: RunningHistogram, bounds: tuple[float, float], percentile: float
) -> tuple[float, float]:
    """Return the two-sided percentile range: `100 - percentile` percent lie below it and above it each."""
    share = histogram.counts.cumsum() / max(histogram.counts.sum(), 1)
    edges, tail = histogram.edges, 1 - percentile / 100
    low = edges[:-1][np.searchsorted(share, tail, side="right").clip(0, len(share) - 1)]
    high = edges[1:][np.searchsorted(share, 1 - tail, side="left").clip(0, len(share) - 1)]
    return max(float(low), bounds[0]), min(float(high), bounds[1])


def _least_squares(
    histogram: RunningHistogram, bounds: tuple[float, float], scheme: ActivationScheme
) -> Affine:
    centers = (histogram.edges[:-1] + histogram.edges[1:]) / 2
    seen = histogram.counts > 0
    # The bin that holds zero stands for exact zeros (padding, ReLU), which every range represents.
    values = np.where(np.abs(centers) <= histogram.limit / len(centers), 0.0, centers)[seen].astype(
        np.float32
    )
    values = np.clip(values, *bounds)
    weights = histogram.counts[seen] / histogram.counts.sum()

    bin_width = 2 * histogram.limit / len(centers)

    def error(affine: Affine) -> float:
        found = affine.fake(values)
        squared = (values.astype(np.float64) - found) ** 2
        if bin_width > affine.scale / 2:
            # A bin is wider than half a step, so its center does not tell; inside the range the rounding
            # error is then uniform: step² / 12. Zero costs nothing.
            inside = (values >= affine.low) & (values <= affine.high) & (values != 0)
            squared = np.where(inside, affine.scale**2 / 12, squared)
        return float((squared * weights).sum())

    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    lows = _SHRINK if low < 0 else _SHRINK[-1:]
    highs = _SHRINK if high > 0 else _SHRINK[-1:]
    if scheme.symmetric:
        candidates = [scheme.affine(low * share, high * share) for share in _SHRINK]
    else:
        candidates = [scheme.affine(low * a, high * b) for a in lows for b in highs]
    return min(candidates, key=error)
