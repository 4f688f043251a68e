"""What a compressed model is compared with: the original, position by position and token by token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekit.compress.base import Data
from edgekit.compress.judge import Judge
from edgekit.compress.vocabulary import trim_vocabulary
from edgekit.compression import VocabularyOptions
from edgekit.data import Sample
from edgekit.errors import ModelError
from edgekit.model import ModelRef
from edgekit.reference import Reference
from edgekit.source import load
from edgekit.tasks.batches import sample_batches
from edgekit.tasks.text import columns_kept
from edgekit.to_onnx import record_golden
from tests.tasks.causal import save_causal, write_texts


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory):
    """Return (language model, the same with fewer tokens, texts that have the same tokens under both)."""
    folder = tmp_path_factory.mktemp("trimmed")
    model = load(ModelRef(str(save_causal("llama", folder / "llama"))), None, scratch=folder)
    corpus = write_texts(folder / "texts.txt")
    samples = tuple(Sample(line) for line in corpus.read_text().splitlines())
    data = Data(samples[:20], Judge.of(model, samples[20:40]), folder)
    smaller = trim_vocabulary(model, VocabularyOptions(coverage=0.95, data=str(corpus)), data)
    same = tuple(
        sample
        for sample in samples
        if model.preprocessor.tokenizer.encode(sample.value).tokens
        == smaller.preprocessor.tokenizer.encode(sample.value).tokens
    )
    assert len(same) >= 16
    assert smaller.module(**_tensors(smaller))["logits"].shape[-1] < 300
    return model, smaller, same


def _tensors(model):
    import torch

    return {name: torch.from_numpy(value) for name, value in model.example_inputs.items()}


def test_a_language_model_with_fewer_tokens_loses_nothing_among_those_that_it_kept(trimmed) -> None:
    model, smaller, same = trimmed
    assert Judge.of(model, same).loss(smaller) == pytest.approx(0, abs=1e-9)
    quality = Reference.of(model, same).quality(smaller)
    assert quality["top1_agreement"] == 1
    assert quality["kl_mean"] == pytest.approx(0, abs=1e-6)


def test_each_token_is_found_where_it_was(trimmed) -> None:
    model, smaller, _ = trimmed
    before, after = model.preprocessor, smaller.preprocessor
    columns = columns_kept(before, after)
    old = [before.tokenizer.id_to_token(column) for column in columns]
    assert old == [after.tokenizer.id_to_token(index) for index in range(len(columns))]
    assert columns_kept(before, before) is None
    assert columns_kept(after, before) is None


def test_batches_whose_texts_are_cut_otherwise_are_left_out(trimmed) -> None:
    model, _, same = trimmed
    reference = Reference.of(model, same)
    own = record_golden(model, tuple(sample_batches(model.preprocessor, same)))
    moved = dict(own.batches[0].inputs)
    moved["attention_mask"] = np.array(moved["attention_mask"])
    moved["attention_mask"][0, -1] ^= 1  # as long, but a token later in one text
    other = replace(own, batches=(replace(own.batches[0], inputs=moved), *own.batches[1:]))
    kept = reference.golden_for(other, model.preprocessor)
    assert len(kept.batches) == len(own.batches) - 1
    with pytest.raises(ModelError, match="cuts every held-out text into other tokens"):
        reference.golden_for(replace(own, batches=other.batches[:1]), model.preprocessor)
