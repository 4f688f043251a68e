"""What is remembered of a tensor while data streams past it: bounded, mergeable, independent of order.

Memory per tensor is fixed: a histogram, three numbers per channel, and a capped sample of rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

HISTOGRAM_BINS = 4096
_SMALLEST_LIMIT = 2.0**-100
ROWS_KEPT = 768
"""Rows kept per tensor to measure a layer's output error on. At 384 to 4096 channels that is 1 to 12 MiB."""


@dataclass
class RunningHistogram:
    """A histogram over [-limit, limit] whose limit is a power of two and doubles as values grow.

    Doubling merges bins in pairs exactly, so the result does not depend on the order of the data, and two
    histograms of the same tensor can be added.
    """

    limit: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64))

    def update(self, values: np.ndarray) -> None:
        """Count every value of an array of any shape."""
        peak = float(max(values.max(), -values.min())) if values.size else 0.0
        if peak > self.limit:
            # ceil keeps a peak of exactly 2**k inside; below the floor the bins would not be float32 numbers.
            self._grow(max(2.0 ** math.ceil(math.log2(peak)), _SMALLEST_LIMIT))
        if self.limit == 0.0:
            self.counts[HISTOGRAM_BINS // 2] += values.size
            return
        codes = ((values.ravel() + self.limit) * (HISTOGRAM_BINS / (2 * self.limit))).astype(np.int32)
        np.clip(codes, 0, HISTOGRAM_BINS - 1, out=codes)
        self.counts += np.bincount(codes, minlength=HISTOGRAM_BINS)

    def merge(self, other: RunningHistogram) -> None:
        """Add another histogram of the same tensor."""
        limit = max(self.limit, other.limit)
        self._grow(limit)
        copy = RunningHistogram(other.limit, other.counts.copy())
        copy._grow(limit)
        self.counts += copy.counts

    @property
    def edges(self) -> np.ndarray:
        """Bin edges, [bins + 1]."""
        return np.linspace(-self.limit, self.limit, HISTOGRAM_BINS + 1)

    def _grow(self, limit: float) -> None:
        zero = HISTOGRAM_BINS // 2
        if self.limit == 0.0:  # only exact zeros so far; they sit in the bin right of zero at any limit
            self.limit = limit
            return
        while self.limit < limit:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros_like(self.counts)
            self.counts[zero - zero // 2 : zero + zero // 2] = merged
            self.limit *= 2


@dataclass
class RowSample:
    """At most `ROWS_KEPT` vectors of a stream, chosen by a hash of their position.

    Each vector of the stream is as likely as any other, whatever the lengths of the batches; a plain stride
    would hit the same position of every sequence. The lowest hashes stay (a bottom-k sample).

    Source: Steele et al. 2014, "Fast splittable pseudorandom number generators" (the mixing function).
    """

    ranks: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    rows: np.ndarray | None = None
    cutoff: int = 2**64 - 1

    def update(self, vectors: np.ndarray, first: int) -> None:
        """Offer vectors, [n, channels], the first of which is number `first` of the stream."""
        ranks = _mixed(np.arange(first, first + len(vectors), dtype=np.uint64))
        chosen = ranks <= np.uint64(self.cutoff)
        self.ranks = np.concatenate([self.ranks, ranks[chosen]])
        new = vectors[chosen].astype(np.float32)
        self.rows = new if self.rows is None else np.concatenate([self.rows, new])
        if len(self.ranks) > ROWS_KEPT:
            lowest = np.argsort(self.ranks)[:ROWS_KEPT]
            self.ranks, self.rows = self.ranks[lowest], self.rows[lowest]
            self.cutoff = int(self.ranks[-1])


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Return splitmix64 of each number, uint64 [n]."""
    with np.errstate(over="ignore"):
        z = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


@dataclass
class TensorStats:
    """Everything that is remembered of one tensor.

    Attributes:
        axis: The channel axis: -1 for the input of a matrix product, 1 for that of a convolution.
        count: Vectors seen (all axes but the channel's).
        low: Minimum per channel, [channels].
        high: Maximum per channel, [channels].
        total: Sum per channel, float64 [channels].
        histogram: Of all values.
        sample: Vectors that were kept; none where `axis` is 1.
        finite: False once a value was NaN or infinite.
    """

    axis: int
    count: int = 0
    low: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    high: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    total: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float64))
    histogram: RunningHistogram = field(default_factory=RunningHistogram)
    sample: RowSample = field(default_factory=RowSample)
    finite: bool = True

    def update(self, values: np.ndarray) -> None:
        """Take in one batch of any shape that has the channel axis."""
        if values.ndim <= max(self.axis, 0):
            values = values.reshape(-1, 1) if self.axis == 1 else values.reshape(1, -1)
        flat = np.moveaxis(values, self.axis, -1).reshape(-1, values.shape[self.axis])
        if not np.isfinite(flat).all():
            self.finite = False
            return
        low, high, total = flat.min(axis=0), flat.max(axis=0), flat.sum(axis=0, dtype=np.float64)
        if self.count:
            low, high, total = np.minimum(low, self.low), np.maximum(high, self.high), total + self.total
        self.low, self.high, self.total = low, high, total
        self.histogram.update(flat)
        if self.axis == -1:
            self.sample.update(flat, self.count)
        self.count += len(flat)

    @property
    def rows(self) -> np.ndarray:
        """The kept vectors, float32 [rows, channels]."""
        return self.sample.rows if self.sample.rows is not None else np.zeros((0, len(self.low)), np.float32)

    @property
    def mean(self) -> np.ndarray:
        """Mean per channel, [channels]."""
        return self.total / max(self.count, 1)

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value seen."""
        return float(self.low.min()), float(self.high.max())
