"""The golden's batches: several sizes and lengths, within what the model takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from edgekit.data import Sample
from edgekit.model import TensorSpec
from edgekit.tasks.arrays import ArrayPreprocessor
from edgekit.tasks.batches import golden_batches
from edgekit.tasks.text import TextPreprocessor


def _preprocessor(folder: Path, max_length: int) -> TextPreprocessor:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return TextPreprocessor.from_file(
        folder / "tokenizer.json", max_length=max_length, input_names=["input_ids"], pad_token_id=0
    )


def _shapes(batches) -> list[tuple[int, int]]:
    return [inputs["input_ids"].shape for inputs, _ in batches]


def test_every_sample_comes_once_in_batches_of_several_sizes(tmp_path):
    texts = [Sample("a " * (1 + n % 5)) for n in range(23)]
    shapes = _shapes(golden_batches(_preprocessor(tmp_path, 32), texts))
    assert [size for size, _ in shapes] == [1, 2, 1, 8, 8, 3]


def test_texts_of_one_length_get_cut_and_repeated_copies(tmp_path):
    shapes = _shapes(golden_batches(_preprocessor(tmp_path, 32), [Sample("a b c")] * 8))
    assert {length for _, length in shapes} == {5, 8, 12}


@pytest.mark.parametrize(("max_length", "lengths"), [(10, {10, 8, 5}), (6, {6, 5, 3}), (4, {4, 3}), (3, {3})])
def test_no_batch_is_longer_than_the_model_or_too_short_for_a_token(tmp_path, max_length, lengths):
    texts = [Sample("a b c d e f g h " * 3)] * 8
    assert {
        length for _, length in _shapes(golden_batches(_preprocessor(tmp_path, max_length), texts))
    } == lengths


def test_arrays_get_no_made_up_lengths():
    spec = TensorSpec("x", "float32", ("batch", 4))
    batches = golden_batches(ArrayPreprocessor((spec,)), [Sample({"x": np.ones(4, np.float32)})] * 8)
    assert [inputs["x"].shape for inputs, _ in batches] == [(1, 4), (2, 4), (1, 4), (4, 4)]
