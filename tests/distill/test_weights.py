"""Which losses count: what suits the task, what was asked for, and what cannot be had."""

from __future__ import annotations

import pytest

from edgekit.distill.weights import USUAL, weights_of
from edgekit.distillation import LossOptions
from edgekit.errors import RecipeError


@pytest.mark.parametrize("task", USUAL)
def test_every_task_has_something_to_learn_from_without_being_told(task):
    weights = weights_of(task, LossOptions(), labelled=False, layered=False)
    assert weights
    assert all(weight > 0 for weight in weights.values())


def test_labels_are_learnt_from_where_there_are_some():
    without = weights_of("text-classification", LossOptions(), labelled=False, layered=False)
    with_labels = weights_of("text-classification", LossOptions(), labelled=True, layered=False)
    assert set(with_labels) - set(without) == {"hard"}


def test_a_text_is_its_own_label_for_next_tokens():
    assert "hard" in weights_of("text-generation", LossOptions(hard=0.5), labelled=False, layered=False)


def test_layers_count_where_they_are_known():
    assert "hidden" in weights_of("sentence-embedding", LossOptions(), labelled=False, layered=True)
    assert "hidden" not in weights_of("sentence-embedding", LossOptions(), labelled=False, layered=False)


def test_what_is_asked_for_counts_and_zero_leaves_out():
    options = LossOptions(cosine=0, similarity=2.5, relations=1)
    weights = weights_of("sentence-embedding", options, labelled=False, layered=True)
    assert weights == {"similarity": 2.5, "hidden": 0.1, "relations": 1}


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        ("sentence-embedding", {"soft": 1}, "soft is nothing for sentence-embedding"),
        ("text-classification", {"hard": 1}, "hard needs labels, and the data has none"),
        ("sentence-embedding", {"contrastive": 1}, "contrastive needs labels"),
        ("image-classification", {"relations": 1}, "relations is nothing for models whose layers"),
        ("sentence-embedding", {"cosine": 0, "similarity": 0}, "there is nothing to learn from"),
        ("sentence-embedding", {"on_policy": 0.5}, "on_policy is nothing for sentence-embedding"),
        ("text-generation", {"on_policy": 0.5, "soft": 0, "hard": 1}, "on_policy needs a loss by which"),
        ("generic", {}, "there are no losses for the task generic"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(task, options, said):
    with pytest.raises(RecipeError, match=said):
        weights_of(task, LossOptions(**options), labelled=False, layered=False)
