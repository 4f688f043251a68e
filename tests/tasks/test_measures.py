"""The measures obey their laws and agree with the libraries that everyone trusts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgekit.errors import ModelError
from edgekit.golden import Golden, GoldenBatch
from edgekit.tasks.measures import (
    PERFECT_DB,
    cosines,
    kl_divergences,
    max_relative_error,
    sample_pairs,
    spearman,
    sqnr_db,
)

numbers = st.floats(-1e6, 1e6, width=32)
series = arrays(np.float64, st.integers(3, 40), elements=st.integers(-50, 50).map(float))


@settings(deadline=None)
@given(series)
def test_rank_correlation_does_not_see_a_rising_map_and_turns_with_a_falling_one(values):
    rising = np.exp(values / 10) + 3
    assert spearman(values, rising) == pytest.approx(1)
    if len(set(values)) > 1:
        assert spearman(values, -rising) == pytest.approx(-1)


@settings(deadline=None)
@given(st.data())
def test_rank_correlation_is_symmetric_bounded_and_scipys(data):
    size = data.draw(st.integers(3, 40))
    one = arrays(np.float64, size, elements=st.integers(0, 6).map(float))
    a, b = data.draw(one), data.draw(one)
    value = spearman(a, b)
    assert -1 <= value <= 1
    assert value == pytest.approx(spearman(b, a), abs=1e-12)
    if len(set(a)) > 1 and len(set(b)) > 1:
        stats = pytest.importorskip("scipy.stats")
        assert value == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)


def test_rank_correlation_of_constants_and_of_too_little():
    same, rising = np.ones(4), np.arange(4.0)
    assert spearman(same, same) == 1
    assert spearman(same, rising) == spearman(rising, same) == 0
    assert math.isnan(spearman(np.ones(1), np.ones(1)))
    assert math.isnan(spearman(np.array([1, math.nan, 2]), np.arange(3.0)))


@settings(deadline=None)
@given(arrays(np.float64, (5, 4), elements=numbers), arrays(np.float64, (5, 4), elements=numbers))
def test_a_cosine_lies_between_minus_one_and_one_and_is_symmetric(a, b):
    values = cosines(a, b)
    assert values.shape == (5,)
    assert ((values >= -1) & (values <= 1)).all()
    np.testing.assert_allclose(values, cosines(b, a), atol=1e-12)


@settings(deadline=None)
@given(arrays(np.float64, (3, 4), elements=st.floats(0.1, 1e3)), st.floats(0.01, 100))
def test_a_cosine_does_not_see_length(a, factor):
    np.testing.assert_allclose(cosines(a, a * factor), 1, atol=1e-12)
    np.testing.assert_allclose(cosines(a, -a * factor), -1, atol=1e-12)


def test_the_cosine_of_zero_vectors_and_of_nan():
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    assert cosines(zero, zero) == 1
    assert cosines(zero, one) == 0
    assert math.isnan(cosines(one, one * math.nan)[0])


@settings(deadline=None)
@given(st.floats(-60, 60), st.integers(0, 2**31), st.floats(0.01, 100))
def test_noise_of_a_known_share_has_that_ratio_whatever_the_scale(ratio_db, seed, scale):
    rng = np.random.default_rng(seed)
    signal, noise = rng.normal(size=100), rng.normal(size=100)
    noise *= np.linalg.norm(signal) / np.linalg.norm(noise) * 10 ** (-ratio_db / 20)
    assert sqnr_db(signal, signal + noise) == pytest.approx(ratio_db, abs=1e-5)
    assert sqnr_db(scale * signal, scale * (signal + noise)) == pytest.approx(ratio_db, abs=1e-5)


def test_the_ratio_of_equal_silent_and_broken_signals():
    one, zero = np.ones(3), np.zeros(3)
    assert sqnr_db(one, one) == sqnr_db(zero, zero) == PERFECT_DB
    assert sqnr_db(zero, one) == -PERFECT_DB
    assert sqnr_db(one, one * math.inf) == -PERFECT_DB
    assert math.isnan(sqnr_db(one, one * math.nan))


@settings(deadline=None)
@given(arrays(np.float64, (4, 3), elements=st.floats(-30, 30)), st.floats(-10, 10))
def test_kl_is_zero_for_a_shift_of_the_logits_and_never_negative(logits, shift):
    np.testing.assert_allclose(kl_divergences(logits, logits + shift), 0, atol=1e-9)
    assert (kl_divergences(logits, np.roll(logits, 1, axis=1)) >= 0).all()


def test_kl_is_that_of_scipy():
    stats, special = pytest.importorskip("scipy.stats"), pytest.importorskip("scipy.special")
    a, b = np.random.default_rng(0).normal(size=(2, 6, 5))
    expected = stats.entropy(special.softmax(a, axis=1), special.softmax(b, axis=1), axis=1)
    np.testing.assert_allclose(kl_divergences(a, b), expected)
    assert np.isnan(kl_divergences(a, b * math.nan)).all()


def test_the_largest_error_is_relative_to_the_largest_value():
    assert max_relative_error(np.array([1.0, -4.0]), np.array([1.5, -4.0])) == 0.125
    assert max_relative_error(np.zeros(2), np.array([0.0, 0.5])) == 0.5
    assert math.isnan(max_relative_error(np.ones(2), np.array([1.0, math.nan])))


def golden(*shapes: tuple[int, ...], mask_lengths: tuple[int, ...], labels: bool = False) -> Golden:
    batches = []
    for shape, length in zip(shapes, mask_lengths, strict=True):
        mask = np.ones((shape[0], length), np.int64)
        mask[0, -1] = 0
        outputs = {"y": np.arange(math.prod(shape), dtype=np.float32).reshape(shape)}
        batches.append(GoldenBatch({"attention_mask": mask}, outputs, mask * 5 if labels else None))
    return Golden("generic", tuple(batches))


def same(recorded: Golden) -> list:
    return [batch.outputs for batch in recorded.batches]


def test_padding_is_left_out_of_values_and_labels():
    recorded = golden((2, 3, 4), (1, 5, 4), mask_lengths=(3, 5), labels=True)
    pairs = sample_pairs(recorded, same(recorded), "y")
    assert [pair.reference.shape for pair in pairs] == [(2, 4), (3, 4), (4, 4)]
    assert all((pair.labels == 5).all() and len(pair.labels) == len(pair.other) for pair in pairs)


def test_as_many_classes_as_tokens_are_not_taken_for_a_sequence():
    recorded = golden((2, 3), (2, 3), mask_lengths=(3, 5))
    assert [pair.reference.shape for pair in sample_pairs(recorded, same(recorded), "y")] == [(1, 3)] * 4
    recorded = golden((2, 3), mask_lengths=(3,))
    assert [pair.reference.shape for pair in sample_pairs(recorded, same(recorded), "y")] == [(1, 3)] * 2


def test_one_score_per_token_is_a_sequence_where_the_lengths_say_so():
    recorded = golden((2, 3), (2, 5), mask_lengths=(3, 5))
    shapes = [pair.reference.shape for pair in sample_pairs(recorded, same(recorded), "y")]
    assert shapes == [(2, 1), (3, 1), (4, 1), (5, 1)]


def test_outputs_that_are_missing_or_of_another_shape_are_named():
    recorded = golden((2, 3, 4), mask_lengths=(3,))
    with pytest.raises(ModelError, match="gives no output 'y', only z"):
        sample_pairs(recorded, [{"z": np.ones(3)}], "y")
    with pytest.raises(ModelError, match=r"has shape \(2, 3\), the recorded one has \(2, 3, 4\)"):
        sample_pairs(recorded, [{"y": np.ones((2, 3))}], "y")
