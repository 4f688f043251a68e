"""Statistics that stream: bounded, mergeable, independent of order."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgekit.quantize.observers import HISTOGRAM_BINS, ROWS_KEPT, RunningHistogram, TensorStats

chunk = arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e6, 1e6, width=32))


def histogram_of(chunks):
    histogram = RunningHistogram()
    for values in chunks:
        histogram.update(values)
    return histogram


def stats_of(samples):
    stats = TensorStats(axis=-1)
    for key, values in samples:
        stats.update(values, key)
    return stats


def assert_same(one, other):
    assert one.histogram.limit == other.histogram.limit
    np.testing.assert_array_equal(one.histogram.counts, other.histogram.counts)
    np.testing.assert_array_equal(one.low, other.low)
    np.testing.assert_array_equal(one.high, other.high)
    np.testing.assert_allclose(one.total, other.total, rtol=1e-9, atol=1e-6)
    one.sample.sort()
    other.sample.sort()
    np.testing.assert_array_equal(one.sample.ranks, other.sample.ranks)
    np.testing.assert_array_equal(one.rows, other.rows)
    assert (one.count, one.batches) == (other.count, other.batches)


@given(st.lists(chunk, min_size=1, max_size=6), st.randoms())
@example([np.array([-1e-39, 1.0, -2.0], np.float32), np.array([4.0, 1e-45], np.float32)], None)
def test_the_order_of_the_data_does_not_matter(chunks, random):
    shuffled = list(reversed(chunks))
    if random is not None:
        random.shuffle(shuffled)
    first, second = histogram_of(chunks), histogram_of(shuffled)
    assert first.limit == second.limit
    np.testing.assert_array_equal(first.counts, second.counts)
    assert first.counts.sum() == sum(map(len, chunks))


@given(st.lists(chunk, min_size=2, max_size=6), st.integers(1, 5))
def test_histograms_of_shards_merge_to_the_whole(chunks, cut):
    whole, left, right = histogram_of(chunks), histogram_of(chunks[:cut]), histogram_of(chunks[cut:])
    left.merge(right)
    assert left.limit == whole.limit
    np.testing.assert_array_equal(left.counts, whole.counts)


@given(chunk)
def test_every_value_lies_in_the_bin_that_counts_it(values):
    histogram = histogram_of([values])
    assert histogram.counts.sum() == len(values)
    if histogram.limit:
        assert np.abs(values).max() < histogram.limit
        by_edges = np.histogram(values.astype(np.float64), histogram.edges)[0]
        # numpy's bins are closed on the left, ours on the side of zero.
        assert np.abs(np.cumsum(by_edges) - np.cumsum(histogram.counts)).max() <= histogram.counts.max()


@given(st.floats(2.0**-60, 2.0**60, width=32))
def test_a_one_sided_range_has_2048_bins_or_more(peak):
    histogram = histogram_of([np.array([peak], np.float32)])
    assert peak / histogram.bin_width >= 2048


def test_growth_keeps_values_in_their_place():
    histogram = histogram_of([np.full(10, 0.3, np.float32), np.full(1, 1000.0, np.float32)])
    at = int(np.flatnonzero(histogram.counts == 10)[0])
    assert histogram.edges[at] <= 0.3 <= histogram.edges[at + 1]


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


@given(
    st.lists(
        st.tuples(st.integers(0, 2**40).map(lambda digest: digest << 20), st.integers(1, 500)),
        min_size=2,
        max_size=6,
        unique_by=lambda sample: sample[0],
    ),
    st.integers(0, 6),
    st.integers(0, 99),
)
def test_shards_merge_to_the_statistics_of_the_whole(samples, cut, seed):
    rng = np.random.default_rng(seed)
    data = [(key, rng.normal(size=(1, n, 3)).astype(np.float32)) for key, n in samples]
    whole, left, right = stats_of(data), stats_of(data[:cut]), stats_of(data[cut:])
    left.merge(right)
    assert_same(left, whole)
    assert [g[1:] for g in left.growths[-1:]] == [g[1:] for g in whole.growths[-1:]]
    backwards = stats_of(data[cut:])
    backwards.merge(stats_of(data[:cut]))
    assert_same(backwards, whole)


def test_a_shard_that_is_merged_twice_adds_no_rows():
    shard = [(7, np.ones((1, 9, 3), np.float32))]
    stats = stats_of(shard)
    stats.merge(stats_of(shard))
    assert len(stats.rows) == 9


def test_channels_of_a_convolution_are_axis_one():
    values = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    stats = TensorStats(axis=1)
    stats.update(values)
    np.testing.assert_array_equal(stats.high, values.max(axis=(0, 2, 3)))
    assert stats.rows.shape == (0, 3)


def test_memory_does_not_grow_with_the_samples():
    stats = TensorStats(axis=-1)
    for index in range(2000):
        stats.update(np.full((1, 50, 8), index, np.float32))
    assert len(stats.rows) == ROWS_KEPT
    assert stats.histogram.counts.shape == (HISTOGRAM_BINS,)
    assert len(stats.growths) <= 256  # a range that grows on every batch
    assert stats.growths[-1] == (2000, 0.0, 1999.0)


def test_kept_rows_are_spread_evenly_over_the_stream_and_over_positions():
    stats = TensorStats(axis=-1)
    for index in range(400):
        position = np.arange(64, dtype=np.float32)
        stats.update(np.stack([np.full(64, index, np.float32), position], axis=-1)[None], key=index << 20)
    assert len(stats.rows) == ROWS_KEPT
    assert abs(stats.rows[:, 0].mean() - 199.5) < 20
    assert abs(stats.rows[:, 1].mean() - 31.5) < 3


def test_how_the_stream_is_cut_into_batches_does_not_change_the_rows():
    values = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
    one, many = TensorStats(axis=-1), TensorStats(axis=-1)
    one.update(values)
    for piece in np.array_split(values, 37):
        many.update(piece)
    one.sample.sort()
    many.sample.sort()
    np.testing.assert_array_equal(one.rows, many.rows)


def test_the_history_says_how_wide_the_range_was():
    stats = TensorStats(axis=-1)
    for peak in (1.0, 0.5, 3.0):
        stats.update(np.array([[0.0, peak]], np.float32))
    assert [stats.width_after(n) for n in range(4)] == [0, 1, 1, 3]


def test_a_value_that_is_not_finite_is_noticed():
    for bad in (np.nan, np.inf, -np.inf):
        stats = TensorStats(axis=-1)
        stats.update(np.array([[1.0, bad]], np.float32))
        assert not stats.finite


def test_a_tensor_without_values_is_counted_and_changes_nothing():
    stats = TensorStats(axis=-1)
    stats.update(np.zeros((1, 0, 4), np.float32))
    assert (stats.count, stats.batches) == (0, 1)
