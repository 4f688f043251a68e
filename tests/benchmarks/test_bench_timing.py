"""Turns: everyone once a turn, in changing order, until the turns or the time are used up."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest

from benchmarks.harness import figures
from benchmarks.timing import FEWEST_TURNS, WARM_UP, interleave


def test_everyone_runs_once_in_every_turn_in_an_order_that_changes() -> None:
    calls: list[str] = []
    times = interleave({name: (lambda n=name: calls.append(n)) for name in "abc"}, turns=20, seconds=60)
    turns = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert len(turns) == WARM_UP + 20
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert any(first != second for first, second in pairwise(turns[WARM_UP:]))
    for kind in ("wall", "cpu"):
        assert {name: len(ms) for name, ms in times[kind].items()} == {"a": 20, "b": 20, "c": 20}


def test_the_time_limit_ends_it_but_never_below_the_fewest_turns() -> None:
    times = interleave({"a": lambda: time.sleep(0.001)}, turns=1000, seconds=0.0)
    assert len(times["wall"]["a"]) == FEWEST_TURNS


def test_times_are_milliseconds_and_waiting_takes_no_cpu() -> None:
    times = interleave({"a": lambda: time.sleep(0.003)}, turns=15, seconds=60)
    assert min(times["wall"]["a"]) >= 3
    assert np.median(times["cpu"]["a"]) < 2


def test_a_speed_up_is_the_median_of_the_paired_ratios() -> None:
    drift = np.linspace(1, 3, 31)  # the machine gets three times slower, which hits both
    cpu = {"float32": list(10 * drift), "half": list(5 * drift)}
    wall = {"float32": list(12 * drift), "half": list(4 * drift)}
    found = figures({"cpu": cpu, "wall": wall}, ["float32", "half"], 1)
    assert found["half"]["speedup"] == pytest.approx(2)
    assert found["half"]["speedup_low"] == pytest.approx(2)
    assert found["float32"]["speedup"] == 1
    assert found["half"]["p50_ms"] == pytest.approx(10)
    assert found["half"]["wall_speedup"] == pytest.approx(3)
    assert figures({"cpu": cpu, "wall": wall}, ["half"], 2)["half"]["speedup"] == pytest.approx(3)
