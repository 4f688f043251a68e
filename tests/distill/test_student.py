"""Who learns: fresh students, changed ones, and those that cannot learn from this teacher."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edgekit.compress.anatomy import layers_of
from edgekit.compress.base import branch, parameters_of
from edgekit.compress.judge import outputs
from edgekit.data import Sample
from edgekit.distill.student import changed, fresh_student, refuse_unfit
from edgekit.distillation import ChangeOptions, FreshOptions
from edgekit.errors import ModelError, RecipeError
from edgekit.model import ModelRef
from edgekit.source import load
from tests.compress.families import tiny_transformer

TEXTS = [Sample("the old dog sat on the road"), Sample("a red cat ran")]
RESIZABLE = ("bert", "roberta", "distilbert", "mpnet", "modernbert", "vit", "deit", "llama", "qwen2", "gpt2")


@pytest.fixture
def teacher(tiny_st_dir, tmp_path):
    return load(ModelRef(str(tiny_st_dir)), None, scratch=tmp_path)


@pytest.mark.parametrize("family", RESIZABLE)
def test_a_fresh_student_has_the_sizes_asked_for_in_every_family(family, tmp_path):
    teacher = tiny_transformer(family)
    student = fresh_student(teacher, FreshOptions(layers=2, heads=2, ffn=16), 0, tmp_path)
    layers = layers_of(student)
    assert [(layer.heads, layer.neurons) for layer in layers] == [(2, 16), (2, 16)]
    assert parameters_of(student.module) < parameters_of(teacher.module)
    assert len(layers_of(teacher)) == 3


def test_a_fresh_student_follows_from_its_seed_alone_and_leaves_the_random_state(teacher, tmp_path):
    before = torch.random.get_rng_state()
    made = [fresh_student(teacher, FreshOptions(layers=1), seed, tmp_path) for seed in (1, 1, 2)]
    assert torch.equal(before, torch.random.get_rng_state())
    first, again, other = (outputs(student, TEXTS)[0] for student in made)
    assert (first == again).all()
    assert (first != other).any()


def test_another_activation_keeps_the_weights_and_changes_what_comes_out(teacher, tmp_path):
    student = changed(teacher, ChangeOptions(activation="relu"), tmp_path)
    assert student.module.get_submodule("model").config.hidden_act == "relu"
    own, theirs = student.module.state_dict(), teacher.module.state_dict()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    assert (outputs(student, TEXTS)[0] != outputs(teacher, TEXTS)[0]).any()
    assert student.history[-1].step == "changes"


def test_fewer_heads_are_wider_ones_of_the_same_matrices(teacher, tmp_path):
    heads = layers_of(teacher)[0].heads
    student = changed(teacher, ChangeOptions(heads=heads // 2), tmp_path)
    assert layers_of(student)[0].heads == heads // 2
    assert parameters_of(student.module) == parameters_of(teacher.module)


def test_nothing_to_change_is_the_same_student(teacher, tmp_path):
    assert changed(teacher, ChangeOptions(), tmp_path) is teacher


def test_heads_that_do_not_divide_the_width_are_refused(teacher, tmp_path):
    with pytest.raises(RecipeError, match="does not divide the width"):
        changed(teacher, ChangeOptions(heads=7), tmp_path)


def test_a_plain_module_cannot_be_built_anew(tmp_path):
    teacher = replace(tiny_transformer("bert"))
    teacher.module.model = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match="only transformers models"):
        fresh_student(teacher, FreshOptions(layers=1), 0, tmp_path)


class TestUnfit:
    def test_a_smaller_student_of_the_same_kind_may_learn(self, teacher, tmp_path):
        refuse_unfit(teacher, fresh_student(teacher, FreshOptions(layers=1), 0, tmp_path))

    def test_another_task(self, teacher, tiny_classifier_dir, tmp_path):
        other = load(ModelRef(str(tiny_classifier_dir)), None, scratch=tmp_path)
        with pytest.raises(RecipeError, match="the student is for text-classification"):
            refuse_unfit(teacher, other)

    def test_other_labels(self, tiny_classifier_dir, tmp_path):
        teacher = load(ModelRef(str(tiny_classifier_dir)), None, scratch=tmp_path)
        preprocessor = replace(teacher.preprocessor, label2id={"positive": 0, "negative": 1})
        with pytest.raises(RecipeError, match=r"same labels in the same order, e\.g\. 'negative'"):
            refuse_unfit(teacher, replace(teacher, preprocessor=preprocessor))

    def test_another_tokenizer(self, teacher):
        from tokenizers import Tokenizer

        old = teacher.preprocessor.tokenizer
        new = Tokenizer.from_str(old.to_str())
        new.add_tokens(["zebra"])
        student = replace(teacher, preprocessor=replace(teacher.preprocessor, tokenizer=new))
        with pytest.raises(RecipeError, match="different tokenizers: 'zebra' is a token of the student only"):
            refuse_unfit(teacher, student)

    def test_a_student_larger_than_its_teacher(self, teacher, tmp_path):
        larger = fresh_student(teacher, FreshOptions(layers=9), 0, tmp_path)
        with pytest.raises(RecipeError, match="parameters, the teacher"):
            refuse_unfit(teacher, larger)

    def test_an_embedding_of_another_width(self, teacher):
        student = branch(teacher)
        student.module.dimensions = 3
        with pytest.raises(RecipeError, match="gives 3 numbers where the teacher gives"):
            refuse_unfit(teacher, student)
