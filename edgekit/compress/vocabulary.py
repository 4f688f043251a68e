"""Keep the tokens that a corpus needs; the other rows of the embeddings go.

The encoder is the same bit for bit, and so is every text whose pieces all stay. A text that loses a piece is
cut into smaller ones. What that costs on texts of another kind than the corpus is in the record.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.compress import token_tables
from edgekit.compress.base import Data, branch, finished, sizes
from edgekit.compress.token_choice import Corpus, as_text, choose, count_tokens, read_corpus
from edgekit.compress.tokenizer_files import Vocabulary
from edgekit.compression import VocabularyOptions
from edgekit.errors import ModelError, RecipeError
from edgekit.model import TorchModel
from edgekit.record import Clock, Fact
from edgekit.store import dump_json, sha256_json, write_text
from edgekit.tasks.text import TextPreprocessor

_DRAWN = 10_000
"""Texts of the corpus that are cut again with the new tokenizer; a mean over them is good to a percent."""


def trim_vocabulary(model: TorchModel, options: VocabularyOptions, data: Data) -> TorchModel:
    """Keep the tokens that a corpus needs, with their embeddings as they are.

    Args:
        model: A text model.
        options: How many tokens, or how much of the corpus; `data` names the corpus.
        data: `fit` is measured beside the corpus, as texts of the kind that the app will see.

    Raises:
        RecipeError: No corpus is named, or `tokens` is more than there are or less than have to stay.
        DataError: The corpus is missing, malformed, or has no token that the model knows.
        ModelError: The model reads no text, or its tokenizer is of an unknown kind.
    """
    clock = Clock()
    before, path = _text_parts(model)
    inner = token_tables.transformer_of(model)
    vocabulary, rows = Vocabulary.read(path), token_tables.rows_of(inner)
    needed = _needed(vocabulary, model, before)
    _check(options, vocabulary, needed, rows)
    data.progress("compress", f"counting the tokens of {options.data}", None)
    corpus = read_corpus(before.tokenizer, options, unknown=vocabulary.unknown, draw=_DRAWN, seed=data.seed)
    kept = choose(vocabulary, needed, corpus.counts, options, data.seed)
    document, new_ids = vocabulary.trimmed(kept)

    smaller = branch(model)
    token_tables.keep_rows(token_tables.transformer_of(smaller), new_ids)
    skipped = token_tables.renumber_configs(token_tables.transformer_of(smaller), new_ids)
    files = _write_files(model.files, document, new_ids, data.scratch)
    after = _preprocessor(before, files, vocabulary, new_ids)
    smaller = replace(
        smaller,
        preprocessor=after,
        files=files,
        config=token_tables.renumbered(model.config, new_ids),
        example_inputs=_examples(model.example_inputs, vocabulary, new_ids),
    )
    facts = _measured(corpus, [as_text(sample) for sample in data.fit], before, after, kept)
    record = clock.record(
        "compress",
        "vocabulary",
        _said(len(kept), rows, facts),
        skipped=skipped,
        **sizes(model, smaller),
        tokenizer=vocabulary.kind,
        choose=options.choose,
        tokens_before=rows,
        tokens_after=len(kept),
        kept=dict(sorted(Counter(kept.values()).items())),
        **facts,
    )
    return finished(smaller, record)


def _text_parts(model: TorchModel) -> tuple[TextPreprocessor, Path]:
    path = next((file for file in model.files if file.name == "tokenizer.json"), None)
    if not isinstance(model.preprocessor, TextPreprocessor) or path is None:
        raise ModelError(f"{model.name} has no text tokenizer, so it has no vocabulary to trim")
    return model.preprocessor, path


def _needed(vocabulary: Vocabulary, model: TorchModel, preprocessor: TextPreprocessor) -> dict[int, str]:
    """Return the tokens that stay in any case, each with the reason."""
    inner = token_tables.transformer_of(model)
    named = token_tables.all_configured_ids(inner) | token_tables.configured_ids(model.config)
    special = {*vocabulary.special, *named, preprocessor.padding.id}
    if token_tables.offset_by_padding(inner):  # the id of padding is also where positions start
        special |= set(range(preprocessor.padding.id))
    reasons = dict.fromkeys(vocabulary.characters, "characters") | dict.fromkeys(special, "special")
    return {index: reason for index, reason in reasons.items() if index in vocabulary.tokens}


def _check(options: VocabularyOptions, vocabulary: Vocabulary, needed: Mapping[int, str], rows: int) -> None:
    if (largest := max(vocabulary.tokens)) >= rows:
        raise ModelError(f"the tokenizer has a token {largest}, but the model has embeddings for {rows:,}")
    if options.tokens is None:
        return
    if options.tokens > (most := len(vocabulary.tokens)):
        raise RecipeError(
            f"[compress] vocabulary.tokens = {options.tokens:,} is more than the {most:,} that there are"
        )
    if options.tokens < len(needed):
        reasons = Counter(needed.values())
        raise RecipeError(
            f"[compress] vocabulary.tokens = {options.tokens:,} is less than the {len(needed):,} that have to"
            f" stay: {reasons['special']:,} special tokens and {reasons['characters']:,} single characters",
            f"Ask for at least {len(needed):,}.",
        )


def _write_files(
    files: Sequence[Path], document: Mapping[str, Any], new_ids: Mapping[int, int], scratch: Path
) -> tuple[Path, ...]:
    """Return the files of a model, those that hold ids written anew into a folder of their own."""
    folder = scratch / f"vocabulary-{sha256_json(document)[:12]}"
    out = []
    for file in files:
        if file.name == "tokenizer.json":
            content: Mapping[str, Any] = document
        elif file.name in ("tokenizer_config.json", "config.json"):  # special_tokens_map.json holds no ids
            content = token_tables.renumbered(json.loads(file.read_text(encoding="utf-8")), new_ids)
            if decoder := content.get("added_tokens_decoder"):
                ours = {new_ids[int(old)]: entry for old, entry in decoder.items() if int(old) in new_ids}
                content = {**content, "added_tokens_decoder": {str(i): ours[i] for i in sorted(ours)}}
        else:
            out.append(file)
            continue
        write_text(folder / file.name, dump_json(content))
        out.append(folder / file.name)
    return tuple(out)


def _preprocessor(
    before: TextPreprocessor, files: Sequence[Path], vocabulary: Vocabulary, new_ids: Mapping[int, int]
) -> TextPreprocessor:
    """Return the preprocessor with the new tokenizer, which is read back and compared with what it has to be.

    Raises:
        ModelError: The tokenizers library numbers the tokens otherwise.
    """
    path = next(file for file in files if file.name == "tokenizer.json")
    fresh = TextPreprocessor.from_file(
        path,
        max_length=before.max_length,
        input_names=before.input_names,
        pad_token_id=new_ids[before.padding.id],
        padding_side=before.padding.side,
    )
    wanted = {vocabulary.tokens[old]: new for old, new in new_ids.items()}
    if fresh.tokenizer.get_vocab(with_added_tokens=True) != wanted:
        raise ModelError(f"the trimmed tokenizer {path} does not number its tokens as it was told to")
    return replace(before, tokenizer=fresh.tokenizer, padding=fresh.padding, unknown_id=fresh.unknown_id)


def _examples(
    examples: Mapping[str, np.ndarray], vocabulary: Vocabulary, new_ids: Mapping[int, int]
) -> dict[str, np.ndarray]:
    """Return the batch that the exporter traces with in new ids; which tokens it has does not matter."""
    known = vocabulary.unknown
    other = new_ids[known] if known is not None else len(new_ids) // 2
    return {
        name: np.vectorize(lambda old: new_ids.get(int(old), other), otypes=[np.int64])(array)
        if name == "input_ids"
        else array
        for name, array in examples.items()
    }


def _measured(
    corpus: Corpus,
    texts: Sequence[str],
    before: TextPreprocessor,
    after: TextPreprocessor,
    kept: Mapping[int, str],
) -> dict[str, Any]:
    """Return what the trimming costs on the corpus and on the other data."""
    facts: dict[str, Any] = {
        "corpus": {
            "name": corpus.name,
            "texts": corpus.read,
            **_compared(corpus.texts, corpus.counts, before, after, kept),
        }
    }
    if texts:
        counts = count_tokens(before.tokenizer, texts)
        facts["data"] = {"texts": len(texts), **_compared(texts, counts, before, after, kept)}
    return facts


def _compared(
    texts: Sequence[str],
    counts: np.ndarray,
    before: TextPreprocessor,
    after: TextPreprocessor,
    kept: Mapping[int, str],
) -> dict[str, Fact]:
    """Return the share of the tokens that stay, and tokens per word and unknown ones before and after.

    Args:
        texts: What is cut with both tokenizers.
        counts: Occurrences by old id, of these texts or of all that they were drawn from.
        before: With the old tokenizer.
        after: With the new one.
        kept: The tokens that stay.
    """
    words = sum(len(text.split()) for text in texts)
    facts: dict[str, Fact] = {"coverage": float(counts[list(kept)].sum() / max(1, counts.sum()))}
    for when, preprocessor in (("before", before), ("after", after)):
        found = count_tokens(preprocessor.tokenizer, texts)
        unknown = 0 if preprocessor.unknown_id is None else found[preprocessor.unknown_id]
        facts[f"tokens_per_word_{when}"] = float(found.sum() / max(1, words))
        facts[f"unknown_{when}"] = float(unknown / max(1, found.sum()))
    return facts


def _said(count: int, rows: int, facts: Mapping[str, Any]) -> str:
    own, other = facts["corpus"], facts.get("data")
    did = f"Kept {count:,} of {rows:,} tokens: {own['coverage']:.2%} of those in {own['name']}"
    if other:
        growth = other["tokens_per_word_after"] / max(1e-9, other["tokens_per_word_before"]) - 1
        did += f" and {other['coverage']:.2%} of those in the data, which has {growth:.1%} more of them now"
    return did + "."
