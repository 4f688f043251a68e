"""The knapsack finds what trying everything finds, and never spends more than the budget."""

from __future__ import annotations

from itertools import product

import hypothesis.strategies as st
from hypothesis import given, settings

from edgekit.compress.knapsack import Choice, allocate

CHOICE = st.builds(Choice, st.integers(1, 9), st.integers(0, 40), st.integers(0, 50).map(float))
PARTS = st.lists(st.lists(CHOICE, min_size=1, max_size=4), min_size=1, max_size=5)


def _best(parts, budget) -> tuple[float, int] | None:
    """Return the least loss, and the least cost that has it, of all combinations."""
    found = [(sum(c.lost for c in chosen), sum(c.cost for c in chosen)) for chosen in product(*parts)]
    return min(((lost, cost) for lost, cost in found if cost <= budget), default=None)


@settings(max_examples=150, deadline=None)
@given(PARTS, st.integers(0, 120))
def test_it_is_as_good_as_trying_every_combination(parts, budget) -> None:
    chosen, best = allocate(parts, budget), _best(parts, budget)
    if best is None:
        assert chosen is None
        return
    assert chosen is not None
    assert all(choice in choices for choice, choices in zip(chosen, parts, strict=True))
    assert (sum(c.lost for c in chosen), sum(c.cost for c in chosen)) == best


@settings(max_examples=50, deadline=None)
@given(PARTS, st.integers(0, 120), st.integers(2, 1000))
def test_a_common_divisor_changes_nothing(parts, budget, factor) -> None:
    larger = [[Choice(c.width, c.cost * factor, c.lost) for c in choices] for choices in parts]
    plain, scaled = allocate(parts, budget), allocate(larger, budget * factor)
    assert (plain is None) == (scaled is None)
    if plain is not None and scaled is not None:
        assert [c.width for c in plain] == [c.width for c in scaled]


@settings(max_examples=50, deadline=None)
@given(PARTS, st.integers(0, 120))
def test_coarse_steps_still_keep_the_budget(parts, budget) -> None:
    chosen = allocate(parts, budget, steps=16)
    assert (chosen is None) == (_best(parts, budget) is None)
    assert chosen is None or sum(c.cost for c in chosen) <= budget


def test_large_costs_are_cut_into_few_steps_and_lose_little() -> None:
    menu = [Choice(width, 10**12 + 7 * width * 10**9 + width, float(10 - width)) for width in range(1, 11)]
    chosen = allocate([menu] * 12, 12 * 10**12 + 500 * 10**9)
    assert chosen is not None
    assert sum(c.cost for c in chosen) <= 12 * 10**12 + 500 * 10**9
    assert sum(c.width for c in chosen) == 71


def test_what_is_dear_goes_where_it_matters_least() -> None:
    vital = [Choice(1, 1, 100.0), Choice(2, 2, 0.0)]
    idle = [Choice(1, 1, 1.0), Choice(2, 2, 0.0)]
    chosen = allocate([idle, vital, idle], 5)
    assert [c.width for c in chosen or ()] in ([1, 2, 2], [2, 2, 1])
    assert [c.width for c in allocate([idle, vital, idle], 4) or ()] == [1, 2, 1]
