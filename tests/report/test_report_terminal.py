"""Tables: right at 100 columns, and nothing lost without colour."""

import re
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from edgekit.record import Check
from edgekit.report.terminal import failures, summary_table, verdict_table


def shown(renderable, width: int = 100, **options) -> str:
    stream = StringIO()
    Console(file=stream, width=width, **options).print(renderable)
    return stream.getvalue()


def test_at_100_columns_no_line_of_a_figure_is_broken(reports):
    text = shown(summary_table(reports))
    assert "1x128 2.08× (2.04–2.12) faster" in text
    assert "8x64  1.02× (0.97–1.07) cannot tell" in text
    assert "cpu-x86-portable  90.8 → 22.9 MB   cosine mean 0.9973" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_the_verdict_and_the_missing_latency_are_words(reports):
    text = shown(summary_table(reports))
    row = next(line for line in text.splitlines() if line.startswith("arm64"))
    assert row.split()[-1] == "fail"
    assert "not measured here: the target is" in row


def test_piped_output_has_no_escape_codes_and_a_terminal_may_have(reports):
    assert "\x1b" not in shown(summary_table(reports))
    assert "\x1b[" in shown(summary_table(reports), force_terminal=True, color_system="standard")


@pytest.mark.parametrize("width", [40, 60, 80])
def test_narrow_terminals_wrap_instead_of_cutting(reports, width):
    text = shown(summary_table(reports), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text


def test_saved_reports_make_the_same_table(reports):
    assert shown(summary_table([r.to_json() for r in reports])) == shown(summary_table(reports))


def test_brackets_in_names_are_not_markup(fast):
    verdict = replace(fast.verdict, target="[red]x[/]")
    assert "[red]x[/]" in shown(summary_table([replace(fast, verdict=verdict)]))


def test_failures_say_value_budget_and_reason(untimed_and_failing, fast):
    text = failures(untimed_and_failing.verdict)
    assert text == "arm64: cosine_p05 is 0.9725, required ≥ 0.9800 (few samples may be worse)"
    assert failures(fast.verdict) == ""


def test_a_nan_is_listed_among_the_failures(fast):
    verdict = replace(fast.verdict, checks=(Check("sqnr_db", "SQNR", float("nan"), "dB", ">=", 20.0),))
    assert "sqnr_db is not a number dB, required ≥ 20.00 dB" in failures(verdict)


def test_a_verdict_shows_every_check_and_every_timed_shape(fast):
    lines = shown(verdict_table(fast.verdict)).splitlines()
    rows = {re.split(r"\s{2,}", line)[0]: line.split()[-1] for line in lines[2:]}
    assert rows["Cosine similarity, 5th percentile"] == "pass"
    assert rows["Speed-up at 1x128"] == "faster"
    assert rows["Recall at 1"] == "measured"
    assert len(rows) == len(fast.verdict.checks) + len(fast.verdict.latency)


def test_a_verdict_without_latency_says_why(untimed_and_failing):
    text = shown(verdict_table(untimed_and_failing.verdict))
    assert "not measured here: the target is aarch64" in " ".join(text.split())
