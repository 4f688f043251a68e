"""Techniques one after the other make a model that is saved and loads again as it was."""

from __future__ import annotations

import torch

from edgekit.compress import steps_of
from edgekit.compress.base import Data
from edgekit.compress.judge import Judge
from edgekit.compression import CompressOptions, LayerOptions, LowRankOptions, SparsityOptions
from edgekit.data import Sample
from edgekit.model import ModelRef
from edgekit.source import load
from edgekit.source.saving import save, settled
from tests.compress.families import run_example


def test_fewer_layers_of_sparse_pairs_come_back_from_a_directory(tiny_st_dir, tmp_path) -> None:
    model = load(ModelRef(str(tiny_st_dir)), None, scratch=tmp_path)
    texts = [Sample(f"the {word} {number}") for word in ("cat", "dog", "sun") for number in range(8)]
    data = Data(tuple(texts[:16]), Judge.of(model, texts[16:]), tmp_path)
    options = CompressOptions(
        layers=LayerOptions(keep=1),
        low_rank=LowRankOptions(parameters=0.7, multiple=4, measured=False),
        sparsity=SparsityOptions(),
    )
    smaller = model
    for _, step in steps_of(options):
        smaller = step(smaller, data)
    assert [record.step for record in smaller.history[-3:]] == ["layers", "low_rank", "sparsity"]
    (tmp_path / "saved").mkdir()
    save(settled(smaller, tmp_path), tmp_path / "saved", model)
    again = load(ModelRef(str(tmp_path / "saved")), None, scratch=tmp_path)
    assert torch.equal(run_example(again), run_example(smaller))
    zeros = [float((p == 0).float().mean()) for n, p in again.module.named_parameters() if ".up.weight" in n]
    assert zeros
    assert min(zeros) > 0.4
