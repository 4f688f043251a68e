"""Which tokens stay: what has to, then what a corpus uses most, with what leads to it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.compress.tokenizer_files import Vocabulary
from edgekit.compression import VocabularyOptions
from edgekit.data import Sample, read_samples
from edgekit.errors import DataError, RecipeError
from edgekit.recipe import DataOptions
from edgekit.tasks.samples import require_kind

_BATCH = 1024
"""Texts that are cut at once; the library spreads them over the cores."""


@dataclass(frozen=True)
class Corpus:
    """What was found in a corpus.

    Attributes:
        name: Name of its file.
        read: Texts in it.
        counts: How often each token occurs, [ids].
        texts: Some of them, drawn evenly.
    """

    name: str
    read: int
    counts: np.ndarray
    texts: tuple[str, ...]


def read_corpus(
    tokenizer: Any, options: VocabularyOptions, *, unknown: int | None, draw: int, seed: int
) -> Corpus:
    """Count the tokens of a corpus, which is read once and never held.

    Args:
        tokenizer: A `tokenizers.Tokenizer`.
        options: Names the corpus.
        unknown: Id of the unknown token, or None.
        draw: How many of its texts to keep.
        seed: Of the draw.

    Raises:
        RecipeError: No corpus is named.
        DataError: It is missing, malformed, no text, or has no token that the tokenizer knows.
    """
    if options.data is None:
        raise RecipeError(
            "trimming the vocabulary needs a corpus, and none was given",
            "Name a .txt, .jsonl or .csv file in [compress] data or in [compress] vocabulary.data.",
        )
    drawn = _Draw(draw, random.Random(seed))
    texts = (drawn.seen(text) for text in _texts(DataOptions(data=options.data, column=options.column)))
    counts = count_tokens(tokenizer, texts)
    if counts.sum() == (0 if unknown is None else counts[unknown]):
        raise DataError(
            f"the corpus {options.data} has no token that the model knows",
            "Give text in the language and script that the model was trained on.",
        )
    return Corpus(Path(options.data).name, drawn.read, counts, tuple(drawn.kept))


def count_tokens(tokenizer: Any, texts: Iterable[str]) -> np.ndarray:
    """Return how often each token occurs in texts, int64 [ids]; special tokens around them do not count."""
    counts = np.zeros(1 + max(tokenizer.get_vocab(with_added_tokens=True).values()), np.int64)
    waiting = iter(texts)
    while batch := list(islice(waiting, _BATCH)):
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            counts += np.bincount(encoding.ids, minlength=len(counts))
    return counts


def as_text(sample: Sample) -> str:
    """Return a sample's text; words are put together with spaces."""
    return sample.value if isinstance(sample.value, str) else " ".join(sample.value)


def choose(
    vocabulary: Vocabulary,
    needed: Mapping[int, str],
    counts: np.ndarray,
    options: VocabularyOptions,
    seed: int,
) -> dict[int, str]:
    """Return the tokens that stay, each with the reason.

    Args:
        vocabulary: Of the tokenizer.
        needed: Tokens that stay in any case -> why.
        counts: How often each occurs in the corpus, [ids].
        options: How many stay, or what share of the occurrences.
        seed: Of the random control.

    Returns:
        Id -> `special`, `characters`, `corpus`, `closure` (a token that BPE makes on the way to a kept one),
        `random`, or `first` (where the corpus uses fewer than wanted, the first of the vocabulary).
    """
    kept = dict(needed)
    wanted = len(vocabulary.tokens) if options.tokens is None else options.tokens
    enough = options.coverage * counts.sum() if options.tokens is None else np.inf
    covered = counts[list(kept)].sum()
    for index in _ranked(vocabulary, counts, options, seed):
        if len(kept) >= wanted or covered >= enough:
            break
        new = [each for each in vocabulary.ancestors(index) if each not in kept]
        if not new or len(kept) + len(new) > wanted:
            continue
        kept |= dict.fromkeys(new, "closure")
        if index in new:
            kept[index] = "random" if options.choose == "random" else "corpus" if counts[index] else "first"
        covered += counts[new].sum()
    return kept


def _ranked(
    vocabulary: Vocabulary, counts: np.ndarray, options: VocabularyOptions, seed: int
) -> Sequence[int]:
    """Return all tokens, those to keep first; where the corpus does not tell, lower ids, the usual order."""
    ids = np.array(list(vocabulary.tokens))
    if options.choose == "random":
        order = np.random.default_rng(seed).permutation(len(ids))
        return [int(index) for index in ids[order]]
    lost = np.array([counts[index] > 0 and not vocabulary.spellable(index) for index in ids.tolist()])
    order = np.lexsort((ids, -counts[ids], ~lost))  # what characters cannot stand for would become unknown
    return [int(index) for index in ids[order]]


def _texts(options: DataOptions) -> Iterator[str]:
    for sample in read_samples(options):
        require_kind((sample,), "text")
        yield as_text(sample)


@dataclass
class _Draw:
    """An even draw from a stream of unknown length. Source: J. Vitter, algorithm R, ACM TOMS 11(1), 1985."""

    size: int
    random: random.Random
    read: int = 0

    def __post_init__(self) -> None:
        self.kept: list[str] = []

    def seen(self, text: str) -> str:
        self.read += 1
        if len(self.kept) < self.size:
            self.kept.append(text)
        elif (place := self.random.randrange(self.read)) < self.size:
            self.kept[place] = text
        return text
