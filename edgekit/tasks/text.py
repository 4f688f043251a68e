"""Texts → `input_ids`, `attention_mask`, `token_type_ids`, with the `tokenizers` library alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgekit.data import Sample
from edgekit.errors import DataError, ModelError, nearest
from edgekit.record import Skip
from edgekit.tasks.base import Inputs, Modality, Preprocessor
from edgekit.tasks.samples import IGNORED, class_indices, require_kind

TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Padding:
    """What fills a row up to the longest of its batch; the attention mask is 0 there."""

    id: int
    type_id: int = 0
    side: Literal["left", "right"] = "right"


@dataclass(frozen=True)
class TextPreprocessor:
    """Tokenizes texts, cuts them to the model's length, and pads them to the longest of the batch.

    Attributes:
        tokenizer: A `tokenizers.Tokenizer` without padding and truncation of its own.
        input_names: Subset of `TEXT_INPUTS`, in graph order.
        max_length: Longest row in tokens, special tokens included.
        padding: What fills shorter rows.
        unknown_id: Id of the unknown token; None where the tokenizer has none.
        label2id: Class name -> index.
        per_token_labels: A sample has one label per word, as token classification has.
        static_length: Every row is padded to it, for a graph that takes no other length.
    """

    tokenizer: Any = field(repr=False, compare=False)
    input_names: tuple[str, ...]
    max_length: int
    padding: Padding
    unknown_id: int | None = None
    label2id: Mapping[str, int] = field(default_factory=dict)
    per_token_labels: bool = False
    modality: Modality = "text"
    static_length: int | None = None

    @classmethod
    def from_file(
        cls,
        path: Path,
        *,
        max_length: int,
        input_names: Sequence[str],
        pad_token_id: int | None = None,
        padding_side: Literal["left", "right"] | None = None,
        label2id: Mapping[str, int] | None = None,
        per_token_labels: bool = False,
    ) -> TextPreprocessor:
        """Read a `tokenizer.json`.

        Args:
            path: The file.
            max_length: Longest row in tokens.
            input_names: The graph's inputs, in its order.
            pad_token_id: The model configuration's padding token, for a tokenizer that names none.
            padding_side: The tokenizer configuration's side; None takes the tokenizer's own, else right.
            label2id: Class name -> index.
            per_token_labels: A sample has one label per word.

        Raises:
            ModelError: The file is missing or damaged, no padding token is known, or an input is not text.
        """
        from tokenizers import Tokenizer

        for name in input_names:
            if name not in TEXT_INPUTS:
                raise ModelError(
                    f"the model's input '{name}' cannot be made from text", nearest(name, TEXT_INPUTS)
                )
        try:
            content = path.read_text(encoding="utf-8")
            tokenizer = Tokenizer.from_str(content)
            model = json.loads(content)["model"]
        except FileNotFoundError:
            raise ModelError(f"no tokenizer at {path}", "Save it with the model: save_pretrained.") from None
        except Exception as error:  # the library raises bare Exception for a file it cannot parse
            raise ModelError(f"cannot read the tokenizer {path}: {error}") from None
        own = tokenizer.padding or {}
        pad_id = own.get("pad_id", pad_token_id)
        if pad_id is None:
            raise ModelError(f"{path} has no padding token", "Set pad_token_id in the model's config.json.")
        tokenizer.no_padding()
        tokenizer.no_truncation()
        unknown = model.get("unk_token")
        return cls(
            tokenizer=tokenizer,
            input_names=tuple(input_names),
            max_length=max_length,
            padding=Padding(pad_id, own.get("pad_type_id", 0), padding_side or own.get("direction", "right")),
            unknown_id=model.get("unk_id") if unknown is None else tokenizer.token_to_id(unknown),
            label2id=dict(label2id or {}),
            per_token_labels=per_token_labels,
        )

    @property
    def min_length(self) -> int:
        """Shortest row in tokens that has room for a token between the special ones."""
        return int(self.tokenizer.num_special_tokens_to_add(False)) + 1

    def sift(self, samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], tuple[Skip, ...]]:
        """Return the texts that have tokens; those of control characters alone are left out.

        Raises:
            DataError: A sample is no text, its label is unknown, or most texts have no token that the model
                knows.
        """
        require_kind(samples, "text")
        kept: list[Sample] = []
        skipped: list[Skip] = []
        strange: list[Sample] = []
        for sample in samples:
            encoding = self.tokenizer.encode(_text(sample))
            inner = _content(encoding)
            content = {*encoding.ids[inner.start : inner.stop]}
            if content:
                kept.append(sample)
            else:
                skipped.append(Skip(f"text {_quoted(sample)}", "the tokenizer finds no token in it"))
            if content <= {self.unknown_id}:
                strange.append(sample)
        if 2 * len(strange) > len(samples):
            raise DataError(
                f"{len(strange)} of {len(samples)} texts have no token that the model knows,"
                f" e.g. {_quoted(strange[0])}",
                "Give text in the language and script that the model was trained on.",
            )
        for sample in kept:
            self.labels([sample], {})
        return tuple(kept), tuple(skipped)

    def batch(self, samples: Sequence[Sample], *, length: int | None = None) -> Inputs:
        """Texts → int64 arrays [batch, sequence], or [batch, static_length].

        Args:
            samples: At least one.
            length: Repeat or cut every text to exactly this many tokens, special tokens kept; padding
                follows where `static_length` is more.

        Raises:
            DataError: A sample is no text or has no tokens, or `length` does not fit the model.
        """
        rows = self._rows(samples, length)
        columns = {
            "input_ids": self._padded([row.ids for row in rows], self.padding.id),
            "attention_mask": self._padded([[1] * len(row.ids) for row in rows], 0),
            "token_type_ids": self._padded([row.type_ids for row in rows], self.padding.type_id),
        }
        return {name: columns[name] for name in self.input_names}

    def labels(self, samples: Sequence[Sample], inputs: Inputs) -> np.ndarray | None:
        """Return class indices [batch], or [batch, sequence] with one label per word on its first token.

        Raises:
            DataError: A label is unknown, or the labels of a text are not one per word.
        """
        if any(sample.label is None for sample in samples):
            return None
        if not self.per_token_labels:
            return class_indices([sample.label for sample in samples], self.label2id)
        rows = self._rows(samples, None)
        aligned = [self._align(row, sample) for row, sample in zip(rows, samples, strict=True)]
        return self._padded(aligned, IGNORED)

    def to_json(self) -> dict[str, Any]:
        """Return what an app has to do to make the same inputs."""
        shape = ["batch", "sequence"] if self.static_length is None else [1, self.static_length]
        return {
            "kind": "text",
            "tokenizer": "tokenizer.json",
            "inputs": {name: {"dtype": "int64", "shape": shape} for name in self.input_names},
            "truncation": {"max_length": self.max_length, "drop": "last tokens that are not special"},
            "padding": {
                "to": "longest of the batch" if self.static_length is None else self.static_length,
                "side": self.padding.side,
                "input_ids": self.padding.id,
                "attention_mask": 0,
                "token_type_ids": self.padding.type_id,
            },
            "labels": sorted(self.label2id, key=self.label2id.__getitem__),
        }

    def _rows(self, samples: Sequence[Sample], length: int | None) -> list[_Row]:
        require_kind(samples, "text")
        if length is not None and length > self.max_length:
            raise DataError(f"length {length} is more than the model's longest, {self.max_length} tokens")
        return [self._row(sample, length) for sample in samples]

    def _row(self, sample: Sample, length: int | None) -> _Row:
        encoding = self.tokenizer.encode(_text(sample))
        content = _content(encoding)
        if not content:
            raise DataError(f"a text has no tokens: {_quoted(sample)}", "Remove it from the data.")
        front, back = content.start, len(encoding.ids) - content.stop
        room = (length or self.max_length) - front - back
        if room < 1:
            raise DataError(
                f"{length or self.max_length} tokens leave no room beside {front + back} special ones"
            )
        kept = content[:room] if length is None else [content[i % len(content)] for i in range(room)]
        order = [*range(front), *kept, *range(content.stop, content.stop + back)]
        # each of these attributes makes a list of the whole text anew
        ids, type_ids, offsets = encoding.ids, encoding.type_ids, encoding.offsets
        return _Row(
            ids=[ids[i] for i in order],
            type_ids=[type_ids[i] for i in order],
            offsets=[offsets[i] for i in order],
            content=slice(front, front + len(kept)),
        )

    def _padded(self, rows: list[list[int]], fill: int) -> np.ndarray:
        width = self.static_length or max(map(len, rows))
        out = np.full((len(rows), width), fill, np.int64)
        for index, row in enumerate(rows):
            out[index, slice(len(row)) if self.padding.side == "right" else slice(width - len(row), None)] = (
                row
            )
        return out

    def _align(self, row: _Row, sample: Sample) -> list[int]:
        """Return one label per token: a word's first token has the word's, every other is ignored.

        Words are found by their characters, so that the tokens are those an app gets from the plain text.
        """
        spans = _word_spans(sample.value)
        words = sample.label.split() if isinstance(sample.label, str) else sample.label
        if not isinstance(words, Sequence) or len(words) != len(spans):
            count = len(words) if isinstance(words, Sequence) else "no list of"
            raise DataError(f"{count} labels for the {len(spans)} words of {_quoted(sample)}")
        pending = list(zip(spans, class_indices(words, self.label2id).tolist(), strict=True))
        labels = [IGNORED] * len(row.ids)
        for position in range(row.content.start, row.content.stop):
            start, end = row.offsets[position]
            while pending and pending[0][0][1] <= start:
                pending.pop(0)  # the word has no token of its own
            if pending and pending[0][0][0] < end:
                labels[position] = pending.pop(0)[1]
        return labels


def columns_kept(before: Preprocessor, after: Preprocessor) -> list[int] | None:
    """Return which token of one vocabulary each token of another was.

    Args:
        before: What fed the model before its vocabulary was trimmed.
        after: What feeds it now.

    Returns:
        One index per token; None where they have the same vocabulary, are not about text, or one is no part
        of the other.
    """
    if not (isinstance(before, TextPreprocessor) and isinstance(after, TextPreprocessor)):
        return None
    old, new = before.tokenizer, after.tokenizer
    columns = [old.token_to_id(new.id_to_token(index) or "") for index in range(new.get_vocab_size())]
    if None in columns or columns == list(range(old.get_vocab_size())):
        return None
    return columns


@dataclass(frozen=True)
class _Row:
    ids: list[int]
    type_ids: list[int]
    offsets: list[tuple[int, int]]
    content: slice


def _content(encoding: Any) -> range:
    """Return the positions between the special tokens that the tokenizer put around the text."""
    special = encoding.special_tokens_mask
    front = len(list(takewhile(bool, special)))
    back = len(list(takewhile(bool, reversed(special)))) if front < len(special) else 0
    return range(front, len(special) - back)


def _text(sample: Sample) -> str:
    return sample.value if isinstance(sample.value, str) else " ".join(sample.value)


def _word_spans(value: str | list[str]) -> list[tuple[int, int]]:
    if isinstance(value, str):
        return [match.span() for match in re.finditer(r"\S+", value)]
    spans, start = [], 0
    for word in value:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return spans


def _quoted(sample: Sample) -> str:
    text = _text(sample)
    return repr(text if len(text) <= 40 else text[:37] + "...")
