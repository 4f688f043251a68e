"""The held-out pairs and the calibration texts share nothing, and every Python makes the same."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.texts import as_pair, evenly, split
from tools.texts import SENTENCE, paragraphs

PARAGRAPH = (
    "A generator is a function that yields. It runs until the next value is asked for and then waits there."
)


@pytest.fixture(scope="module")
def texts():
    """What the benchmark reads, from the first paragraphs alone: all of them take seconds."""
    found = list(islice(paragraphs(), 2000))
    return split(found, [piece for text in found for piece in SENTENCE.split(text)])


def test_a_pair_is_the_first_sentence_and_the_rest() -> None:
    query, answer = as_pair(PARAGRAPH) or ("", "")
    assert query == "A generator is a function that yields."
    assert f"{query} {answer}" == PARAGRAPH


@pytest.mark.parametrize(
    "paragraph",
    [
        "One sentence alone makes no pair of them.",
        "Too short. It has to hold enough words for an answer here.",
        ">>> x",
    ],
    ids=["one sentence", "a query of two words", "code"],
)
def test_what_makes_no_fair_question_is_left_out(paragraph) -> None:
    assert as_pair(paragraph) is None


def test_no_calibration_text_is_a_part_of_a_held_out_paragraph(texts) -> None:
    held_out = [f"{q} {a}" for q, a in zip(texts.queries, texts.answers, strict=True)]
    assert len(texts.calibration) == 256
    assert len(held_out) > 100
    assert not [text for text in texts.calibration if any(text in paragraph for paragraph in held_out)]


def test_every_query_is_another_one(texts) -> None:
    assert len(set(texts.queries)) == len(texts.queries)


def test_a_candidate_from_a_held_out_paragraph_is_not_calibrated_on() -> None:
    query, _ = as_pair(PARAGRAPH) or ("", "")
    other = "Another text that nobody asks about."
    assert split([PARAGRAPH], [query, other], pairs=1, calibration=2).calibration == (other,)


@given(st.lists(st.integers(), max_size=50), st.integers(1, 60))
def test_an_even_choice_keeps_the_order_and_has_the_size_that_was_asked_for(items, count) -> None:
    numbered = list(enumerate(items))
    chosen = evenly(numbered, count)
    assert len(chosen) == min(count, len(items))
    assert chosen == sorted(chosen, key=lambda pair: pair[0])
    assert len({index for index, _ in chosen}) == len(chosen)
