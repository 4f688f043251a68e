"""Texts that a language model writes: by its own probabilities, to its own ends, no others for being fast."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from edgekit.compress.feeding import fed
from edgekit.data import Sample
from edgekit.distill.writing import prompts, written
from edgekit.model import ModelRef
from edgekit.source import load
from tests.tasks.causal import save_causal, write_texts


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return load(ModelRef(str(save_causal(request.param, folder / "model"))), None, scratch=folder)


class _Whole(nn.Module):
    """A model that keeps no keys and values."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.module(**inputs)


def test_keys_and_values_that_are_kept_change_nothing(model):
    begun = torch.randint(3, 300, (4, 5), generator=torch.Generator().manual_seed(0))
    texts = []
    for each in (model, replace(model, module=_Whole(model.module))):
        torch.manual_seed(0)
        texts.append(written(each, begun, 24)["input_ids"])
    assert texts[0].shape == (4, 24)
    assert torch.equal(*texts)


def test_tokens_are_drawn_with_the_models_own_probabilities(model):
    begun = torch.tensor([[5, 9, 40]])
    torch.manual_seed(0)
    drawn = written(model, begun.repeat(4000, 1), 4)["input_ids"][:, 3]
    with torch.no_grad():
        logits = model.module(input_ids=begun, attention_mask=torch.ones_like(begun))["logits"][0, -1]
    wanted = logits.softmax(-1)
    found = torch.bincount(drawn, minlength=300) / 4000
    assert float((found - wanted).abs().max()) < 5 * float((wanted * (1 - wanted) / 4000).sqrt().max())
    assert len(drawn.unique()) > 5


def test_a_text_is_over_after_the_token_that_ends_it(model):
    begun = torch.randint(3, 300, (16, 4), generator=torch.Generator().manual_seed(1))
    config = model.module.get_submodule("model").config
    before = config.eos_token_id
    torch.manual_seed(0)
    likely = int(written(model, begun, 12)["input_ids"][:, 4:].flatten().mode().values)
    try:
        config.eos_token_id = [2, likely]
        torch.manual_seed(0)
        found = written(model, begun, 12)
    finally:
        config.eos_token_id = before
    assert found["attention_mask"].sum() < found["attention_mask"].numel()
    for ids, mask in zip(found["input_ids"], found["attention_mask"].bool(), strict=True):
        own = ids[mask].tolist()
        assert not {2, likely} & set(own[4:-1])
        assert mask.all() or own[-1] in (2, likely)
        assert (ids[~mask] == model.preprocessor.padding.id).all()


def test_a_prompt_is_half_of_the_shortest_text_whatever_side_is_padded(model, tmp_path):
    lines = write_texts(tmp_path / "texts.txt").read_text().splitlines()[:6]
    samples = [Sample(line) for line in lines]
    left = replace(model.preprocessor, padding=replace(model.preprocessor.padding, side="left"))
    right, other = (prompts(fed(m, samples)) for m in (model, replace(model, preprocessor=left)))
    lengths = [len(model.preprocessor.tokenizer.encode(line).ids) for line in lines]
    assert right.shape == (6, min(lengths) // 2)
    assert torch.equal(right, other)
    for row, line in zip(right, lines, strict=True):
        assert row.tolist() == model.preprocessor.tokenizer.encode(line).ids[: len(row)]
