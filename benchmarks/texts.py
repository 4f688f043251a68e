"""Calibration texts and a held-out retrieval task, both from the documentation that every Python carries.

A query is the first sentence of a paragraph, its answer is the rest of the paragraph; the answers of all the
other paragraphs stand against it. No calibration text is a part of a held-out paragraph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tools.texts import SENTENCE, is_prose, paragraphs, standard_library_texts

CALIBRATION_TEXTS = 256
PAIRS = 400
FEWEST_QUERY_WORDS = 5
FEWEST_ANSWER_WORDS = 8
_ALL = 10**9

T = TypeVar("T")


@dataclass(frozen=True)
class Texts:
    """What the benchmark reads.

    Attributes:
        calibration: For whoever calibrates.
        queries: First sentences.
        answers: The rest of each query's paragraph, in the same order.
    """

    calibration: tuple[str, ...]
    queries: tuple[str, ...]
    answers: tuple[str, ...]


def benchmark_texts() -> Texts:
    """Return the texts; the same Python release always gives the same."""
    return split(list(paragraphs()), standard_library_texts(_ALL))


def split(
    found: Sequence[str],
    candidates: Sequence[str],
    *,
    pairs: int = PAIRS,
    calibration: int = CALIBRATION_TEXTS,
) -> Texts:
    """Hold pairs out and take calibration texts from what they do not contain.

    Args:
        found: Paragraphs.
        candidates: Texts that may serve for calibration; some are parts of paragraphs.
        pairs: How many pairs, at most.
        calibration: How many calibration texts, at most.
    """
    halves = [half for paragraph in dict.fromkeys(found) if (half := as_pair(paragraph))]
    unique = list({query: (query, answer) for query, answer in halves}.values())
    held_out = evenly(unique, pairs)
    seen = "\n".join(f"{query} {answer}" for query, answer in held_out)
    return Texts(
        calibration=tuple(evenly([text for text in candidates if text not in seen], calibration)),
        queries=tuple(query for query, _ in held_out),
        answers=tuple(answer for _, answer in held_out),
    )


def as_pair(paragraph: str) -> tuple[str, str] | None:
    """Return (first sentence, the rest), or None where the paragraph does not make a fair question."""
    halves = SENTENCE.split(paragraph, maxsplit=1) if is_prose(paragraph) else []
    if len(halves) < 2:
        return None
    query, answer = halves
    if len(query.split()) < FEWEST_QUERY_WORDS or len(answer.split()) < FEWEST_ANSWER_WORDS:
        return None
    return query, answer


def evenly(items: Sequence[T], count: int) -> list[T]:
    """Return `count` items spread over all of them, in order; all where there are fewer."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]
