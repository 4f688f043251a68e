"""Language models: the next token's probabilities, and the perplexity of the texts themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.golden import Golden, GoldenBatch
from edgekit.tasks import TASKS
from edgekit.tasks.generation import surprisals

TASK = TASKS["text-generation"]
WORDS = 7


def _golden(seed: int = 0, *, side: str = "right", lengths=((5, 9), (3, 6))) -> Golden:
    """Return two batches of two texts, padded on one side."""
    random = np.random.default_rng(seed)
    batches = []
    for counts in lengths:
        width = max(counts)
        ids = random.integers(0, WORDS, (len(counts), width))
        mask = np.zeros_like(ids)
        for row, count in enumerate(counts):
            mask[row, slice(count) if side == "right" else slice(width - count, None)] = 1
        logits = random.normal(size=(*ids.shape, WORDS)).astype(np.float32)
        batches.append(GoldenBatch({"input_ids": ids, "attention_mask": mask}, {"logits": logits}))
    return Golden("text-generation", tuple(batches))


def _checks(golden: Golden, change=lambda logits, batch: logits) -> dict[str, float]:
    outputs = [{"logits": change(batch.outputs["logits"].copy(), batch)} for batch in golden.batches]
    return {check.name: check.measured for check in TASK.compare(golden, outputs).checks}


@settings(max_examples=30)
@given(seed=st.integers(0, 1000))
def test_surprisal_is_the_cross_entropy_of_the_next_token(seed) -> None:
    import torch

    random = np.random.default_rng(seed)
    logits, ids = random.normal(scale=5, size=(6, WORDS)), random.integers(0, WORDS, 6)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits[:-1]), torch.from_numpy(ids[1:]), reduction="none"
    )
    np.testing.assert_allclose(surprisals(logits, ids), expected.numpy(), rtol=1e-9)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary() -> None:
    assert _checks(_golden(), lambda logits, _: logits * 0)["perplexity_quantized"] == pytest.approx(WORDS)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_count_on_either_side(side) -> None:
    golden = _golden(side=side)

    def change(logits, batch):
        logits[batch.inputs["attention_mask"] == 0] = 99.0
        return logits

    checks = _checks(golden, change)
    assert checks["kl_mean"] == 0
    assert checks["top1_agreement"] == 1
    assert checks["perplexity_ratio"] == 1


@pytest.mark.parametrize("side", ["left", "right"])
def test_perplexity_is_of_the_real_tokens_whatever_they_are_padded_with(side) -> None:
    golden = _golden(side=side)
    nats = []
    for batch in golden.batches:
        rows = zip(
            batch.inputs["input_ids"], batch.inputs["attention_mask"], batch.outputs["logits"], strict=True
        )
        for ids, mask, logits in rows:
            keep = mask.astype(bool)
            nats.append(surprisals(logits[keep].astype(float), ids[keep]))
    assert sum(map(len, nats)) == 4 + 8 + 2 + 5
    assert _checks(golden)["perplexity_float"] == pytest.approx(math.exp(np.concatenate(nats).mean()))


def test_the_ratio_is_one_perplexity_over_the_other() -> None:
    checks = _checks(_golden(), lambda logits, _: logits * 0.5)
    assert checks["perplexity_ratio"] == pytest.approx(
        checks["perplexity_quantized"] / checks["perplexity_float"]
    )


def test_a_better_model_passes_the_gate_of_perplexity() -> None:
    def knows(logits, batch):
        ids = batch.inputs["input_ids"]
        np.put_along_axis(logits[:, :-1], ids[:, 1:, None], 20.0, axis=-1)
        return logits

    assert _checks(_golden(), knows)["perplexity_ratio"] < 1


def test_texts_of_one_token_say_nothing_about_perplexity() -> None:
    checks = _checks(_golden(lengths=((1, 1), (1, 1))))
    assert set(checks) == {"top1_agreement", "kl_mean"}


def test_a_perplexity_beyond_all_numbers_is_infinite_and_fails() -> None:
    golden = _golden()

    def sure_of_the_wrong(logits, batch):
        logits[...] = -5000.0
        np.put_along_axis(logits[:, :-1], (batch.inputs["input_ids"][:, 1:, None] + 1) % WORDS, 5000.0, -1)
        return logits

    outputs = [{"logits": sure_of_the_wrong(b.outputs["logits"].copy(), b)} for b in golden.batches]
    failed = {check.name for check in TASK.compare(golden, outputs).checks if not check.passed}
    assert "perplexity_ratio" in failed


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_causal_models_are_loaded_for_it(kind, tmp_path) -> None:
    from edgekit.model import ModelRef
    from edgekit.source import load
    from tests.tasks.causal import save_causal

    model = load(ModelRef(str(save_causal(kind, tmp_path / kind))), None, scratch=tmp_path)
    assert (model.task, model.output_names) == ("text-generation", ("logits",))
    assert set(model.input_names) == {"input_ids", "attention_mask"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_causal_models_become_int8_packages(kind, tmp_path) -> None:
    from edgekit import Recipe, export
    from edgekit.recipe import DataOptions, LatencyOptions
    from tests.tasks.causal import save_causal, write_texts

    recipe = Recipe(
        model=str(save_causal(kind, tmp_path / kind)),
        targets=("cpu-x86",),
        calibration=DataOptions(data=str(write_texts(tmp_path / "texts.txt"))),
        latency=LatencyOptions(runs=5),
        gates={"top1_agreement": 0.9},  # random weights have more near ties than trained ones
    )
    (report,) = export(recipe, tmp_path / "out").reports
    checks = {check.name: check for check in report.verdict.checks}
    assert checks["perplexity_ratio"].measured == pytest.approx(1, abs=0.02)
    assert checks["top1_agreement"].measured > 0.9
