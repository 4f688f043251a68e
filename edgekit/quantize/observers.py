"""What is remembered of a tensor while data streams past it: bounded, mergeable, independent of order.

Memory per tensor is fixed: a histogram, three numbers per channel, a capped sample of rows and a short
history of the range. Statistics of shards merge to those of the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

HISTOGRAM_BINS = 8191
"""Odd, so that the middle bin holds zero. A range fills more than half the limit on one side at least, so
2048 bins or more lie inside the range of any tensor."""
_ZERO = HISTOGRAM_BINS // 2
_SMALLEST_LIMIT = 2.0**-100
ROWS_KEPT = 1536
"""Rows kept per tensor to measure a layer's output error on. At 384 to 4096 channels that is 1 to 12 MiB."""

_GROWTHS_KEPT = 256
"""Longest history of a range. On data in random order a range grows about 2 ln(samples) times."""


@dataclass
class RunningHistogram:
    """A histogram over (-limit, limit) whose limit is a power of two and doubles as values grow.

    A value's bin is its multiple of `limit / 4096`, rounded toward zero. Both steps are exact in float32,
    and so is doubling, which halves the multiples toward zero: the counts depend on the values alone, not
    on their order or on how they were cut into shards.
    """

    limit: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64))

    def update(self, values: np.ndarray, peak: float | None = None) -> None:
        """Count every value of a float32 array of any shape.

        Args:
            values: Finite.
            peak: Their largest magnitude, where it is known.
        """
        if peak is None:
            peak = float(np.abs(values).max(initial=0.0))
        if peak >= self.limit > 0.0 or (peak > 0.0 and self.limit == 0.0):
            # frexp puts every peak strictly inside; below the floor the bins would not be float32 numbers.
            self._grow(max(2.0 ** math.frexp(peak)[1], _SMALLEST_LIMIT))
        if self.limit == 0.0:
            self.counts[_ZERO] += values.size
            return
        codes = (values.ravel() * np.float32(1 / self.bin_width)).astype(np.intp)  # rounds toward zero
        codes += _ZERO
        self.counts += np.bincount(codes, minlength=HISTOGRAM_BINS)

    def merge(self, other: RunningHistogram) -> None:
        """Add another histogram of the same tensor."""
        copy = RunningHistogram(other.limit, other.counts.copy())
        limit = max(self.limit, other.limit)
        self._grow(limit)
        copy._grow(limit)
        self.counts = self.counts + copy.counts

    @property
    def bin_width(self) -> float:
        """Width of a bin; the middle one, around zero, is twice as wide."""
        return self.limit / (_ZERO + 1)

    @property
    def edges(self) -> np.ndarray:
        """Bin edges, float64 [bins + 1]."""
        outward = np.arange(1, _ZERO + 2, dtype=np.float64) * self.bin_width
        return np.concatenate([-outward[::-1], outward])

    def _grow(self, limit: float) -> None:
        if self.limit == 0.0:  # only exact zeros so far; they sit in the middle at any limit
            self.limit = limit
            return
        while self.limit < limit:
            old, new = self.counts, np.zeros_like(self.counts)
            half = _ZERO // 2
            new[_ZERO] = old[_ZERO - 1 : _ZERO + 2].sum()
            new[_ZERO + 1 : _ZERO + half + 1] = old[_ZERO + 2 :].reshape(-1, 2).sum(axis=1)
            new[_ZERO - half : _ZERO] = old[: _ZERO - 1].reshape(-1, 2).sum(axis=1)
            self.counts = new
            self.limit *= 2


@dataclass
class RowSample:
    """At most `ROWS_KEPT` vectors of a stream: those with the lowest ranks, a bottom-k sample.

    A rank is a hash of the data sample's key and the vector's number in it, so each vector is as likely as
    any other, the same vectors are kept of every tensor, and what is kept of two shards is what would have
    been kept of the whole.

    Source: E. Cohen, H. Kaplan, "Summarizing data using bottom-k sketches", PODC 2007; Steele et al. 2014,
    "Fast splittable pseudorandom number generators" (the mixing function).
    """

    ranks: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    rows: np.ndarray | None = None

    def update(self, vectors: np.ndarray, key: int) -> None:
        """Offer vectors, [n, channels], of the data sample that `key` stands for."""
        with np.errstate(over="ignore"):
            self.offer(_mixed(np.uint64(key % 2**64) + np.arange(len(vectors), dtype=np.uint64)), vectors)

    def offer(self, ranks: np.ndarray, vectors: np.ndarray) -> None:
        """Keep the lowest of these ranks, uint64 [n], and those kept so far, with their vectors."""
        if len(self.ranks) == ROWS_KEPT:
            chosen = ranks < self.ranks.max()
            ranks, vectors = ranks[chosen], vectors[chosen]
        if self.rows is None:
            self.rows = np.zeros((0, vectors.shape[1]), np.float32)
        fresh = ~(ranks[:, None] == self.ranks).any(axis=1)
        ranks, vectors = ranks[fresh], vectors[fresh]
        if not len(ranks):
            return
        room = ROWS_KEPT - len(self.ranks)
        if len(ranks) <= room:
            self.ranks = np.concatenate([self.ranks, ranks])
            self.rows = np.concatenate([self.rows, vectors.astype(np.float32)])
            return
        # Newcomers take the places of those that fall out, so that the kept rows are not copied each time.
        old = len(self.ranks)
        lowest = np.zeros(old + len(ranks), bool)
        lowest[np.argpartition(np.concatenate([self.ranks, ranks]), ROWS_KEPT - 1)[:ROWS_KEPT]] = True
        if room:
            self.ranks = np.concatenate([self.ranks, np.zeros(room, np.uint64)])
            self.rows = np.concatenate([self.rows, np.zeros((room, self.rows.shape[1]), np.float32)])
        free = np.ones(ROWS_KEPT, bool)
        free[:old] = ~lowest[:old]
        self.ranks[free], self.rows[free] = ranks[lowest[old:]], vectors[lowest[old:]]

    def sort(self) -> None:
        """Put the rows in the order of their ranks, which says nothing of the order they came in."""
        if self.rows is not None:
            order = np.argsort(self.ranks)
            self.ranks, self.rows = self.ranks[order], self.rows[order]


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
        batches: Updates so far.
        low: Minimum per channel, [channels].
        high: Maximum per channel, [channels].
        total: Sum per channel, float64 [channels].
        histogram: Of all values.
        sample: Vectors that were kept; none where `axis` is 1.
        growths: How the range came about, oldest first: (batches seen, lowest, highest value so far).
        finite: False once a value was NaN or infinite.
    """

    axis: int
    count: int = 0
    batches: int = 0
    low: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    high: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    total: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float64))
    histogram: RunningHistogram = field(default_factory=RunningHistogram)
    sample: RowSample = field(default_factory=RowSample)
    growths: list[tuple[int, float, float]] = field(default_factory=list)
    finite: bool = True

    def update(self, values: np.ndarray, key: int | None = None) -> None:
        """Take in one batch of any shape that has the channel axis, float32.

        Args:
            values: What the tensor held.
            key: Stands for the data sample, so that shards keep the rows that the whole would keep; None
                takes the rows' position in the stream.
        """
        if values.ndim <= max(self.axis, 0):
            values = values.reshape(-1, 1) if self.axis == 1 else values.reshape(1, -1)
        flat = np.moveaxis(values, self.axis, -1).reshape(-1, values.shape[self.axis])
        self.batches += 1
        if not flat.size:
            return
        low, high = flat.min(axis=0), flat.max(axis=0)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):  # NaN is its own minimum
            self.finite = False
            return
        total = flat.sum(axis=0, dtype=np.float64)
        self.histogram.update(flat, float(max(-low.min(), high.max(), 0)))
        if self.axis == -1:
            self.sample.update(flat, self.count if key is None else key)
        if self.count:
            low, high, total = np.minimum(low, self.low), np.maximum(high, self.high), total + self.total
        self.low, self.high, self.total = low, high, total
        self.count += len(flat)
        self._note_growth(self.batches)

    def merge(self, other: TensorStats) -> None:
        """Add the statistics of another shard, as if its data had come after this one's.

        Source: all parts but `total` and `growths` are exact; sums of floats depend on their order in the
        last digit, and a history on what came first.

        Raises:
            ValueError: They are of tensors with other channels.
        """
        if self.axis != other.axis or (self.count and other.count and self.low.shape != other.low.shape):
            raise ValueError("the statistics are of tensors with other channels")
        seen = self.batches
        self.batches += other.batches
        self.finite &= other.finite
        if not other.count:
            return
        self.histogram.merge(other.histogram)
        if other.sample.rows is not None:
            self.sample.offer(other.sample.ranks, other.sample.rows)
        first = not self.count
        self.low = other.low.copy() if first else np.minimum(self.low, other.low)
        self.high = other.high.copy() if first else np.maximum(self.high, other.high)
        self.total = other.total.copy() if first else self.total + other.total
        self.count += other.count
        for batches, low, high in other.growths:
            if not self.growths or low < self.growths[-1][1] or high > self.growths[-1][2]:
                before = self.growths[-1][1:] if self.growths else (low, high)
                self.growths.append((seen + batches, min(low, before[0]), max(high, before[1])))
        self._forget_growths()

    def width_after(self, batches: int) -> float:
        """Return how wide the range was after that many batches; 0 before the first value."""
        known = [(low, high) for at, low, high in self.growths if at <= batches]
        return known[-1][1] - known[-1][0] if known else 0.0

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

    def _note_growth(self, batches: int) -> None:
        low, high = self.bounds
        if not self.growths or low < self.growths[-1][1] or high > self.growths[-1][2]:
            self.growths.append((batches, low, high))
            self._forget_growths()

    def _forget_growths(self) -> None:
        if len(self.growths) > _GROWTHS_KEPT:
            # Every second of the older half; the end of the history is what the audit looks at.
            half = len(self.growths) // 2
            self.growths = self.growths[:half:2] + self.growths[half:]
