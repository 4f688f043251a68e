"""Several labels per sample: each is a decision of its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.golden import Golden, GoldenBatch
from edgekit.tasks import task_named

TASK = task_named("multi-label-text-classification")


def compare(reference, other):
    reference = np.array(reference, np.float32)
    mask = np.ones((len(reference), 3), np.int64)
    golden = Golden(TASK.name, (GoldenBatch({"attention_mask": mask}, {"logits": reference}, None),))
    found = TASK.compare(golden, [{"logits": np.array(other, np.float32)}])
    return {check.name: check for check in found.checks}


def test_two_labels_of_a_sample_are_two_decisions():
    """Softmax would say that nothing changed: the largest logit stays the largest."""
    checks = compare([[5, 4, -5]] * 4, [[5, -4, -5]] * 4)
    assert checks["label_f1"].measured == pytest.approx(2 * 4 / (8 + 4))
    assert not checks["label_f1"].passed
    assert not checks["kl_mean"].passed


def test_a_shift_that_softmax_cannot_see_counts():
    checks = compare([[1, 1, 1]], [[-1, -1, -1]])
    assert checks["label_f1"].measured == 0
    assert checks["kl_mean"].measured > 0.2


def test_labels_that_neither_model_gives_do_not_dilute_the_figure():
    rare = [[3] + [-9] * 99, [-3] + [-9] * 99]
    lost = [[-3] + [-9] * 99, [-3] + [-9] * 99]
    assert compare(rare, lost)["label_f1"].measured == 0
    assert compare(lost, lost)["label_f1"].measured == 1


def test_the_divergence_is_that_of_each_label_s_yes_and_no():
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    p, q = sigmoid(np.array([0.3, -2.0])), sigmoid(np.array([0.1, -1.5]))
    expected = np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    assert compare([[0.3, -2.0]], [[0.1, -1.5]])["kl_mean"].measured == pytest.approx(expected, rel=1e-5)


@given(st.lists(st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_equal_logits_pass_whatever_they_are(logits):
    assert all(check.passed for check in compare(logits, logits).values())
