"""Four-bit codes by block: what they stand for, how close they are, and when zero points are worth it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.quantize.blocks import BLOCK, block_codes


def table(rows, columns, seed=0, shift=0.0):
    return (np.random.default_rng(seed).normal(size=(rows, columns)) + shift).astype(np.float32)


def lost(found, wanted):
    return float(
        np.square(found - wanted, dtype=np.float64).sum() / np.square(wanted, dtype=np.float64).sum()
    )


@given(
    st.integers(1, 40),
    st.integers(1, 100),
    st.integers(0, 99),
    st.sampled_from([0.0, 3.0]),
    st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_codes_fit_and_every_number_comes_back_within_a_step(rows, columns, seed, shift, size):
    real = table(rows, columns, seed, shift) * np.float32(size)
    found = block_codes(real)
    assert found.codes.shape == real.shape
    assert found.scale.shape == (rows, -(-columns // BLOCK))
    assert found.codes.max() <= 15
    assert np.isfinite(found.real()).all()
    # No range is cut by more than a quarter, and the largest number is at most 8 steps.
    assert (np.abs(found.real() - real) <= 3.1 * np.repeat(np.abs(found.scale), BLOCK, 1)[:, :columns]).all()
    assert found.error == pytest.approx(lost(found.real(), real), rel=1e-3, abs=1e-12)


def test_normal_numbers_lose_a_hundredth_of_their_energy():
    # A uniform quantizer of 16 steps of the best width loses 0.0115 on a whole Gaussian (Max 1960); blocks
    # have narrower ranges.
    assert 0.003 < block_codes(table(500, 128)).error < 0.0115


def test_the_search_beats_the_range_of_the_block():
    real = table(500, 128).reshape(500, -1, BLOCK)
    scale = np.abs(real).max(-1, keepdims=True) / 7
    plain = np.clip(np.rint(real / scale), -8, 7) * scale
    assert block_codes(real.reshape(500, 128)).error < 0.8 * lost(plain, real)


def test_numbers_around_zero_need_no_zero_points():
    found = block_codes(table(100, 64))
    assert found.zero_point is None


def test_numbers_on_one_side_get_zero_points_and_lose_less_by_them():
    real = np.abs(table(100, 64)) + 0.1
    found = block_codes(real)
    assert found.zero_point is not None
    assert found.zero_point.max() <= 15
    symmetric = np.abs(real).reshape(100, -1, BLOCK).max(-1, keepdims=True) / 8
    plain = np.clip(np.rint(real.reshape(100, -1, BLOCK) / symmetric), -8, 7) * symmetric
    assert found.error < 0.5 * lost(plain.reshape(real.shape), real)


def test_zeros_stay_zeros():
    real = table(20, 64)
    real[3] = 0
    real[5, :32] = 0
    found = block_codes(real)
    assert not found.real()[3].any()
    assert not found.real()[5, :32].any()
    assert not block_codes(np.zeros((4, 40), np.float32)).real().any()
    assert block_codes(np.zeros((4, 40), np.float32)).error == 0


def test_numbers_that_have_codes_come_back_exactly():
    codes = np.random.default_rng(0).integers(-8, 8, (50, 64))
    codes[:, ::BLOCK] = -8  # every block uses its whole range, so the step is known
    real = (codes * 0.25).astype(np.float32)
    found = block_codes(real)
    assert np.array_equal(found.real(), real)
    assert set(np.unique(np.abs(found.scale))) == {np.float32(0.25)}


def test_scales_fit_in_two_bytes():
    scale = block_codes(table(100, 64)).scale
    assert np.array_equal(scale.astype(np.float16).astype(np.float32), scale)


def test_rows_do_not_depend_on_each_other():
    real = table(5000, 32)
    assert np.array_equal(block_codes(real).codes[4990:], block_codes(real[4990:]).codes)
