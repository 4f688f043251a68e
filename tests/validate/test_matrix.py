"""One package on many runners: each fault shows in its own row, by the check that is for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import RunnerFailedError, RunnerMissingError
from edgekit.golden import Golden, GoldenBatch
from edgekit.profile import TargetProfile, load_profile
from edgekit.record import Execution, Level
from edgekit.runners import Job, Result, State
from edgekit.runners.kit import Kit
from edgekit.runners.native import Native
from edgekit.validate.matrix import MatrixOptions, level_of, run_matrix

WEIGHT = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
BATCHES = [np.random.default_rng(seed).normal(size=(3, 6)).astype(np.float32) for seed in (1, 2)]


@dataclass(frozen=True)
class Elsewhere:
    """The native run, with something done to its answer: a place that is wrong in one way."""

    fault: Callable[[Result], Result]
    name: str = "elsewhere"
    title: str = "a place with a fault"
    level: Level = "emulated"
    kit: Kit | None = None

    def state(self) -> State:
        return State()

    def run(self, job: Job) -> Result:
        return self.fault(Native().run(job))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


@pytest.fixture
def golden() -> Golden:
    return Golden("generic", tuple(GoldenBatch({"x": x}, {"y": x @ WEIGHT}) for x in BATCHES))


@pytest.fixture
def profile() -> TargetProfile:
    return load_profile("cpu-x86-portable")


def _rows(
    model: Path, golden: Golden, profile: TargetProfile, fault: Callable[[Result], Result]
) -> tuple[Execution, ...]:
    return run_matrix(model, golden, profile, (Native(), Elsewhere(fault)), MatrixOptions(runs=0))


def _with_outputs(result: Result, change: Callable[[np.ndarray], np.ndarray]) -> Result:
    return replace(result, outputs=tuple({"y": change(outputs["y"])} for outputs in result.outputs))


def _failed(row: Execution) -> list[str]:
    return [check.name for check in row.checks if not check.passed]


def test_a_right_run_passes_and_is_identical_to_the_native_one(
    model: Path, golden: Golden, profile: TargetProfile
) -> None:
    native, elsewhere = _rows(model, golden, profile, lambda result: result)
    assert native.passed
    assert elsewhere.passed
    assert (elsewhere.same_as_native, elsewhere.largest_difference) == (1.0, 0.0)
    assert native.runtime_version
    assert level_of((native, elsewhere)) == "native"


def test_nan_fails_by_the_check_for_it_and_nothing_else_is_claimed(
    model: Path, golden: Golden, profile: TargetProfile
) -> None:
    _, row = _rows(model, golden, profile, lambda r: _with_outputs(r, lambda y: np.full_like(y, np.nan)))
    assert _failed(row) == ["nonfinite"]
    assert [check.name for check in row.checks] == ["nonfinite", "deterministic"]
    assert not row.passed


def test_wrong_values_fail_by_the_tasks_measure(model: Path, golden: Golden, profile: TargetProfile) -> None:
    native, row = _rows(model, golden, profile, lambda r: _with_outputs(r, lambda y: y + 1))
    assert native.passed
    assert any(name.startswith("sqnr_db") for name in _failed(row))
    assert row.largest_difference == pytest.approx(1, rel=1e-5)
    assert row.same_as_native == 0


def test_one_changed_sample_is_counted_as_one(model: Path, golden: Golden, profile: TargetProfile) -> None:
    def nudge(result: Result) -> Result:
        first = result.outputs[0]["y"].copy()
        first[0, 0] = np.nextafter(first[0, 0], np.float32(9))
        same = [outputs["y"].tobytes() == result.outputs[0]["y"].tobytes() for outputs in result.outputs]
        changed = ({"y": first} if s else o for s, o in zip(same, result.outputs, strict=True))
        return replace(result, outputs=tuple(changed))

    _, row = _rows(model, golden, profile, nudge)
    assert row.same_as_native == pytest.approx(5 / 6)
    assert row.passed, "the last digit of a float is not a fault"


def test_a_run_that_is_not_repeatable_fails(model: Path, golden: Golden, profile: TargetProfile) -> None:
    _, row = _rows(model, golden, profile, lambda r: replace(r, deterministic=False))
    assert _failed(row) == ["deterministic"]


def test_outputs_of_another_shape_are_a_failed_run(
    model: Path, golden: Golden, profile: TargetProfile
) -> None:
    _, row = _rows(model, golden, profile, lambda r: _with_outputs(r, lambda y: y[:, :2]))
    assert row.outcome == "failed"
    assert "shape" in row.why


@pytest.mark.parametrize("outcome", ["failed", "crashed", "hung"])
def test_a_run_that_does_not_end_well_says_how(
    model: Path, golden: Golden, profile: TargetProfile, outcome: str
) -> None:
    def fail(result: Result) -> Result:
        raise RunnerFailedError("elsewhere", outcome, "because")  # type: ignore[arg-type]

    native, row = _rows(model, golden, profile, fail)
    assert native.passed
    assert (row.outcome, row.why, row.passed) == (outcome, "because", False)


def test_a_runner_that_goes_missing_proves_nothing(
    model: Path, golden: Golden, profile: TargetProfile
) -> None:
    def missing(result: Result) -> Result:
        raise RunnerMissingError("the emulator is gone", "Run: edgekit runners install arm64")

    rows = _rows(model, golden, profile, missing)
    assert (rows[1].outcome, rows[1].level, rows[1].passed) == ("missing", "unverified", False)
    assert level_of(rows[1:]) == "unverified"


def test_a_model_that_the_runtime_refuses_fails_with_its_message(
    golden: Golden, profile: TargetProfile, tmp_path: Path
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    (row,) = run_matrix(path, golden, profile, (Native(),), MatrixOptions(runs=0))
    assert row.outcome == "failed"
    assert "rotobuf" in row.why


def test_too_little_memory_is_a_failed_run(model: Path, golden: Golden, profile: TargetProfile) -> None:
    options = MatrixOptions(runs=0, memory_limit_bytes=1 << 26)
    (row,) = run_matrix(model, golden, profile, (Native(),), options)
    assert row.outcome in ("failed", "crashed")


def test_times_are_taken_against_the_float_graph(model: Path, golden: Golden, profile: TargetProfile) -> None:
    (row,) = run_matrix(model, golden, profile, (Native(),), MatrixOptions(runs=12), float_path=model)
    assert [point.runs for point in row.latency] == [12, 12]
    assert set(row.p50_ms) == {"1", "8"}
    assert row.load_ms is not None
    assert row.peak_memory_bytes
