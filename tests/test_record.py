"""Records and checks: what passes, what fails, and what JSON says of it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edgekit.record import (
    Check,
    Clock,
    Footprint,
    LatencyPoint,
    Skip,
    StepRecord,
    Verdict,
    peak_memory_bytes,
)


def _point(low: float, high: float) -> LatencyPoint:
    return LatencyPoint("1x16", 1, 10, 2.0, 2.1, 1.0, 1.1, (low + high) / 2, low, high, 0.95)


@pytest.mark.parametrize(
    ("measured", "comparison", "budget", "state"),
    [
        (0.99, ">=", 0.99, "pass"),
        (0.98, ">=", 0.99, "fail"),
        (1e-3, "<=", 1e-3, "pass"),
        (2e-3, "<=", 1e-3, "fail"),
        (math.nan, ">=", 0.99, "fail"),
        (math.nan, "<=", 0.99, "fail"),
        (0.5, ">=", None, "info"),
        (None, ">=", 0.99, "not measured"),
        (None, ">=", None, "not measured"),
    ],
)
def test_a_check_is_in_the_state_that_its_value_and_budget_say(measured, comparison, budget, state) -> None:
    check = Check("c", "C", measured, comparison=comparison, budget=budget)
    assert check.state == state
    assert check.passed == (state != "fail")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(1.2, 1.5, "faster"), (0.5, 0.9, "slower"), (0.9, 1.1, "cannot tell"), (1.0, 1.1, "cannot tell")],
)
def test_latency_is_judged_by_where_its_interval_lies(low, high, verdict) -> None:
    assert _point(low, high).verdict == verdict


def test_a_verdict_fails_when_one_check_misses_its_budget_and_names_it() -> None:
    good = Check("a", "A", 1.0, budget=0.5)
    bad = Check("b", "B", 0.1, budget=0.5)
    footprint = Footprint(10, 5)
    verdict = Verdict("cpu-x86", (good, bad), (_point(1.2, 1.5),), "", footprint, footprint)
    assert not verdict.passed
    assert verdict.failed == (bad,)
    data = json.loads(json.dumps(verdict.to_json()))
    assert data["passed"] is False
    assert [check["state"] for check in data["checks"]] == ["pass", "fail"]
    assert data["latency"][0]["verdict"] == "faster"


def test_a_record_without_measurements_is_the_same_for_every_run() -> None:
    def step(seconds: float) -> StepRecord:
        skipped = (Skip("node_1", "weight is not constant"),)
        return StepRecord(
            "quantize", "smooth", "did it", skipped, {"alpha": 0.8}, 10, 5, seconds, int(seconds)
        )

    assert step(1.0).to_json(measured=False) == step(2.0).to_json(measured=False)
    assert step(1.0).to_json() != step(2.0).to_json()
    assert json.loads(json.dumps(step(1.0).to_json()))["skipped"] == [
        {"what": "node_1", "why": "weight is not constant"}
    ]


def test_a_clock_stamps_the_seconds_since_it_was_made_and_the_memory_reached() -> None:
    clock = Clock()
    block = np.ones(20_000_000 // 8)
    record = clock.record("export", "trace", "traced", bytes_after=3, opset=20)
    assert 0 < record.seconds < 60
    assert record.peak_memory_bytes > block.nbytes
    assert record.peak_memory_bytes <= peak_memory_bytes()
    assert record.facts == {"opset": 20}
