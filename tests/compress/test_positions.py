"""Positions that no text reaches: what is read stays the same to the bit, and what cannot go is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgekit.compress.base import Data, parameters_of
from edgekit.compress.judge import Judge, outputs
from edgekit.compress.positions import trim_positions
from edgekit.compression import PositionOptions
from edgekit.data import Sample
from edgekit.errors import ModelError, RecipeError
from edgekit.model import ModelRef
from edgekit.source import load
from edgekit.source.saving import save, settled
from tests.compress.families import tiny_transformer
from tests.tasks.causal import save_causal

TEXTS = tuple(Sample(" ".join(["the old dog sat on the road"] * count)) for count in (1, 3))


@pytest.fixture
def sentence(tiny_st_dir, tmp_path):
    return load(ModelRef(str(tiny_st_dir)), None, scratch=tmp_path)


def _trimmed(model, keep, tmp_path):
    return trim_positions(model, PositionOptions(keep=keep), Data((), Judge(model, (), ()), tmp_path))


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_texts_that_fit_are_read_to_the_bit_as_before_also_after_saving(kind, sentence, tmp_path):
    model = sentence
    if kind == "gpt2":
        model = load(ModelRef(str(save_causal("gpt2", tmp_path / "gpt2"))), None, scratch=tmp_path)
    smaller = _trimmed(model, 40, tmp_path)
    assert parameters_of(smaller.module) < parameters_of(model.module)
    folder = tmp_path / "saved"
    folder.mkdir()
    save(settled(smaller, tmp_path), folder, model)
    again = load(ModelRef(str(folder)), model.task, scratch=tmp_path)
    texts = TEXTS if kind == "bert" else (Sample("word1 word22"), Sample("word3"))
    for other in (smaller, again):
        for mine, theirs in zip(outputs(model, texts), outputs(other, texts), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_rows_for_padding_stay(sentence, tmp_path):
    model = replace(tiny_transformer("roberta"), preprocessor=replace(sentence.preprocessor, max_length=20))
    smaller = _trimmed(model, "limit", tmp_path)
    table = smaller.module.get_submodule("model.embeddings.position_embeddings")
    assert table.num_embeddings == 20 + 1 + table.padding_idx
    inputs = {name: torch.from_numpy(value) for name, value in model.example_inputs.items()}
    with torch.no_grad():
        found, wanted = (next(iter(m.module(**inputs).values())) for m in (smaller, model))
    assert torch.equal(found, wanted)


def test_a_shorter_longest_text_is_what_texts_are_cut_to(sentence, tmp_path):
    smaller = _trimmed(sentence, 6, tmp_path)
    assert smaller.preprocessor.max_length == 6
    assert smaller.preprocessor.batch(TEXTS[1:])["input_ids"].shape == (1, 6)
    assert sentence.preprocessor.max_length > 6


@pytest.mark.parametrize(("keep", "said"), [(5000, "nothing would go"), (2, "leaves no room")])
def test_what_cannot_be_kept_is_refused(sentence, tmp_path, keep, said):
    with pytest.raises(RecipeError, match=said):
        _trimmed(sentence, keep, tmp_path)


def test_positions_that_are_computed_take_no_bytes(sentence, tmp_path):
    model = replace(tiny_transformer("llama"), preprocessor=sentence.preprocessor)
    with pytest.raises(ModelError, match="no learned table of positions"):
        _trimmed(model, 8, tmp_path)


def test_images_have_no_positions_of_tokens(tmp_path):
    with pytest.raises(ModelError, match="reads no text"):
        _trimmed(tiny_transformer("vit"), 8, tmp_path)
