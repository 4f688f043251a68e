"""Rounding that makes up for its errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.quantize.linear import LinearRules, solve
from edgekit.quantize.observers import TensorStats
from edgekit.quantize.rounding import compensated_codes
from edgekit.quantize.schemes import (
    ActivationScheme,
    pair_sums,
    quantize_product_weight,
    quantize_weight,
)

finite = st.floats(-100, 100, width=32)
cases = st.tuples(st.integers(1, 70), st.integers(1, 5), st.integers(1, 6)).flatmap(
    lambda size: st.tuples(
        hnp.arrays(np.float32, (size[0], size[1]), elements=finite),
        hnp.arrays(np.float32, (size[2], size[0]), elements=finite),
    )
)


@pytest.fixture
def layer():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(12, 48))
    rows, held_out = (
        (rng.normal(size=(n, 12)) @ mixing + 0.1 * rng.normal(size=(n, 48))).astype(np.float32)
        for n in (900, 300)
    )
    return rows, held_out, (rng.normal(size=(48, 20)) / 7).astype(np.float32)


def error(codes, scale, weight, rows):
    return np.mean((rows @ (codes * scale) - rows @ weight) ** 2)


def test_outputs_on_data_that_it_did_not_see_are_closer_than_with_nearest_rounding(layer):
    rows, held_out, weight = layer
    nearest, scale = quantize_weight(weight, 1, reduce_range=False)
    codes = compensated_codes(weight, scale, rows)
    assert error(codes, scale, weight, held_out) < 0.5 * error(nearest, scale, weight, held_out)


def test_codes_stay_in_range_and_are_of_the_weight_s_shape(layer):
    rows, _, weight = layer
    _, scale = quantize_weight(weight, 1, reduce_range=False)
    codes = compensated_codes(weight, scale * 0.5, rows, qmax=64)
    assert codes.dtype == np.int8
    assert codes.shape == weight.shape
    assert np.abs(codes.astype(int)).max() == 64


def test_independent_channels_are_rounded_to_nearest():
    """Nothing can be made up for where channels do not move together."""
    weight = np.random.default_rng(1).normal(size=(8, 5)).astype(np.float32)
    nearest, scale = quantize_weight(weight, 1, reduce_range=False)
    np.testing.assert_array_equal(compensated_codes(weight, scale, np.eye(8, dtype=np.float32)), nearest)


def test_channels_that_are_always_zero_are_no_obstacle(layer):
    rows, _, weight = layer
    rows = rows.copy()
    rows[:, [0, 7]] = 0
    nearest, scale = quantize_weight(weight, 1, reduce_range=False)
    codes = compensated_codes(weight, scale, rows)
    assert error(codes, scale, weight, rows) <= error(nearest, scale, weight, rows)


@pytest.mark.parametrize("reduce_range", [False, True])
def test_the_search_uses_it_and_keeps_the_promise_about_saturation(layer, reduce_range):
    rows, _, weight = layer
    stats = TensorStats(axis=-1)
    stats.update(rows)
    found = {}
    for rounding in ("nearest", "compensated"):
        scheme = ActivationScheme("uint8", False)
        rules = LinearRules(scheme, True, reduce_range, True, "mse", 99.99, rounding)
        solution = solve(stats, [weight], rules, free=False)
        found[rounding] = solution.error
        if reduce_range:
            assert pair_sums(solution.weights[0].codes).max() <= 128
    assert found["compensated"] < found["nearest"]


@settings(max_examples=50, deadline=None)
@given(cases)
def test_every_weight_is_rounded_down_or_up_whatever_the_data(case):
    weight, rows = case
    _, scale = quantize_weight(weight, 1, reduce_range=False)
    real = weight / scale
    codes = compensated_codes(weight, scale, rows)
    assert np.all(
        (codes == np.clip(np.floor(real), -127, 127)) | (codes == np.clip(np.ceil(real), -127, 127))
    )


@settings(max_examples=50, deadline=None)
@given(cases)
def test_a_weight_with_room_for_saturating_sums_keeps_it(case):
    weight, rows = case
    _, scale = quantize_product_weight(weight, per_channel=True, saturation_safe=True)
    fits = pair_sums(weight / scale) <= 127  # all but those at the limit to the last digit
    assert np.all(pair_sums(compensated_codes(weight, scale, rows))[fits] <= 128)


def test_vectors_unlike_all_that_were_seen_lose_little_more_than_by_rounding_to_nearest():
    """One vector per channel, half of the channels quiet: what is pushed into those must not come back."""
    rng = np.random.default_rng(0)
    quiet = np.where(np.arange(64) < 32, 1.0, 0.05)
    mixing = rng.normal(size=(24, 64))

    def drawn(count, by):
        vectors = rng.normal(size=(count, 24)) @ mixing + 0.3 * rng.normal(size=(count, 64))
        return (vectors * by).astype(np.float32)

    rows, alike, unlike = drawn(64, quiet), drawn(200, quiet), drawn(200, quiet[::-1])
    weight = rng.normal(size=(64, 200)).astype(np.float32)
    nearest, scale = quantize_weight(weight, 1, reduce_range=False)
    codes = compensated_codes(weight, scale, rows)
    assert error(codes, scale, weight, alike) < 0.6 * error(nearest, scale, weight, alike)
    assert error(codes, scale, weight, unlike) < 2.5 * error(nearest, scale, weight, unlike)


@given(case=cases, share=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_zero_stays_a_zero(case, share, seed):
    """Sparse weights would not be sparse any more if they made up for others' errors."""
    weight, rows = case
    weight[np.random.default_rng(seed).random(weight.shape) < share] = 0
    _, scale = quantize_weight(weight, 1, reduce_range=False)
    assert not compensated_codes(weight, scale, rows)[weight == 0].any()
