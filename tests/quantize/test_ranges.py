"""From histogram to range."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.quantize.observers import RunningHistogram
from edgekit.quantize.ranges import choose_range, percentile_bounds
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
