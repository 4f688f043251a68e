"""Students of benchmarks: the last weights and not the best; figures that are 0 for the teacher itself."""

from __future__ import annotations

import pytest
import torch

from benchmarks import distillation_llama
from benchmarks.students import kept_rows, last_student, write_results
from edgekit.compress.judge import Judge
from edgekit.data import Sample
from edgekit.distill.learner import copied
from edgekit.model import ModelRef
from edgekit.source import load
from tests.tasks.causal import save_causal, write_texts


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    model = load(ModelRef(str(save_causal("llama", folder / "model"))), None, scratch=folder)
    for name in distillation_llama.KINDS:
        write_texts(folder / f"{name}.txt", 24)
    return model, folder


def test_a_teacher_is_at_no_distance_from_itself(llama):
    model, folder = llama
    found = distillation_llama.DecoderScale(model, folder).of(copied(model, torch.device("cpu")))
    for prefix in distillation_llama.KINDS.values():
        assert found[f"{prefix}perplexity ratio"] == pytest.approx(1, abs=1e-6)
        assert found[f"{prefix}agreement"] == 1
        assert found[f"{prefix}loss"] == pytest.approx(0, abs=1e-6)


def test_a_model_of_noise_is_far_from_it_and_writes_what_it_deems_unlikely(llama):
    model, folder = llama
    noise = copied(model, torch.device("cpu"))
    torch.manual_seed(1)
    for parameter in noise.module.parameters():
        parameter.data = parameter + 0.3 * torch.randn_like(parameter)
    scale = distillation_llama.DecoderScale(model, folder)
    own, other = scale.of(model), scale.of(noise)
    assert other["loss"] > 0.5
    assert other["agreement"] < 0.5
    assert other["writes"] > own["writes"] + 1
    texts = distillation_llama.read(folder / "in-domain.txt")
    assert other["loss"] == pytest.approx(Judge.of(model, texts).loss(noise), rel=0.2)


def test_a_student_is_the_last_one_even_where_it_learnt_nothing_good(llama):
    model, folder = llama
    texts = [Sample(line) for line in (folder / "in-domain.txt").read_text().splitlines()]
    schedule = {"batch": 8, "steps": 2, "seed": 0, "learning_rate": 1.0}
    worse = last_student(
        copied(model, torch.device("cpu")), model, texts, {"soft": 1}, schedule, folder / "cache"
    )
    assert Judge.of(model, texts).loss(worse) > 0.1


def test_rows_of_other_sizes_are_not_kept(tmp_path):
    output = tmp_path / "results.json"
    assert kept_rows(output, {"steps": 3}) == {}
    write_results(output, "c", {"steps": 3}, rows={"a": 1})
    assert kept_rows(output, {"steps": 3}) == {"a": 1}
    assert kept_rows(output, {"steps": 4}) == {}
