"""The search for the 8-bit form of a matrix product."""

from dataclasses import replace

import numpy as np
import pytest

from edgekit.quantize.linear import LinearRules, smoothing_factors, solve
from edgekit.quantize.observers import TensorStats
from edgekit.quantize.schemes import ActivationScheme, dequantize_weight

U8 = ActivationScheme("uint8", False)


def rules(**changes):
    base = LinearRules(U8, True, False, True, "mse", 99.99)
    return replace(base, **changes)


def stats_of(rows):
    stats = TensorStats(axis=-1)
    stats.update(rows)
    return stats


@pytest.fixture
def outliers():
    """Activations of which two channels are fifty times the others, as LayerNorm of BERT gives them."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 32)).astype(np.float32)
    rows[:, [3, 20]] *= 50
    return rows, (rng.normal(size=(32, 16)) / 6).astype(np.float32)


def relative_error(rows, weight, solution):
    smoothing = np.ones(rows.shape[1], np.float32) if solution.smoothing is None else solution.smoothing
    quantized = solution.weights[0]
    found = solution.affine.fake(rows / smoothing) @ dequantize_weight(quantized.codes, quantized.scale, 1)
    target = rows @ weight
    return np.mean((found - target) ** 2) / np.mean(target**2)


def test_smoothing_removes_most_of_the_error_that_outliers_make(outliers):
    rows, weight = outliers
    solution = solve(stats_of(rows), [weight], rules(), free=False)
    assert solution.alpha is not None
    assert solution.error < 0.3 * solution.error_plain
    assert relative_error(rows, weight, solution) == pytest.approx(solution.error, rel=1e-3)


def test_smoothing_that_is_switched_off_is_not_used(outliers):
    rows, weight = outliers
    assert solve(stats_of(rows), [weight], rules(smoothing=False), free=False).smoothing is None


def test_a_gain_too_small_for_its_cost_is_refused_unless_it_is_free():
    rng = np.random.default_rng(1)
    rows = rng.uniform(-1, 1, size=(400, 32)).astype(np.float32)
    weight = rng.uniform(-1, 1, size=(32, 16)).astype(np.float32)
    assert solve(stats_of(rows), [weight], rules(), free=False).smoothing is None


def test_smoothing_keeps_the_product_in_exact_arithmetic(outliers):
    rows, weight = outliers
    factors = smoothing_factors(stats_of(rows), weight, 0.7).astype(np.float64)
    np.testing.assert_allclose(
        (rows / factors) @ (weight * factors[:, None]), rows @ weight, rtol=1e-4, atol=1e-3
    )


def test_channels_that_are_dead_keep_their_scale(outliers):
    rows, weight = outliers
    rows, weight = rows.copy(), weight.copy()
    rows[:, 5], weight[7] = 0, 0
    factors = smoothing_factors(stats_of(rows), weight, 0.5)
    assert factors[5] == factors[7] == 1
    assert np.isfinite(factors).all()


def test_the_mean_shift_is_what_quantization_moves_the_outputs_by(outliers):
    rows, weight = outliers
    solution = solve(stats_of(rows), [weight], rules(smoothing=False), free=False)
    quantized = solution.weights[0]
    found = solution.affine.fake(rows) @ dequantize_weight(quantized.codes, quantized.scale, 1)
    np.testing.assert_allclose(quantized.mean_shift, (rows @ weight - found).mean(0), atol=1e-3)


def test_products_of_one_activation_share_its_scale_and_smoothing(outliers):
    rows, weight = outliers
    solution = solve(stats_of(rows), [weight, weight[:, :4], 2 * weight], rules(), free=False)
    assert [w.codes.shape[1] for w in solution.weights] == [16, 4, 16]


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_every_range_method_gives_a_sound_product(outliers, method):
    rows, weight = outliers
    solution = solve(stats_of(rows), [weight], rules(range_method=method), free=False)
    assert relative_error(rows, weight, solution) < 0.02
