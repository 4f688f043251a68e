"""Statistics that stream: bounded, mergeable, independent of order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgekit.quantize.observers import HISTOGRAM_BINS, ROWS_KEPT, RunningHistogram, TensorStats

chunk = arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e6, 1e6, width=32))


def histogram_of(chunks):
    histogram = RunningHistogram()
    for values in chunks:
        histogram.update(values)
    return histogram


@given(st.lists(chunk, min_size=1, max_size=6), st.randoms())
def test_the_order_of_the_data_does_not_matter(chunks, random):
    shuffled = list(chunks)
    random.shuffle(shuffled)
    first, second = histogram_of(chunks), histogram_of(shuffled)
    assert first.limit == second.limit
    assert first.counts.sum() == second.counts.sum() == sum(map(len, chunks))
    # A value that lies on the edge of two bins may be counted in either after a merge.
    assert np.abs(np.cumsum(first.counts) - np.cumsum(second.counts)).max() <= first.counts.max()


@given(st.lists(chunk, min_size=2, max_size=6), st.integers(1, 5))
def test_shards_merge_to_the_whole(chunks, cut):
    whole, left, right = histogram_of(chunks), histogram_of(chunks[:cut]), histogram_of(chunks[cut:])
    left.merge(right)
    assert left.limit == whole.limit
    assert left.counts.sum() == whole.counts.sum()


@given(chunk)
def test_every_value_lies_within_the_limit(values):
    histogram = histogram_of([values])
    assert np.abs(values).max() <= histogram.limit or histogram.limit == 0
    assert histogram.counts.sum() == len(values)


def test_growth_keeps_values_in_their_place():
    histogram = histogram_of([np.full(10, 0.3, np.float32), np.full(1, 1000.0, np.float32)])
    center = histogram.edges[:-1][histogram.counts == 10][0]
    assert abs(center - 0.3) <= 2 * histogram.limit / HISTOGRAM_BINS


def test_statistics_equal_those_of_the_whole_array():
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(1, n, 6)).astype(np.float32) for n in (3, 17, 1, 40)]
    stats = TensorStats(axis=-1)
    for batch in batches:
        stats.update(batch)
    whole = np.concatenate([b.reshape(-1, 6) for b in batches])
    np.testing.assert_array_equal(stats.low, whole.min(0))
    np.testing.assert_array_equal(stats.high, whole.max(0))
    np.testing.assert_allclose(stats.mean, whole.mean(0), atol=1e-6)
    assert stats.count == len(whole)
    np.testing.assert_array_equal(np.sort(stats.rows, axis=0), np.sort(whole, axis=0))


def test_channels_of_a_convolution_are_axis_one():
    values = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    stats = TensorStats(axis=1)
    stats.update(values)
    np.testing.assert_array_equal(stats.high, values.max(axis=(0, 2, 3)))
    assert stats.rows.shape == (0, 3)


def test_memory_does_not_grow_with_the_samples():
    stats = TensorStats(axis=-1)
    for index in range(256):
        stats.update(np.full((1, 50, 8), index, np.float32))
    assert len(stats.rows) == ROWS_KEPT
    assert stats.histogram.counts.shape == (HISTOGRAM_BINS,)


def test_kept_rows_are_spread_evenly_over_the_stream_and_over_positions():
    stats = TensorStats(axis=-1)
    for index in range(400):
        position = np.arange(64, dtype=np.float32)
        stats.update(np.stack([np.full(64, index, np.float32), position], axis=-1)[None])
    assert len(stats.rows) == ROWS_KEPT
    assert abs(stats.rows[:, 0].mean() - 199.5) < 20
    assert abs(stats.rows[:, 1].mean() - 31.5) < 3


def test_how_the_stream_is_cut_into_batches_does_not_change_the_rows():
    values = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
    one, many = TensorStats(axis=-1), TensorStats(axis=-1)
    one.update(values)
    for chunk in np.array_split(values, 37):
        many.update(chunk)
    np.testing.assert_array_equal(one.rows, many.rows)


def test_a_value_that_is_not_finite_is_noticed():
    stats = TensorStats(axis=-1)
    stats.update(np.array([[1.0, np.nan]], np.float32))
    assert not stats.finite
