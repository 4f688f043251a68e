"""Other releases of ONNX Runtime, and the installed one from C: the same answers, each by its own library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.errors import MachineError, RunnerFailedError
from edgekit.machine import installed_version
from edgekit.runners import Job, Measure, Runner
from edgekit.runners.kit import install_kit
from edgekit.runners.native import Native
from edgekit.runners.releases import CPP, RELEASES, CRunner

BY_NAME = {runner.name: runner for runner in RELEASES}


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_the_c_interface_gives_the_same_bytes_as_python(
    ready: Callable[[Runner], Runner], tiny_jobs: Callable[..., dict[str, Job]], kind: str
) -> None:
    job = tiny_jobs()[kind]
    found, expected = ready(BY_NAME["cpp"]).run(job), Native().run(job)
    assert found.runtime_version == installed_version("onnxruntime")
    for ours, theirs in zip(found.outputs, expected.outputs, strict=True):
        assert {name: value.tobytes() for name, value in ours.items()} == {
            name: value.tobytes() for name, value in theirs.items()
        }


@pytest.mark.parametrize("runner", RELEASES[1:], ids=lambda runner: runner.name)
def test_a_release_runs_its_own_library(
    ready: Callable[[Runner], Runner], tiny_jobs: Callable[..., dict[str, Job]], runner: CRunner
) -> None:
    jobs = tiny_jobs()
    job = replace(jobs["int8"], measure=Measure(jobs["float"].model, {"3x12": jobs["int8"].batches[0]}, 2, 5))
    found = ready(runner).run(job)
    assert f"ort-{found.runtime_version}" == runner.name
    assert found.deterministic
    assert len(found.times[0].float_ms) == len(found.times[0].shipped_ms) == 5
    expected = Native().run(jobs["int8"])
    for ours, theirs in zip(found.outputs, expected.outputs, strict=True):
        assert np.allclose(ours["y"], theirs["y"], atol=1e-4)


def test_a_file_that_is_too_new_for_a_release_fails_with_its_words(
    ready: Callable[[Runner], Runner], tmp_path: Path
) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "new.onnx"
    onnx.save(helper.make_model(graph, ir_version=13, opset_imports=[helper.make_opsetid("", 20)]), path)
    job = Job(path, ({"x": np.ones(2, np.float32)},), ("y",))
    assert Native().run(job).outputs[0]["y"].tolist() == [1, 1]
    with pytest.raises(
        RunnerFailedError, match="Unsupported model IR version: 13, max supported IR version: 10"
    ):
        ready(BY_NAME["ort-1.18.0"]).run(job)


def test_a_machine_without_a_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    kit = replace(CPP, parts=())
    with pytest.raises(MachineError, match="no C compiler here"):
        install_kit(kit)
    assert not kit.folder.exists()
