"""What a step minimises: nothing where the student is the teacher, and what a trimmed vocabulary leaves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgekit.compress import STEPS
from edgekit.compress.base import Data, branch
from edgekit.compress.feeding import fed
from edgekit.compress.judge import Judge
from edgekit.compression import LayerOptions, VocabularyOptions
from edgekit.data import Sample
from edgekit.distill.cache import teacher_cache
from edgekit.distill.learner import copied
from edgekit.distill.objective import Objective, wanted_outputs
from edgekit.distill.training import Batch
from edgekit.distillation import LossOptions
from edgekit.model import ModelRef
from edgekit.source import load
from tests.tasks.causal import save_causal, write_texts

WEIGHTS = {"soft": 1.0, "hidden": 1.0, "relations": 1.0}
OPTIONS = LossOptions(relation_heads=4, top=20)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    model = load(ModelRef(str(save_causal("llama", folder / "model"))), None, scratch=folder)
    samples = tuple(Sample(line) for line in write_texts(folder / "texts.txt").read_text().splitlines())
    return model, samples, folder


def _losses(teacher, student, samples, folder, weights, *, share_done=0.0, kept=None, options=OPTIONS):
    cache = teacher_cache(teacher, samples, wanted_outputs(teacher.task, options), folder / "cache")
    objective = Objective(teacher, cache, student, weights, options, kept, seed=0)
    batch = Batch(tuple(range(len(samples))), fed(student, samples), samples)
    with torch.no_grad(), objective.watching(student):
        torch.manual_seed(0)
        found = objective(student.module(**batch.inputs), batch, share_done)
    return {name: float(value) for name, value in found.items()}


def _trimmed(model, samples, folder, tokens):
    data = Data(samples[:64], Judge.of(model, samples[:8]), folder)
    return STEPS["vocabulary"](model, VocabularyOptions(tokens=tokens, data=str(folder / "texts.txt")), data)


def test_a_student_that_is_its_teacher_has_nothing_to_learn(llama):
    model, samples, folder = llama
    found = _losses(model, branch(model), samples[:24], folder, WEIGHTS)
    assert found.keys() == WEIGHTS.keys()
    assert max(found.values()) < 1e-4  # the cache holds half precision


def test_a_dropped_layer_shows_in_every_loss(llama):
    model, samples, folder = llama
    data = Data(samples[:64], Judge.of(model, samples[:8]), folder)
    student = STEPS["layers"](model, LayerOptions(keep=(0,), repair=False), data)
    found = _losses(model, student, samples[:24], folder, WEIGHTS, kept=[0])
    assert min(found.values()) > 1e-3


def test_what_the_layers_give_fades_and_then_the_teacher_no_longer_runs(llama):
    model, samples, folder = llama
    data = Data(samples[:64], Judge.of(model, samples[:8]), folder)
    student = STEPS["layers"](model, LayerOptions(keep=(0,), repair=False), data)
    first, half, late = (
        _losses(model, student, samples[:8], folder, WEIGHTS, share_done=share, kept=[0])
        for share in (0.0, 0.25, 0.5)
    )
    assert half["hidden"] == pytest.approx(first["hidden"] / 2, rel=1e-4)
    assert late.keys() == {"soft"}


def test_a_trimmed_vocabulary_alone_leaves_little_to_learn_of_texts_that_both_cut_alike(llama):
    model, samples, folder = llama
    student = _trimmed(model, samples, folder, 295)
    own = {student.preprocessor.tokenizer.id_to_token(i) for i in range(295)}
    alike = tuple(
        sample for sample in samples if set(model.preprocessor.tokenizer.encode(sample.value).tokens) <= own
    )
    assert len(alike) > 8
    found = _losses(model, student, alike[:24], folder, {"soft": 1.0, "hidden": 1.0})
    assert found["hidden"] < 1e-4
    assert found["soft"] < 0.05


@pytest.fixture(scope="module")
def sentences(tiny_st_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    texts = (f"the {a} {b} sat on the {c}" for a in ("old", "new") for b in ("dog", "cat") for c in "abcdef")
    return load(ModelRef(str(tiny_st_dir)), None, scratch=folder), tuple(map(Sample, texts)), folder


def _turned(model):
    """The model with other weights, large enough that texts differ."""
    student, draw = copied(model, torch.device("cpu")), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in student.module.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) / parameter.shape[1] ** 0.5)
    return student


def test_anchors_tell_how_similar_a_text_is_to_others_by_the_teacher(sentences):
    model, samples, folder = sentences
    own, turned = (
        _losses(model, student, samples, folder, {"anchors": 1.0}) for student in (model, _turned(model))
    )
    assert own["anchors"] < 1e-3 < turned["anchors"]


def test_comparisons_rise_from_where_the_options_say_to_the_end(sentences):
    model, samples, folder = sentences
    weights, student = {"cosine": 1.0, "similarity": 1.0, "anchors": 1.0}, _turned(model)
    before, half, end = (
        _losses(model, student, samples, folder, weights, share_done=share, options=options)
        for options in [LossOptions(comparisons_from=0.6)]
        for share in (0.6, 0.8, 1.0)
    )
    assert before.keys() == {"cosine"}
    for name in ("similarity", "anchors"):
        assert half[name] == pytest.approx(end[name] / 2, rel=1e-4)
    assert half["cosine"] == end["cosine"]
    whole = _losses(model, student, samples, folder, weights)
    assert whole["similarity"] == pytest.approx(end["similarity"], rel=1e-4)


def test_no_text_is_its_own_anchor(sentences):
    model, samples, folder = sentences
    # of two texts only the other one is left, which has all of the probability
    assert _losses(model, _turned(model), samples[:2], folder, {"anchors": 1.0})["anchors"] == 0


def test_texts_that_are_cut_otherwise_are_not_compared_by_position(llama):
    model, samples, folder = llama
    student = _trimmed(model, samples, folder, 262)
    counts = [len(m.preprocessor.tokenizer.encode(samples[0].value).ids) for m in (model, student)]
    assert counts[0] != counts[1]
    found = _losses(model, student, samples[:1], folder, {"soft": 1.0, "hard": 1.0, "hidden": 1.0})
    assert found["soft"] == found["hidden"] == 0
    assert found["hard"] > 0


def test_the_text_itself_is_the_next_token(llama):
    model, samples, folder = llama
    found = _losses(model, branch(model), samples[:8], folder, {"hard": 1.0})
    wanted, tokens = 0.0, 0
    for sample in samples[:8]:
        inputs = fed(model, [sample])
        with torch.no_grad():
            logits = model.module(**inputs)["logits"][0].double()
        ids = inputs["input_ids"][0]
        wanted += float(torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="sum"))
        tokens += len(ids) - 1
    assert found["hard"] == pytest.approx(wanted / tokens, rel=1e-4)


def _own(teacher, student, samples, folder, losses, seed=0):
    """One batch that the student may have written, and what the teacher says of it."""
    options = LossOptions(**losses)
    cache = teacher_cache(teacher, samples, wanted_outputs(teacher.task, options), folder / "cache")
    objective = Objective(teacher, cache, student, {"soft": 1.0, "reverse": 1.0}, options, None, seed=0)
    batch = Batch(tuple(range(len(samples))), fed(student, samples), samples)
    torch.manual_seed(seed)
    with torch.no_grad(), objective.watching(student):
        given = objective.given(batch)
        found = objective(student.module(**given.inputs), given, 0.0)
    return batch, given, {name: float(value) for name, value in found.items()}


def test_what_a_student_writes_begins_as_the_texts_do_and_is_graded_by_its_teacher(llama):
    model, samples, folder = llama
    batch, given, found = _own(model, branch(model), samples[:8], folder, {"on_policy": 1.0})
    begun = given.prompt_tokens
    assert begun > 0
    assert torch.equal(given.inputs["input_ids"][:, :begun], batch.inputs["input_ids"][:, :begun])
    assert not torch.equal(given.inputs["input_ids"], batch.inputs["input_ids"])
    assert found == pytest.approx({"soft": 0, "reverse": 0}, abs=1e-4)
    data = Data(samples[:64], Judge.of(model, samples[:8]), folder)
    student = STEPS["layers"](model, LayerOptions(keep=(0,), repair=False), data)
    assert min(_own(model, student, samples[:8], folder, {"on_policy": 1.0})[2].values()) > 1e-2


def test_the_teacher_grades_the_tokens_that_were_written_and_not_the_prompt(llama):
    model, samples, folder = llama
    data = Data(samples[:64], Judge.of(model, samples[:8]), folder)
    student = STEPS["layers"](model, LayerOptions(keep=(0,), repair=False), data)
    _, given, found = _own(model, student, samples[:8], folder, {"on_policy": 1.0, "temperature": 1.0})
    gaps = []
    for ids, mask in zip(given.inputs["input_ids"], given.inputs["attention_mask"], strict=True):
        ids = ids[mask.bool()][None]
        with torch.no_grad():
            pair = [m.module(input_ids=ids, attention_mask=torch.ones_like(ids)) for m in (model, student)]
        theirs, own = (x["logits"][0, given.prompt_tokens - 1 :].log_softmax(-1) for x in pair)
        gaps.append((theirs.exp() * (theirs - own)).sum(-1))
    assert found["soft"] == pytest.approx(float(torch.cat(gaps).mean()), rel=1e-3)


def test_the_share_of_batches_that_the_student_writes_is_what_was_asked_for(llama):
    model, samples, folder = llama
    wrote = [
        _own(model, model, samples[:2], folder, {"on_policy": 0.25}, seed)[1].prompt_tokens > 0
        for seed in range(80)
    ]
    assert 8 <= sum(wrote) <= 32  # 20 expected; 3 standard deviations are 12
    _, never, _ = _own(model, model, samples[:2], folder, {})
    assert never.prompt_tokens == 0


def test_the_same_seed_writes_the_same_texts(llama):
    model, samples, folder = llama
    texts = [
        _own(model, model, samples[:8], folder, {"on_policy": 1.0}, seed)[1].inputs["input_ids"]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])


def test_a_student_with_fewer_tokens_is_graded_in_its_teachers(llama):
    model, samples, folder = llama
    student = _trimmed(model, samples, folder, 262)
    found = _own(model, student, samples[:8], folder, {"on_policy": 1.0})[2]
    assert found == pytest.approx({"soft": 0, "reverse": 0}, abs=1e-4)


def test_padding_on_the_left_changes_nothing(llama):
    model, samples, folder = llama
    data = Data(samples[:64], Judge.of(model, samples[:8]), folder)
    student = STEPS["layers"](model, LayerOptions(keep=(0,), repair=False), data)
    left = replace(model.preprocessor, padding=replace(model.preprocessor.padding, side="left"))
    weights = {"hidden": 1.0, "relations": 1.0}
    lengths = {len(model.preprocessor.tokenizer.encode(s.value).ids) for s in samples[:8]}
    assert len(lengths) > 1
    right = _losses(model, student, samples[:8], folder, weights, kept=[0])
    # rotary positions are relative, so that only masks tell the sides apart
    other = _losses(replace(model, preprocessor=left), student, samples[:8], folder, weights, kept=[0])
    assert other == pytest.approx(right, rel=1e-3)
    assert np.isfinite(list(right.values())).all()
