"""The waterfall adds up: what all stages spent is what is missing at the end."""

from __future__ import annotations

import pytest

from edgekit.report.document import completed
from edgekit.report.terminal import waterfall_table
from edgekit.report.waterfall import stages, waterfall


def _record(step: str, cosine: float, parameters: int) -> dict:
    return {
        "stage": "compress",
        "step": step,
        "did": f"Did {step}.",
        "skipped": [],
        "facts": {
            "quality": {"cosine_mean": cosine, "rank_correlation": 0.9},
            "parameters_after": parameters,
        },
    }


HISTORY = [
    {"stage": "load", "step": "x", "did": "", "skipped": [], "facts": {}},
    _record("vocabulary", 0.99, 100),
    _record("layers", 0.8, 80),
    _record("width", 0.85, 60),
]


def _document(executions=()):
    checks = [{"name": "cosine_mean", "measured": 0.84}, {"name": "rank_correlation", "measured": 0.88}]
    return completed({"history": HISTORY, "verdict": {"checks": checks, "executions": list(executions)}})


def test_what_the_stages_spent_is_what_is_missing_at_the_end() -> None:
    rows = waterfall(_document())
    assert [row.name for row in rows] == ["vocabulary", "layers", "width", "quantized"]
    assert sum(row.spent for row in rows) == pytest.approx(1 - 0.84)
    assert rows[2].spent == pytest.approx(-0.05)


def test_each_runner_is_compared_with_the_file_as_it_ran_here() -> None:
    checks = [{"name": "cosine_mean", "measured": 0.83}, {"name": "finite", "measured": 0}]
    ran = {"runner": "arm64-cortex-a53", "outcome": "ran", "checks": checks}
    missing = {"runner": "web-chromium", "outcome": "missing", "checks": []}
    rows = waterfall(_document([ran, missing]))
    assert [row.name for row in rows[4:]] == ["arm64-cortex-a53"]
    assert rows[4].spent == pytest.approx(0.01)


def test_a_model_that_was_not_compressed_has_none() -> None:
    assert waterfall(completed({"history": HISTORY[:1]})) == ()


def test_of_a_distance_more_is_worse() -> None:
    record = {**_record("layers", 0, 1), "facts": {"quality": {"kl_mean": 0.3}}}
    (row,) = stages([record])
    assert row.spent == pytest.approx(0.3)


def test_the_terminal_shows_every_stage() -> None:
    table = waterfall_table(waterfall(_document()))
    assert table.row_count == 4
    assert [column.header for column in table.columns][1:] == [
        "Parameters",
        "Cosine mean",
        "Rank corr.",
        "Spent",
    ]
