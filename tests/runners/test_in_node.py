"""ONNX Runtime in Node.js: as WebAssembly, and natively."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper

from edgekit.errors import MachineError, RunnerFailedError, RunnerMissingError
from edgekit.runners import Job, Measure, Runner
from edgekit.runners.child import TYPES
from edgekit.runners.javascript.in_node import NODE, WASM_NODE
from edgekit.runners.kit import kit_state
from edgekit.runners.native import Native

Ready = Callable[[Runner], Runner]
Jobs = Callable[..., dict[str, Job]]


@pytest.fixture(params=[WASM_NODE, NODE], ids=lambda runner: runner.name)
def runner(request: pytest.FixtureRequest, ready: Ready) -> Runner:
    return ready(request.param)


def test_float_and_int8_graphs_give_what_they_give_in_python(runner: Runner, tiny_jobs: Jobs) -> None:
    for job in tiny_jobs().values():
        here, native = runner.run(job), Native().run(job)
        assert here.deterministic
        for found, expected in zip(here.outputs, native.outputs, strict=True):
            np.testing.assert_allclose(found["y"], expected["y"], atol=1e-5)
            np.testing.assert_array_equal(found["argmax"], expected["argmax"])
            assert found["argmax"].dtype == np.int64


def test_the_result_says_which_runtime_and_cpu_it_was(runner: Runner, tiny_jobs: Jobs) -> None:
    result = runner.run(tiny_jobs(repeats=1)["int8"])
    assert result.runtime_version == "1.30.0"
    assert result.cpu
    assert "wasm-simd128" in result.cpu_features
    assert result.facts["node"] == "24.19.0"
    assert result.facts["threads"] == 1
    assert result.load_ms is not None
    assert result.load_ms > 0
    assert result.peak_memory_bytes is not None
    assert result.times == ()


def test_both_models_are_timed_in_one_process(runner: Runner, tiny_jobs: Jobs) -> None:
    jobs = tiny_jobs(repeats=1)
    points = {"3x12": jobs["float"].batches[0], "1x5": jobs["float"].batches[1]}
    measure = Measure(jobs["float"].model, points, warm_up=2, runs=11)
    result = runner.run(replace(jobs["int8"], measure=measure))
    assert [times.point for times in result.times] == ["3x12", "1x5"]
    assert all(len(times.float_ms) == len(times.shipped_ms) == 11 for times in result.times)
    assert result.facts["warm_up_runs"] == ([100, 2] if runner is WASM_NODE else [2, 2])


def test_a_shipped_model_alone_is_timed_too(runner: Runner, tiny_jobs: Jobs) -> None:
    job = tiny_jobs(repeats=1)["int8"]
    measure = Measure(None, {"1x5": job.batches[1]}, warm_up=0, runs=3)
    (times,) = runner.run(replace(job, measure=measure)).times
    assert (len(times.float_ms), len(times.shipped_ms)) == (0, 3)


def test_the_threads_are_the_jobs(runner: Runner, tiny_jobs: Jobs) -> None:
    result = runner.run(tiny_jobs(repeats=1, threads=2)["int8"])
    assert result.facts["threads"] == 2


def test_session_options_reach_the_runtime(runner: Runner, tiny_jobs: Jobs) -> None:
    job = tiny_jobs(session_options={"session.load_model_format": "ORT"})["int8"]
    with pytest.raises(RunnerFailedError, match=r"(?i)ort"):
        runner.run(job)


def test_every_type_of_a_tensor_file_goes_in_and_comes_out(
    runner: Runner, save: Callable[..., Path], tmp_path: Path
) -> None:
    types = {code: dtype for code, dtype in TYPES.items() if runner is WASM_NODE or dtype != np.float16}
    values = {f"in{code}": np.array([[0, 1, 3], [1, 0, 7]]).astype(dtype) for code, dtype in types.items()}
    (found,) = runner.run(_identity_job(save, tmp_path, values)).outputs
    for code, dtype in types.items():
        assert found[f"out{code}"].dtype == dtype
        np.testing.assert_array_equal(found[f"out{code}"], values[f"in{code}"])


def test_node_24_hands_no_float16_to_the_native_binding(
    ready: Ready, save: Callable[..., Path], tmp_path: Path
) -> None:
    """A defect of the pair that a user would meet too: the binding is older than Float16Array."""
    job = _identity_job(save, tmp_path, {"in10": np.ones((2, 3), np.float16)})
    with pytest.raises(RunnerFailedError, match="not enough space"):
        ready(NODE).run(job)


def _identity_job(save: Callable[..., Path], folder: Path, values: dict[str, np.ndarray]) -> Job:
    """Copies each `in<type>` to `out<type>`."""
    codes = [int(name[2:]) for name in values]
    path = save(
        folder / "types.onnx",
        [helper.make_node("Identity", [f"in{code}"], [f"out{code}"]) for code in codes],
        [helper.make_tensor_value_info(f"in{code}", code, [2, 3]) for code in codes],
        [helper.make_tensor_value_info(f"out{code}", code, [2, 3]) for code in codes],
    )
    return Job(path, (values,), tuple(f"out{code}" for code in codes), repeats=1)


def test_weights_beside_the_model_are_found(runner: Runner, tiny_jobs: Jobs, tmp_path: Path) -> None:
    job = tiny_jobs(repeats=1)["float"]
    path = tmp_path / "outside.onnx"
    model = onnx.load(job.model)
    external_data_helper.convert_model_to_external_data(model, location=f"{path.name}.data", size_threshold=0)
    onnx.save(model, path)
    found, expected = (runner.run(replace(job, model=model)).outputs for model in (path, job.model))
    np.testing.assert_array_equal(found[0]["y"], expected[0]["y"])


@pytest.mark.parametrize(("domain", "opset"), [("com.example", 20), ("", 99)])
def test_what_the_runtime_refuses_fails_in_its_own_words(
    runner: Runner, save: Callable[..., Path], tmp_path: Path, domain: str, opset: int
) -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    path = save(
        tmp_path / "refused.onnx",
        [helper.make_node("Abs" if not domain else "NoSuchOp", ["x"], ["y"], domain=domain)],
        value[:1],
        value[1:],
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)],
    )
    with pytest.raises(RunnerFailedError, match="NoSuchOp" if domain else "opset") as caught:
        runner.run(Job(path, ({"x": np.ones(2, np.float32)},), ("y",)))
    assert caught.value.outcome == "failed"


def test_a_users_own_settings_of_node_change_nothing(
    runner: Runner, tiny_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_OPTIONS", "--require /no/such/file.js")
    assert runner.run(tiny_jobs(repeats=1)["float"]).deterministic


def test_a_missing_input_is_named(runner: Runner, tiny_jobs: Jobs) -> None:
    job = replace(tiny_jobs()["float"], batches=({"other": np.zeros(2, np.float32)},))
    with pytest.raises(RunnerFailedError, match="the input 'ids' is missing"):
        runner.run(job)


def test_a_run_that_takes_too_long_is_hung(runner: Runner, tiny_jobs: Jobs) -> None:
    with pytest.raises(RunnerFailedError) as caught:
        runner.run(tiny_jobs(repeats=10_000_000, timeout_s=2.0)["int8"])
    assert caught.value.outcome == "hung"


def test_a_model_that_is_larger_than_the_memory_limit_fails(
    runner: Runner, save: Callable[..., Path], tmp_path: Path
) -> None:
    path = save(
        tmp_path / "large.onnx",
        [
            helper.make_node("Expand", ["x", "shape"], ["wide"]),
            helper.make_node("ReduceMax", ["wide"], ["y"], keepdims=0),
        ],
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    batch = {"x": np.ones(1, np.float32), "shape": np.array([1 << 28])}  # 1 GiB of floats
    job = Job(path, (batch,), ("y",), repeats=1)
    assert runner.run(job).outputs[0]["y"] == 1
    limit = 200 << 20 if runner is WASM_NODE else 1400 << 20  # V8 takes more than half a GiB of addresses
    with pytest.raises(RunnerFailedError) as caught:
        runner.run(replace(job, memory_limit_bytes=limit))
    assert caught.value.outcome in ("failed", "crashed")


def test_a_changed_file_of_the_kit_is_not_run(
    tiny_jobs: Jobs, monkeypatch: pytest.MonkeyPatch, ready: Ready, tmp_path: Path
) -> None:
    ready(WASM_NODE)
    original = WASM_NODE.kit.folder
    folder = tmp_path / "cache" / "runners" / original.name
    folder.mkdir(parents=True)
    for source in original.rglob("*"):
        place = folder / source.relative_to(original)
        if source.is_dir():
            place.mkdir()
        elif source.name == "ort.node.min.mjs":
            place.write_bytes(source.read_bytes().replace(b"a", b"b", 1))
        else:
            place.symlink_to(source)
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    assert kit_state(WASM_NODE.kit).ready  # the size is right
    with pytest.raises(RunnerMissingError, match=r"ort\.node\.min\.mjs is not the file that was installed"):
        WASM_NODE.run(tiny_jobs()["float"])


def test_on_another_machine_the_state_says_what_the_kit_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert "x86-64 Linux, this is aarch64" in WASM_NODE.state().missing
    with pytest.raises(MachineError, match="x86-64 Linux"):
        WASM_NODE.kit.build(Path("downloads"), Path("folder"))


def test_without_the_kit_the_state_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    assert WASM_NODE.state().hint == "edgekit runners install web"
    assert NODE.state().hint == "edgekit runners install node"
    assert "94 MB" in WASM_NODE.state().missing
