"""Of all pairs of a rank, the one that errs least on the inputs; its error is what was cut off."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.compress import factors as room
from edgekit.compress.factors import decompose, refitted
from edgekit.compress.matrices import Moments

SHAPES = st.tuples(st.integers(2, 9), st.integers(2, 9))


@pytest.fixture(autouse=True)
def _no_damping(monkeypatch) -> None:
    """The laws hold for the moments as they are used; here these are the data's own."""
    monkeypatch.setattr(room, "_DAMPING", 0.0)


def _case(shape, seed, rows: int = 40):
    generator = torch.Generator().manual_seed(seed)
    out, wide = shape
    mix = torch.randn(wide, wide, generator=generator, dtype=torch.float64)
    x = torch.randn(rows, wide, generator=generator, dtype=torch.float64) @ mix
    weight = torch.randn(out, wide, generator=generator, dtype=torch.float64)
    return weight, x, x.T @ x / rows, torch.rand(out, generator=generator, dtype=torch.float64) + 0.1


def _error(weight, other, x, rows=None) -> float:
    energy = (x @ (weight - other).T).square().mean(0)
    return float((energy if rows is None else rows * energy).sum())


@given(shape=SHAPES, seed=st.integers(0, 10**6), weighted=st.booleans(), data=st.data())
def test_the_error_is_the_energy_of_the_values_that_were_cut_off(shape, seed, weighted, data) -> None:
    weight, x, own, rows = _case(shape, seed)
    counts = rows if weighted else None
    found = decompose(weight, own, counts)
    rank = data.draw(st.integers(0, min(shape)))
    down, up = found.pair(rank)
    scale = _error(weight, torch.zeros_like(weight), x, counts)
    assert _error(weight, up @ down, x, counts) == pytest.approx(found.lost(rank), abs=1e-7 * scale)


@given(shape=SHAPES, seed=st.integers(0, 10**6), data=st.data())
def test_no_other_pair_of_the_rank_errs_less(shape, seed, data) -> None:
    weight, x, own, _ = _case(shape, seed)
    rank = data.draw(st.integers(1, min(shape)))
    down, up = decompose(weight, own).pair(rank)
    plain_down, plain_up = decompose(weight).pair(rank)
    nudged = up + 0.01 * torch.randn(up.shape, dtype=torch.float64)
    best = _error(weight, up @ down, x)
    assert best <= _error(weight, plain_up @ plain_down, x) * (1 + 1e-9) + 1e-9
    assert best <= _error(weight, nudged @ down, x) + 1e-9


@given(shape=SHAPES, seed=st.integers(0, 10**6), weighted=st.booleans())
def test_full_rank_is_exact(shape, seed, weighted) -> None:
    weight, _, own, rows = _case(shape, seed)
    for found in (decompose(weight), decompose(weight, own, rows if weighted else None)):
        down, up = found.pair(min(shape))
        torch.testing.assert_close(up @ down, weight, rtol=1e-6, atol=1e-6)
        assert found.lost(min(shape)) == 0


def test_what_lies_between_the_two_has_the_same_energy_everywhere() -> None:
    weight, x, own, _ = _case((6, 8), 3)
    down, _ = decompose(weight, own).pair(4)
    torch.testing.assert_close((x @ down.T).square().mean(0), torch.ones(4, dtype=torch.float64))


@given(shape=SHAPES, seed=st.integers(0, 10**6))
def test_a_refitted_matrix_makes_up_for_changed_inputs(shape, seed) -> None:
    weight, x0, _, _ = _case(shape, seed)
    generator = torch.Generator().manual_seed(seed)
    x = x0 + 0.3 * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    fitted = refitted(weight, Moments(x.T @ x / len(x), x0.T @ x / len(x)))
    wanted = x0 @ weight.T
    direct = torch.linalg.lstsq(x, wanted).solution.T
    torch.testing.assert_close(fitted, direct, rtol=1e-5, atol=1e-5)


def test_unchanged_inputs_leave_a_matrix_as_it_is() -> None:
    weight, _, own, _ = _case((5, 7), 4)
    torch.testing.assert_close(refitted(weight, Moments(own, own)), weight)


def test_directions_that_the_data_lack_are_kept_by_damping(monkeypatch) -> None:
    monkeypatch.setattr(room, "_DAMPING", 0.01)
    weight = torch.eye(4, dtype=torch.float64)
    own = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    down, up = decompose(weight, own).pair(4)
    torch.testing.assert_close(up @ down, weight)
    assert torch.isfinite(refitted(weight, Moments(torch.zeros(4, 4), torch.zeros(4, 4)))).all()
