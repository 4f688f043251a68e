"""From histogram to range."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.quantize.observers import RunningHistogram
from edgekit.quantize.ranges import _points, choose_range, divergence, percentile_bounds
from edgekit.quantize.schemes import ActivationScheme

U8, S8 = ActivationScheme("uint8", False), ActivationScheme("int8", True)


def observed(values):
    histogram = RunningHistogram()
    histogram.update(values)
    return histogram, (float(values.min()), float(values.max()))


@pytest.mark.parametrize("scheme", [U8, S8], ids=["u8", "s8"])
def test_minmax_covers_everything(scheme):
    values = np.array([-3.0, 0.5, 7.0], np.float32)
    affine = choose_range(*observed(values), scheme, "minmax")
    assert affine.low <= -3.0 + affine.scale
    assert affine.high >= 7.0 - affine.scale


@pytest.mark.parametrize("scheme", [U8, S8], ids=["u8", "s8"])
def test_mse_is_never_worse_than_minmax_on_the_data(scheme):
    rng = np.random.default_rng(1)
    for values in (
        rng.normal(size=20000).astype(np.float32),
        rng.standard_t(2, size=20000).astype(np.float32),
        np.maximum(rng.normal(size=20000), 0).astype(np.float32),
    ):
        seen = observed(values)
        errors = {
            method: np.mean((choose_range(*seen, scheme, method).fake(values) - values) ** 2)
            for method in ("minmax", "mse")
        }
        assert errors["mse"] <= errors["minmax"] * 1.02


def test_mse_cuts_a_lone_outlier():
    histogram = RunningHistogram()
    body = np.random.default_rng(0).normal(size=50000).astype(np.float32)
    for _ in range(20):
        histogram.update(body)
    histogram.update(np.array([80.0], np.float32))
    assert choose_range(histogram, (float(body.min()), 80.0), U8, "mse").high < 60


@given(st.floats(90, 100))
def test_percentile_is_two_sided_and_inside_the_bounds(percentile):
    values = np.random.default_rng(2).normal(size=5000).astype(np.float32)
    histogram, bounds = observed(values)
    low, high = percentile_bounds(histogram, bounds, percentile)
    assert bounds[0] <= low < high <= bounds[1]
    bin_width = 2 * histogram.limit / 4096
    expected = np.percentile(values, [100 - percentile, percentile])
    # numpy interpolates between neighbours, which lie up to 0.3 apart in the tail.
    assert abs(low - expected[0]) < 0.35 + bin_width
    assert abs(high - expected[1]) < 0.35 + bin_width


def test_a_constant_zero_tensor_has_a_usable_scale():
    affine = choose_range(*observed(np.zeros(5, np.float32)), U8, "mse")
    assert affine.scale > 0
    assert affine.fake(np.zeros(3, np.float32)).tolist() == [0, 0, 0]


def brute_divergence(values, weights, affine):
    """Migacz' definition, two-sided, value by value in plain Python."""
    outer = [v for v in values if affine.low - affine.scale / 2 <= v <= affine.high + affine.scale / 2]
    if not outer:
        return math.inf
    reference, codes = {}, {}
    for value, weight in zip(values, weights, strict=True):
        nearest = min(max(value, outer[0]), outer[-1])
        reference[nearest] = reference.get(nearest, 0.0) + weight
        if outer[0] <= value <= outer[-1]:
            code = "zero" if value == 0 else round(value / affine.scale)
            codes.setdefault(code, []).append((value, weight))
    candidate = {}
    for members in codes.values():
        for value, _ in members:
            candidate[value] = sum(weight for _, weight in members) / len(members)
    p_sum, q_sum = sum(reference.values()), sum(candidate.values())
    return sum(
        p / p_sum * math.log((p / p_sum) / (candidate[value] / q_sum)) for value, p in reference.items()
    )


@given(
    st.dictionaries(st.integers(-400, 400), st.integers(1, 1000), min_size=2, max_size=60),
    st.floats(0.1, 1),
    st.floats(0.1, 1),
    st.sampled_from([U8, S8]),
)
def test_divergence_is_that_of_the_definition(counts, low_share, high_share, scheme):
    values = np.array(sorted(counts), np.float32)
    weights = np.array([counts[int(v)] for v in values], np.float64)
    affine = scheme.affine(float(values[0]) * low_share, float(values[-1]) * high_share)
    expected = brute_divergence([float(v) for v in values], weights.tolist(), affine)
    assert divergence(values, weights, affine) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("scheme", [U8, S8], ids=["u8", "s8"])
@pytest.mark.parametrize("method", ["mse", "entropy"])
def test_the_search_finds_what_trying_every_range_finds(scheme, method):
    rng = np.random.default_rng(3)
    for values in (
        rng.normal(size=20000),
        rng.standard_t(2, size=20000),
        np.maximum(rng.normal(size=20000), 0),
        np.concatenate([rng.normal(size=20000), [-40.0], np.full(300, 9.0)]),
    ):
        values = values.astype(np.float32)
        histogram, bounds = observed(values)
        low, high = min(bounds[0], 0.0), bounds[1]
        points = _points(histogram, bounds)

        def error(affine, values=values, points=points):
            if method == "entropy":
                return divergence(*points, affine)
            return np.mean((affine.fake(values) - values) ** 2)

        shares = np.linspace(0.3, 1, 29)
        if scheme.symmetric:
            every = [scheme.affine(low * a, high * a) for a in shares]
        else:
            every = [scheme.affine(low * a, high * b) for a in shares for b in shares]
        best = min(map(error, every))
        assert error(choose_range(histogram, bounds, scheme, method)) <= best * 1.05


def test_entropy_cuts_both_tails_and_each_as_far_as_it_deserves():
    rng = np.random.default_rng(4)
    values = np.concatenate([rng.normal(size=200000), [-30.0], rng.normal(size=60) + 12]).astype(np.float32)
    affine = choose_range(*observed(values), U8, "entropy")
    assert affine.low > -15
    assert 6 < affine.high < 16


def test_a_mass_of_zeros_does_not_narrow_the_entropy_range():
    rng = np.random.default_rng(5)
    values = rng.uniform(0, 6, 50000).astype(np.float32)
    padded = np.concatenate([values, np.zeros(500000, np.float32)])
    assert choose_range(*observed(padded), U8, "entropy").high > 5.5


@pytest.mark.parametrize("method", ["mse", "entropy"])
def test_a_search_takes_milliseconds(method):
    values = np.random.default_rng(6).standard_t(3, size=400000).astype(np.float32)
    histogram, bounds = observed(values)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        choose_range(histogram, bounds, U8, method)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.2  # 0.05 on an idle machine; the bound leaves room for a busy one
