"""How figures are said."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.record import Check, Footprint
from edgekit.report import wording


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (999, "999 B"),
        (22_938_112, "22.9 MB"),
        (1_480_000_000, "1.48 GB"),
        (4_200, "4.20 kB"),
    ],
)
def test_bytes_are_said_in_decimal_units(size, text):
    assert wording.say_bytes(size) == text


@given(st.integers(min_value=1, max_value=10**13))
def test_a_said_size_is_within_one_percent_of_the_size(size):
    text, unit = wording.say_bytes(size).split()
    said = float(text) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    assert abs(said - size) <= max(0.01 * size, 0.5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (1.31, "1.3 s"), (21.9, "22 s"), (59.7, "1 min 0 s"), (125, "2 min 5 s")],
)
def test_seconds_are_said_as_a_person_would(seconds, text):
    assert wording.say_seconds(seconds) == text


def test_a_near_miss_is_said_with_digits_that_show_it():
    measured, required = wording.say_check({"measured": 0.979996, "budget": 0.98, "comparison": ">="})
    assert (measured, required) == ("0.979996", "≥ 0.980000")


@pytest.mark.parametrize(
    ("figure", "unit", "text"),
    [
        (float("nan"), "dB", "not a number dB"),
        ("Infinity", "dB", "infinite dB"),
        (2.1e-6, "", "2.10e-06"),
        (34.5678, "dB", "34.57 dB"),
        (3.957, "×", "3.96×"),
        (22_938_112, "bytes", "22.9 MB"),
        (None, "ms", "–"),
    ],
)
def test_a_figure_keeps_its_unit(figure, unit, text):
    assert wording.say_figure(figure, unit) == text


def test_quality_is_summed_up_by_the_checks_of_the_task(fast):
    labels = [finding.label for finding in wording.quality(fast.to_json())]
    assert labels == ["Cosine similarity, mean", "Cosine similarity, 5th percentile"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("kl_mean", "accuracy_drop", "top1_agreement"), ["top1_agreement", "accuracy_drop"]),
        (("max_relative_error", "sqnr_db"), ["sqnr_db", "max_relative_error"]),
        (("size_ratio",), []),
    ],
)
def test_each_kind_of_task_has_its_headline(fast, names, expected):
    checks = tuple(Check(name, name, 1.0) for name in names)
    document = replace(fast, verdict=replace(fast.verdict, checks=checks)).to_json()
    assert [finding.label for finding in wording.quality(document)] == expected


def test_sentences_say_what_missed_and_by_how_much(untimed_and_failing):
    sentences = " ".join(wording.summary_sentences(untimed_and_failing.to_json()))
    assert "1 check of 4 missed: Cosine similarity, 5th percentile is 0.9725 where ≥ 0.9800" in sentences
    assert "Latency was not measured here: the target is aarch64" in sentences


def test_sentences_say_slower_when_it_is_slower(slower):
    sentences = " ".join(wording.summary_sentences(slower.to_json()))
    assert "It is slower than the float model at 1x16 (0.62×) and 1x128 (0.88×)." in sentences
    assert "faster" not in sentences


def test_a_file_that_grew_is_not_called_smaller(fast):
    verdict = replace(fast.verdict, float_size=Footprint(10_000, 1), quantized_size=Footprint(11_000, 1))
    sentences = " ".join(wording.summary_sentences(replace(fast, verdict=verdict).to_json()))
    assert "larger than the float model" in sentences


def test_the_reason_for_missing_latency_is_not_doubled(fast):
    verdict = replace(fast.verdict, latency=(), latency_note="Not measured here: no runs were asked for")
    document = replace(fast, verdict=verdict).to_json()
    assert wording.no_speed(document) == "Not measured here: no runs were asked for"
