"""Every task gives full marks to equal outputs, sees damage, and ignores padding."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import RecipeError
from edgekit.golden import Golden, GoldenBatch
from edgekit.recipe import recipe_from_table
from edgekit.record import Check
from edgekit.tasks import TASKS, request_gates, task_named
from edgekit.tasks.base import Comparison
from edgekit.tasks.measures import PERFECT_DB
from edgekit.tasks.parity import FLOAT_GATES, float_checks
from edgekit.tasks.samples import IGNORED

LENGTHS = (4, 7, 9)
DIM = 6


def golden(task: str, seed: int = 0, *, size: int = 4, labels: bool = False, classes: int = DIM) -> Golden:
    rng = np.random.default_rng(seed)
    batches = []
    for length in LENGTHS:
        mask = np.ones((size, length), np.int64)
        mask[::2, -2:] = 0
        along = task in ("feature-extraction", "token-classification", "text-generation")
        shape = (size, length, classes) if along else (size, classes)
        values = rng.normal(size=shape).astype(np.float32)
        truth = None
        if labels:
            truth = values.argmax(axis=-1)
            if along:
                truth = np.where(mask == 1, truth, IGNORED)
        ids = mask.copy()
        if task == "text-generation":  # a text that the model expects
            ids[:, 1:] = values.argmax(axis=-1)[:, :-1]
        batches.append(GoldenBatch({"input_ids": ids, "attention_mask": mask}, {"y": values}, truth))
    return Golden(task, tuple(batches))


def outputs(recorded: Golden, change=lambda values: values) -> list[dict[str, np.ndarray]]:
    return [
        {name: change(value.copy()) for name, value in batch.outputs.items()} for batch in recorded.batches
    ]


def by_name(comparison: Comparison) -> dict[str, Check]:
    return {check.name: check for check in comparison.checks}


EVERY = pytest.mark.parametrize("task", sorted(TASKS))


@EVERY
def test_equal_outputs_get_full_marks(task):
    recorded = golden(task, labels="classification" in task)
    checks = by_name(TASKS[task].compare(recorded, outputs(recorded)))
    perfect = {
        "cosine_mean": 1,
        "cosine_p05": 1,
        "cosine_min": 1,
        "rank_correlation": 1,
        "top1_agreement": 1,
        "label_f1": 1,
        "kl_mean": 0,
        "accuracy_float": 1,
        "accuracy_quantized": 1,
        "accuracy_drop": 0,
        "sqnr_db": PERFECT_DB,
        "max_relative_error.y": 0,
        "perplexity_ratio": 1,
    }
    for name in ("perplexity_float", "perplexity_quantized"):
        perfect[name] = checks["perplexity_float"].measured if name in checks else None
    for name, check in checks.items():
        assert check.measured == pytest.approx(perfect[name], abs=1e-9), name
        assert check.passed


@EVERY
def test_every_gate_is_measured_and_says_why(task):
    recorded = golden(task, labels="classification" in task)
    checks = by_name(TASKS[task].compare(recorded, outputs(recorded)))
    for gate in TASKS[task].gates:
        assert checks[gate.name].budget == gate.budget or gate.name == "top1_agreement"
        assert gate.why in checks[gate.name].why


@EVERY
@pytest.mark.parametrize("broken", [math.nan, math.inf], ids=["NaN", "infinity"])
def test_one_value_that_is_not_finite_fails(task, broken):
    recorded = golden(task)

    def breaks(values):
        values[(1,) + (0,) * (values.ndim - 1)] = broken
        return values

    comparison = TASKS[task].compare(recorded, outputs(recorded, breaks))
    assert any(check.state == "fail" for check in comparison.checks)


@EVERY
def test_noise_of_the_size_of_the_signal_fails(task):
    recorded = golden(task)
    rng = np.random.default_rng(1)
    noisy = outputs(recorded, lambda values: (values + rng.normal(size=values.shape)).astype(np.float32))
    failed = {check.name for check in TASKS[task].compare(recorded, noisy).checks if not check.passed}
    assert failed == {gate.name for gate in TASKS[task].gates} - {"accuracy_drop"}


@EVERY
def test_there_is_one_error_per_sample_sorted(task):
    recorded = golden(task)
    rng = np.random.default_rng(1)
    noisy = outputs(recorded, lambda values: values + 0.1 * rng.normal(size=values.shape))
    (error,) = TASKS[task].compare(recorded, noisy).errors
    assert error.output == "y"
    assert len(error.values) == recorded.samples
    assert list(error.values) == sorted(error.values)
    assert len(set(error.values)) > 1


@pytest.mark.parametrize("task", ["feature-extraction", "token-classification", "generic"])
def test_padding_does_not_count(task):
    recorded = golden("token-classification", labels=True)
    changed = []
    for batch in recorded.batches:
        padding = batch.inputs["attention_mask"][..., None] == 0
        changed.append({"y": np.where(padding, np.nan, batch.outputs["y"])})
    assert TASKS[task].compare(recorded, changed) == TASKS[task].compare(recorded, outputs(recorded))
    assert all(check.passed for check in float_checks(recorded, changed))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), factor=st.floats(0.1, 10))
def test_embeddings_are_compared_by_direction_alone(seed, factor):
    recorded = golden("sentence-embedding", seed)
    checks = by_name(
        TASKS["sentence-embedding"].compare(recorded, outputs(recorded, lambda v: v.astype(float) * factor))
    )
    assert checks["cosine_min"].measured == pytest.approx(1)
    assert checks["rank_correlation"].measured == pytest.approx(1)


def test_the_order_of_similarities_is_seen_where_the_cosines_stay_high():
    rng = np.random.default_rng(0)
    values = (np.ones((64, 32)) + 0.02 * rng.normal(size=(64, 32))).astype(np.float32)
    recorded = Golden("sentence-embedding", (GoldenBatch({"input_ids": values}, {"y": values}),))
    moved = [{"y": values + 0.02 * rng.normal(size=values.shape)}]
    checks = by_name(TASKS["sentence-embedding"].compare(recorded, moved))
    assert checks["cosine_p05"].passed
    assert not checks["rank_correlation"].passed


def test_a_single_logit_decides_by_its_sign():
    recorded = golden("text-classification", classes=1, size=40)
    checks = by_name(TASKS["text-classification"].compare(recorded, outputs(recorded, lambda v: -v)))
    assert checks["top1_agreement"].measured == 0
    checks = by_name(TASKS["text-classification"].compare(recorded, outputs(recorded)))
    assert checks["top1_agreement"].measured == 1


def decided(float_right: int, right: int, total: int) -> tuple[Golden, list[dict[str, np.ndarray]]]:
    """A golden of two classes, all labelled 1, and what another model says about it."""
    values = np.tile(np.array([0.0, 1.0], np.float32), (total, 1))
    values[float_right:] = [1, 0]
    other = np.tile(np.array([0.0, 1.0], np.float32), (total, 1))
    other[right:] = [1, 0]
    batch = GoldenBatch({"pixel_values": values}, {"logits": values}, np.ones(total, np.int64))
    return Golden("image-classification", (batch,)), [{"logits": other}]


@pytest.mark.parametrize(
    ("float_right", "right", "total", "passes"),
    [
        (100, 98, 128, True),  # 1.6 points, but only two samples: chance
        (100, 90, 128, False),  # 7.8 points
        (1000, 985, 1000, True),  # 1.5 points on a thousand: within 1.645 standard errors of one point
        (10_000, 9_850, 10_000, False),  # the same share on ten thousand: beyond them
        (100, 110, 128, True),  # a gain
    ],
)
def test_an_accuracy_drop_fails_only_where_the_samples_can_tell(float_right, right, total, passes):
    checks = by_name(TASKS["image-classification"].compare(*decided(float_right, right, total)))
    drop = checks["accuracy_drop"]
    assert drop.measured == pytest.approx(100 * (float_right - right) / total)
    assert checks["accuracy_float"].measured == pytest.approx(float_right / total)
    assert checks["accuracy_quantized"].measured == pytest.approx(right / total)
    assert drop.passed is passes
    assert f"{total} labels" in drop.why


def test_without_labels_nothing_is_said_about_accuracy():
    recorded = golden("text-classification")
    assert not [
        n for n in by_name(TASKS["text-classification"].compare(recorded, outputs(recorded))) if "acc" in n
    ]


def test_batches_without_labels_do_not_hide_the_labels_of_the_others():
    recorded = golden("text-classification", labels=True)
    last = recorded.batches[-1]
    mixed = Golden(recorded.task, (*recorded.batches[:-1], GoldenBatch(last.inputs, last.outputs)))
    check = by_name(TASKS["text-classification"].compare(mixed, outputs(mixed)))["accuracy_float"]
    assert check.why == "on 8 labels of the user's data"


def test_positions_labelled_to_be_ignored_do_not_count():
    recorded = golden("token-classification", labels=True)
    for batch in recorded.batches:
        batch.labels[:, 1:] = IGNORED
    check = by_name(TASKS["token-classification"].compare(recorded, outputs(recorded)))["accuracy_float"]
    assert check.why == f"on {recorded.samples} labels of the user's data"


@pytest.mark.parametrize(("flips", "passes"), [(1, True), (2, False)])
def test_one_flip_among_few_samples_is_no_failure(flips, passes):
    recorded, other = decided(20, 20 - flips, 20)
    check = by_name(TASKS["image-classification"].compare(recorded, other))["top1_agreement"]
    assert check.measured == pytest.approx(1 - flips / 20)
    assert check.passed is passes


def test_the_worst_output_gates_and_each_one_is_shown():
    values = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    recorded = Golden("generic", (GoldenBatch({"x": values}, {"a": values, "b": values[:, 0]}),))
    checks = by_name(TASKS["generic"].compare(recorded, [{"a": values, "b": values[:, 0] * 1.5}]))
    assert checks["sqnr_db"].measured == pytest.approx(20 * math.log10(2))
    assert not checks["sqnr_db"].passed
    assert checks["sqnr_db.a"].measured == PERFECT_DB
    assert checks["max_relative_error.b"].measured == pytest.approx(0.5)
    assert checks["max_relative_error.b"].state == "info"


def test_the_float_graph_has_to_be_close_everywhere():
    recorded = golden("feature-extraction")
    checks = float_checks(recorded, outputs(recorded), "optimized")
    assert [check.name for check in checks] == [f"{gate.name}.optimized.y" for gate in FLOAT_GATES]
    assert all(check.passed and "optimized, 'y'" in check.title for check in checks)

    def failed(change) -> set[str]:
        return {
            c.name.split(".")[0] for c in float_checks(recorded, outputs(recorded, change)) if not c.passed
        }

    rng = np.random.default_rng(0)
    assert failed(lambda v: v + 1e-6 * rng.normal(size=v.shape)) == set()
    assert failed(lambda v: v * 1.01) == {"float_max_relative_error"}
    assert failed(lambda v: v + 0.01 * rng.normal(size=v.shape)) == {
        "float_max_relative_error",
        "float_cosine",
    }

    def breaks(values):
        values[1, 0, 0] = math.nan
        return values

    assert failed(breaks) == {gate.name for gate in FLOAT_GATES}


def test_a_float_gate_can_be_overridden_by_its_short_name():
    recorded = golden("feature-extraction")
    moved = outputs(recorded, lambda values: values * 1.01)
    assert all(c.passed for c in float_checks(recorded, moved, "plain", {"float_max_relative_error": 0.1}))


def test_a_task_is_found_by_name_and_a_wrong_name_gets_the_nearest():
    assert all(task_named(name).name == name for name in TASKS)
    with pytest.raises(RecipeError, match=r"(?s)unknown task .*mean 'text-class") as info:
        task_named("text-clasification")
    assert info.value.exit_code == 2


@EVERY
@pytest.mark.parametrize("max_drop", [1e-6, 0.01, 0.5])
def test_an_allowed_loss_is_a_threshold_of_what_the_task_measures(task, max_drop):
    recorded = golden(task, labels="classification" in task)
    measured = by_name(TASKS[task].compare(recorded, outputs(recorded)))
    for labelled in (False, True):
        budgets = TASKS[task].within(max_drop, labelled=labelled)
        assert budgets
        assert all(measured[name].with_budget(budgets).passed for name in budgets)
    halved = outputs(recorded, lambda values: -values)
    worst = by_name(TASKS[task].compare(recorded, halved))
    assert not all(worst[name].with_budget(budgets).passed for name in budgets)


@pytest.mark.parametrize(
    ("task", "labels", "gates"),
    [
        ("sentence-embedding", False, {"cosine_mean": 0.99, "rank_correlation": 0.99}),
        ("text-classification", True, {"accuracy_drop": 1.0}),
        ("text-classification", False, {"top1_agreement": 0.99}),
        ("multi-label-text-classification", False, {"label_f1": 0.99}),
        ("text-generation", False, {"perplexity_ratio": 1 / 0.99}),
        ("generic", False, {"sqnr_db": 40.0}),
    ],
)
def test_a_point_of_loss_per_task(task, labels, gates):
    table = {"model": "m", "targets": ["arm64"], "quantize": {"max_drop": 0.01}}
    assert request_gates(recipe_from_table(table), golden(task, labels=labels)) == pytest.approx(gates)


def test_a_gate_of_its_own_comes_before_the_allowed_loss():
    table = {"model": "m", "targets": ["arm64"], "gates": {"sqnr_db": 12.0, "speedup": 2.0}}
    assert request_gates(recipe_from_table(table), golden("generic")) == table["gates"]
    asked = recipe_from_table(table | {"quantize": {"max_drop": 0.01}})
    assert request_gates(asked, golden("generic")) == table["gates"]
