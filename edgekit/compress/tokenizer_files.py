"""`tokenizer.json` as a value: which tokens need which, and the same file with fewer tokens.

Four kinds are known. Where all pieces of a text stay, it is cut as before: WordPiece takes the longest piece
that matches, and what is gone was not it; BPE makes the merge of lowest rank, and all merges behind a kept
piece are kept; Unigram takes the path of highest score, and what is gone was not on it.

Source: file format and algorithms of https://github.com/huggingface/tokenizers (0.23),
`tokenizers/src/models/{wordpiece,bpe,unigram}` and `tokenizers/src/tokenizer/added_vocabulary.rs`.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgekit.errors import ModelError

KINDS = ("WordPiece", "BPE", "Unigram", "WordLevel")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a `tokenizer.json`.

    Attributes:
        document: The file's content.
        kind: One of `KINDS`.
        own: Piece -> id, as the tokenizer's model has them.
        added: Further tokens -> id, found in a text before the model cuts it; some are pieces as well.
    """

    document: Mapping[str, Any]
    kind: str
    own: Mapping[str, int]
    added: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read a `tokenizer.json`.

        Raises:
            ModelError: The file is missing or damaged, or its model is of another kind.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            model = document["model"]
            kind = model.get("type") or _guessed(model)
            if kind not in KINDS:
                raise ModelError(
                    f"{path}: the vocabulary of a {kind} tokenizer cannot be trimmed",
                    f"Known are {', '.join(KINDS)}.",
                )
            pieces = model["vocab"]
            own = pieces if isinstance(pieces, dict) else {piece: i for i, (piece, _) in enumerate(pieces)}
            added = {entry["content"]: entry["id"] for entry in document.get("added_tokens") or ()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"cannot read the tokenizer {path}: {type(error).__name__}: {error}",
                "Save it with the model: tokenizer.save_pretrained(directory).",
            ) from None
        return cls(document, kind, own, added)

    @cached_property
    def tokens(self) -> dict[int, str]:
        """Id -> token, in the order in which they are numbered anew: the model's own, then the others."""
        own = {index: piece for piece, index in sorted(self.own.items(), key=lambda item: item[1])}
        added = sorted(self.added.items(), key=lambda item: item[1])
        return own | {index: token for token, index in added if token not in self.own}

    @property
    def _model(self) -> Mapping[str, Any]:
        model: Mapping[str, Any] = self.document["model"]
        return model

    @property
    def unknown(self) -> int | None:
        """Id of the unknown token; None where there is none."""
        if self.kind == "Unigram":
            return self._model.get("unk_id")
        name = self._model.get("unk_token")
        return self.id_of(name) if name is not None else None

    def id_of(self, token: str) -> int | None:
        """Return a token's id, or None."""
        return self.added.get(token, self.own.get(token))

    @cached_property
    def special(self) -> frozenset[int]:
        """Tokens that the tokenizer needs whatever the texts are.

        Among them is Unigram's piece of lowest score: the penalty of an unknown character hangs on it.
        """
        found = {*self.added.values(), *_processor_ids(self.document.get("post_processor"))}
        if self.unknown is not None:
            found.add(self.unknown)
        if padding := self.document.get("padding"):
            found.add(padding["pad_id"])
        if self.kind == "Unigram" and self._model["vocab"]:
            scores = [score for _, score in self._model["vocab"]]
            found.add(scores.index(min(scores)))
        return frozenset(found & self.tokens.keys())

    @cached_property
    def characters(self) -> frozenset[int]:
        """Tokens that are a single character, wherever in a word it stands, or a single byte."""
        return frozenset(
            index
            for piece, index in self.own.items()
            if len(self._bare(piece)) == 1 or len(piece) == 1 or _BYTE.fullmatch(piece)
        )

    def spellable(self, index: int) -> bool:
        """Return whether single characters or bytes can stand for a token."""
        if self._model.get("byte_fallback") or self.kind in ("BPE", "WordLevel"):
            return True  # BPE never made a token of what it has no characters for; WordLevel knows no parts
        return all(symbol in self.own for symbol in self._symbols(self.tokens[index]))

    def ancestors(self, index: int) -> frozenset[int]:
        """Return the tokens that BPE makes on the way to one, itself included.

        A piece inside a word is made by the same merges as by itself, because none of them crosses its ends.
        """
        piece = self.tokens[index]
        if self.kind != "BPE" or piece not in self.own:
            return frozenset((index,))
        symbols, made = self._symbols(piece), []
        while len(symbols) > 1:
            pairs = enumerate(pairwise(symbols))
            rank, at = min((self._ranks.get(pair, len(self._ranks)), at) for at, pair in pairs)
            if rank == len(self._ranks):
                return frozenset((index,))  # no merges lead to it, so it needs none
            symbols[at : at + 2] = [self._merged(symbols[at], symbols[at + 1])]
            made.append(self.own[symbols[at]])
        return frozenset((index, *made))

    def trimmed(self, kept: Collection[int]) -> tuple[dict[str, Any], dict[int, int]]:
        """Return the file's content with some tokens only, and old id -> new id.

        Args:
            kept: Old ids. They have to hold `special` and, for BPE, every token's `ancestors`.
        """
        wanted = set(kept)
        new_ids = {old: new for new, old in enumerate(index for index in self.tokens if index in wanted)}
        document = copy.deepcopy(dict(self.document))
        model = document["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {
                piece: new_ids[index] for index, piece in self.tokens.items() if self._stays(index, new_ids)
            }
        else:
            model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in new_ids]
        if model.get("unk_id") is not None:
            model["unk_id"] = new_ids[model["unk_id"]]
        if "merges" in model:
            model["merges"] = [
                merge
                for merge in model["merges"]
                if all(
                    self.own.get(piece) in new_ids for piece in (*_pair(merge), self._merged(*_pair(merge)))
                )
            ]
        for entry in document.get("added_tokens") or ():
            entry["id"] = new_ids[entry["id"]]
        document["added_tokens"] = sorted(document.get("added_tokens") or (), key=lambda entry: entry["id"])
        if document.get("padding"):
            document["padding"]["pad_id"] = new_ids[document["padding"]["pad_id"]]
        _renumber_processor(document.get("post_processor"), new_ids)
        return document, new_ids

    def _stays(self, index: int, new_ids: Mapping[int, int]) -> bool:
        return index in new_ids and self.tokens[index] in self.own

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        return {_pair(merge): rank for rank, merge in enumerate(self._model["merges"])}

    def _affixes(self) -> tuple[str, str]:
        """Return what marks a piece inside a word, and what marks the end of one."""
        model = self._model
        return model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""

    def _bare(self, piece: str) -> str:
        prefix, suffix = self._affixes()
        return piece.removeprefix(prefix).removesuffix(suffix)

    def _symbols(self, piece: str) -> list[str]:
        """Return the single characters that a piece starts from, each with the marks of its place."""
        prefix, suffix = self._affixes()
        letters = list(self._bare(piece))
        inside = [
            letter if i == 0 and not piece.startswith(prefix) else prefix + letter
            for i, letter in enumerate(letters)
        ]
        if suffix and piece.endswith(suffix) and inside:
            inside[-1] += suffix
        return inside

    def _merged(self, left: str, right: str) -> str:
        return left + right[len(self._affixes()[0]) :]


def _guessed(model: Mapping[str, Any]) -> str:
    """Return the kind of a model from a time when files did not name it."""
    if "merges" in model:
        return "BPE"
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "WordPiece" if "continuing_subword_prefix" in model else "WordLevel"


def _pair(merge: Any) -> tuple[str, str]:
    """Return the two pieces of a merge, written as a pair or, before tokenizers 0.20, as one string."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right


def _processors(processor: Any) -> Iterator[dict[str, Any]]:
    if processor:
        yield processor
        for inner in processor.get("processors") or ():
            yield from _processors(inner)


def _processor_ids(processor: Any) -> Iterator[int]:
    """Yield the ids that are put around texts."""
    for part in _processors(processor):
        if part["type"] == "TemplateProcessing":
            for entry in part["special_tokens"].values():
                yield from entry["ids"]
        elif part["type"] in ("BertProcessing", "RobertaProcessing"):
            yield part["sep"][1]
            yield part["cls"][1]


def _renumber_processor(processor: Any, new_ids: Mapping[int, int]) -> None:
    for part in _processors(processor):
        if part["type"] == "TemplateProcessing":
            for entry in part["special_tokens"].values():
                entry["ids"] = [new_ids[index] for index in entry["ids"]]
        elif part["type"] in ("BertProcessing", "RobertaProcessing"):
            for key in ("sep", "cls"):
                part[key] = [part[key][0], new_ids[part[key][1]]]
