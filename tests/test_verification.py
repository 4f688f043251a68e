"""Packages on runners: a target's own gate where they are installed, those of a request have to be there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import ProfileError, RunnerMissingError
from edgekit.golden import Golden, GoldenBatch
from edgekit.profile import TargetProfile, Verify, load_profile
from edgekit.record import Check, Execution, Footprint, Level, Verdict
from edgekit.runners.table import refuse_unknown_runners
from edgekit.validate.matrix import MatrixOptions
from edgekit.verification import proved_level, verified

WEIGHT = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
HERE = Verdict("t", (), (), "", Footprint(2, 2), Footprint(1, 1))
MISSED = Check("cosine_mean", "Cosine", 0.1, budget=0.9)


def _profile(name: str = "arm64", *on: str) -> TargetProfile:
    return load_profile(name).model_copy(update={"verify": Verify(on=on)})


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Save a product and its golden; no kit is installed."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    onnx.save(
        helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]),
        tmp_path / "m.onnx",
    )
    x = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    Golden("generic", (GoldenBatch({"x": x}, {"y": x @ WEIGHT}),)).save(tmp_path / "golden.npz")
    return tmp_path / "m.onnx", tmp_path / "golden.npz"


def test_a_runner_of_the_target_that_is_not_installed_is_a_row_that_says_so(made: tuple[Path, Path]) -> None:
    found = verified(HERE, *made, _profile("arm64", "arm64-cortex-a76"), MatrixOptions(runs=0))
    (row,) = found.executions
    assert (row.runner, row.outcome, row.level) == ("arm64-cortex-a76", "missing", "unverified")
    assert "edgekit runners install arm" in row.why
    assert found.passed, "what is not installed shows no fault"
    assert found.level == "packaged only"


def test_a_runner_that_is_asked_for_and_missing_is_refused_before_any_work(made: tuple[Path, Path]) -> None:
    with pytest.raises(RunnerMissingError, match="arm64-cortex-a76: the kit 'arm' is not installed"):
        refuse_unknown_runners(_profile(), ["arm64-cortex-a76"])
    with pytest.raises(RunnerMissingError, match="unknown runner 'arm65'"):
        refuse_unknown_runners(_profile(), ["arm65"])


def test_a_target_that_names_a_runner_that_does_not_exist_is_wrong() -> None:
    with pytest.raises(ProfileError, match=r"target 'arm64': verify\.on: unknown runner 'arm64-a76'"):
        refuse_unknown_runners(_profile("arm64", "arm64-a76"), [])


def test_every_built_in_target_names_runners_that_exist() -> None:
    from edgekit.profile import available

    for name in available():
        refuse_unknown_runners(load_profile(name), [])
        assert load_profile(name).verify.on


def test_runners_that_are_asked_for_come_with_the_native_one(made: tuple[Path, Path]) -> None:
    found = verified(HERE, *made, _profile(), MatrixOptions(runs=0), asked=("native",))
    assert [row.runner for row in found.executions] == ["native"]
    assert found.passed


def test_the_targets_own_are_left_out_of_a_later_validation_unless_named(made: tuple[Path, Path]) -> None:
    profile, options = _profile("arm64", "arm64-cortex-a76"), MatrixOptions(runs=0)
    assert not verified(HERE, *made, profile, options, targets_own=False).executions
    found = verified(HERE, *made, profile, options, asked=("target",), targets_own=False)
    assert [row.runner for row in found.executions] == ["arm64-cortex-a76"]


def _row(runner: str, level: Level, *, passed: bool = True) -> Execution:
    return Execution(runner, level, "ran", checks=() if passed else (MISSED,))


@pytest.mark.parametrize(
    ("rows", "level"),
    [
        ([], "packaged only"),
        ([_row("native", "native")], "packaged only"),
        ([_row("arm64-cortex-a76", "emulated")], "emulated"),
        ([_row("arm64-cortex-a76", "emulated", passed=False)], "packaged only"),
        ([_row("x86-avx2", "masked")], "packaged only"),
        ([_row("arm64-cortex-a76", "emulated"), _row("ssh://pi@board", "board")], "board"),
    ],
    ids=["nothing", "another CPU", "its core", "its core, wrong", "not its runner", "a board"],
)
def test_the_level_is_what_was_proved_about_the_target(rows: list[Execution], level: str) -> None:
    assert proved_level(_profile("arm64", "arm64-cortex-a76"), HERE, rows) == level


def test_a_fault_on_a_runner_fails_the_verdict() -> None:
    wrong = Verdict(
        "t",
        (),
        (),
        "",
        Footprint(2, 2),
        Footprint(1, 1),
        executions=(_row("x86-avx2", "masked", passed=False),),
    )
    assert not wrong.passed
