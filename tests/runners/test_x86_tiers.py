"""This CPU with features off."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import MachineError, RunnerFailedError, RunnerMissingError
from edgekit.machine import Machine, read_machine
from edgekit.runners import Job, Measure, Result, child
from edgekit.runners.job_folder import read_result, write_job
from edgekit.runners.kit import install_kit
from edgekit.runners.native import Native
from edgekit.runners.process import run_child
from edgekit.runners.x86 import overlay, tiers
from edgekit.runners.x86.features import glibc_tunables, hidden
from edgekit.runners.x86.overlay import PRELOAD, build_overlay, installed_library, masked_kit
from edgekit.runners.x86.tiers import TIERS, MaskedX86
from edgekit.store import workspace

pytestmark = pytest.mark.skipif(not tiers._is_linux_x86_64(), reason="it masks x86-64 Linux machines")

BY_NAME = {tier.name: tier for tier in TIERS}
SATURATING = {"x86-avx2", "x86-avx512"}
EXACT_SUM, SATURATED_SUM = 64 * 255 * 127, 64 // 2 * 32767
"""Of 64 products 255 * 127; VPMADDUBSW clips the sum of each two at 32767."""


@pytest.fixture(params=list(BY_NAME))
def tier(request: pytest.FixtureRequest, x86_cache: Path, monkeypatch: pytest.MonkeyPatch) -> MaskedX86:
    monkeypatch.setenv("EDGEKIT_CACHE", str(x86_cache))
    chosen = BY_NAME[request.param]
    state = chosen.state()
    if not state.ready:
        pytest.skip(state.missing)
    return chosen


@pytest.fixture
def sse(x86_cache: Path, monkeypatch: pytest.MonkeyPatch) -> MaskedX86:
    monkeypatch.setenv("EDGEKIT_CACHE", str(x86_cache))
    return BY_NAME["x86-sse"]


def product_job(folder: Path, weight: np.ndarray, rows: np.ndarray, **fields: object) -> Job:
    """A job that multiplies uint8 rows with an int8 weight."""
    (inner, columns) = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, ["rows", inner])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["rows", columns])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    path = folder / "product.onnx"
    path.write_bytes(model.SerializeToString())
    return Job(path, ({"a": rows},), ("y",), **fields)  # type: ignore[arg-type]


def float_job(folder: Path, **fields: object) -> Job:
    """A job with a product and an activation in float32."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Erf", ["h"], ["y"])],
        "float",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 48])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 24])],
        [numpy_helper.from_array(rng.normal(size=(48, 24)).astype(np.float32), "w")],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    path = folder / "float.onnx"
    path.write_bytes(model.SerializeToString())
    x = rng.normal(size=(7, 48)).astype(np.float32)
    return Job(path, ({"x": x}, {"x": x[:2]}), ("y",), **fields)  # type: ignore[arg-type]


def test_the_largest_sums_saturate_just_where_the_hardware_does(tier: MaskedX86, tmp_path: Path) -> None:
    job = product_job(tmp_path, np.full((64, 8), 127, np.int8), np.full((4, 64), 255, np.uint8))
    sums = tier.run(job).outputs[0]["y"]
    assert set(sums.ravel()) == {SATURATED_SUM if tier.name in SATURATING else EXACT_SUM}


def test_weights_of_seven_bits_give_the_exact_sums_on_every_tier(tier: MaskedX86, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weight = rng.integers(-64, 65, (96, 40), np.int8)
    rows = rng.integers(0, 256, (33, 96)).astype(np.uint8)
    rows[0], rows[1] = 255, 0
    found = tier.run(product_job(tmp_path, weight, rows)).outputs[0]["y"]
    assert np.array_equal(found, rows.astype(np.int64) @ weight.astype(np.int64))


def test_a_float_model_gives_the_same_up_to_rounding(tier: MaskedX86, tmp_path: Path) -> None:
    job = float_job(tmp_path)
    expected, found = Native().run(job), tier.run(job)
    assert found.deterministic
    assert found.runtime_version == expected.runtime_version
    for one, other in zip(expected.outputs, found.outputs, strict=True):
        np.testing.assert_allclose(one["y"], other["y"], atol=1e-5)


def test_the_runtime_is_told_what_the_tier_keeps_and_nothing_above(tier: MaskedX86, tmp_path: Path) -> None:
    result = tier.run(float_job(tmp_path))
    above = set(result.cpu_features) - {"sse2", "ssse3", "sse4_1", "sse4_2"}
    assert above == set(tier.keeps)
    assert isinstance(result.facts["cpuid_answers"], int)
    assert result.facts["cpuid_answers"] > 0


def test_models_are_timed_in_turns_with_load_time_and_memory(sse: MaskedX86, tmp_path: Path) -> None:
    job = float_job(tmp_path)
    measure = Measure(job.model, {"7": job.batches[0]}, warm_up=1, runs=5)
    result = sse.run(Job(job.model, job.batches, job.outputs, measure=measure))
    assert len(result.times[0].float_ms) == len(result.times[0].shipped_ms) == 5
    assert result.load_ms is not None
    assert result.load_ms > 0
    assert result.peak_memory_bytes is not None


def test_a_tier_that_this_cpu_cannot_play_names_what_is_lacking(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = read_machine()
    old = Machine(machine.arch, machine.cpu, ("sse2", "avx"), 2, 1 << 30, machine.os)
    monkeypatch.setattr(tiers, "read_machine", lambda: old)
    assert BY_NAME["x86-avx2"].state().missing == "this CPU has no f16c, no fma, no avx2"
    with pytest.raises(RunnerMissingError, match="x86-avx2: this CPU has no f16c"):
        BY_NAME["x86-avx2"].run(float_job(tmp_path))


def test_a_tier_without_its_kit_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    state = BY_NAME["x86-sse"].state()
    assert not state.ready
    assert state.hint == "edgekit runners install x86-tiers"


def test_a_hang_is_killed_and_named(sse: MaskedX86, tmp_path: Path) -> None:
    with pytest.raises(RunnerFailedError) as caught:
        sse.run(float_job(tmp_path, timeout_s=0.05))
    assert (caught.value.runner, caught.value.outcome) == ("x86-sse", "hung")


def test_too_little_memory_is_a_failure_of_the_run(sse: MaskedX86, tmp_path: Path) -> None:
    with pytest.raises(RunnerFailedError, match="x86-sse"):
        sse.run(float_job(tmp_path, memory_limit_bytes=100 << 20))


def test_a_model_that_does_not_load_is_a_failure_with_the_runtimes_words(
    sse: MaskedX86, tmp_path: Path
) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(RunnerFailedError, match=r"INVALID_PROTOBUF|Protobuf"):
        sse.run(Job(tmp_path / "bad.onnx", (), ("y",)))


def test_a_runtime_that_was_not_patched_is_never_taken_for_a_masked_one(
    sse: MaskedX86, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kit"
    build_overlay(_library(), folder)
    copy = folder / "onnxruntime" / "capi" / _library().name
    copy.write_bytes(_library().read_bytes())
    monkeypatch.setattr(tiers, "open_kit", lambda kit: folder)
    with pytest.raises(RunnerFailedError, match="never asked for the CPU's features"):
        sse.run(float_job(tmp_path))


def test_a_kit_that_was_changed_is_not_run(
    sse: MaskedX86, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    kit = sse.kit
    assert kit is not None
    install_kit(kit)
    (kit.folder / PRELOAD).write_bytes(b"x" * (kit.folder / PRELOAD).stat().st_size)
    with pytest.raises(RunnerMissingError, match=rf"{PRELOAD} is not the file"):
        sse.run(float_job(tmp_path))


def test_the_copy_is_imported_without_a_word(sse: MaskedX86) -> None:
    kit = sse.kit
    assert kit is not None
    env = {**os.environ, "PYTHONPATH": str(kit.folder), "LD_PRELOAD": str(kit.folder / PRELOAD)}
    command = [sys.executable, "-c", "import onnxruntime; print(onnxruntime.__file__)"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(kit.folder))
    assert done.stderr == ""


def test_another_onnxruntime_makes_another_kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "onnxruntime" / "capi" / _library().name
    other.parent.mkdir(parents=True)
    other.write_bytes(_library().read_bytes() + b"newer")
    here = masked_kit()
    monkeypatch.setattr(overlay, "installed_library", lambda: other)
    there = masked_kit()
    assert here is not None
    assert there is not None
    assert here.folder != there.folder


def test_without_a_compiler_the_kit_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="need a C compiler"):
        build_overlay(_library(), tmp_path / "kit")


def test_a_library_that_cannot_be_told_apart_is_refused(tmp_path: Path) -> None:
    library = tmp_path / "onnxruntime" / "capi" / "onnxruntime_pybind11_state.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"not a library")
    with pytest.raises(MachineError, match="cannot be patched: it is not an ELF library"):
        build_overlay(library, tmp_path / "kit")


def test_the_math_library_leaves_the_features_alone_too() -> None:
    if "fma" not in (read_machine().features or ()) or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        pytest.skip("it needs a CPU with FMA and glibc")
    ask = "from ctypes import *; print(cast(CDLL('libm.so.6').expf, c_void_p).value & 4095)"
    env = {**os.environ, "GLIBC_TUNABLES": glibc_tunables(hidden(()))}
    found = [
        subprocess.run(
            [sys.executable, "-c", ask], env=env, capture_output=True, text=True, check=True
        ).stdout
        for env in (dict(os.environ), env)
    ]
    assert found[0] != found[1]


def _library() -> Path:
    library = installed_library()
    assert library is not None
    return library


def test_a_result_reads_the_same_from_run_to_run(sse: MaskedX86, tmp_path: Path) -> None:
    job = float_job(tmp_path)
    first, second = sse.run(job), sse.run(job)
    assert isinstance(first, Result)
    assert all(
        one["y"].tobytes() == other["y"].tobytes()
        for one, other in zip(first.outputs, second.outputs, strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cpu"), [("x86-sse", "Nehalem"), ("x86-avx", "SandyBridge"), ("x86-avx2", "Haswell")]
)
def test_a_tier_gives_the_bytes_that_an_emulated_cpu_gives(
    x86_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, cpu: str
) -> None:
    emulator = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if emulator is None:
        pytest.skip("there is no qemu-x86_64 in PATH")
    monkeypatch.setenv("EDGEKIT_CACHE", str(x86_cache))
    rows = np.random.default_rng(2).integers(0, 256, (5, 64)).astype(np.uint8)
    saturating = product_job(tmp_path, np.full((64, 8), 127, np.int8), rows)
    for job in (float_job(tmp_path), saturating):
        with workspace() as folder:
            write_job(job, folder)
            env = {**os.environ, "QEMU_CPU": cpu, "OPENBLAS_NUM_THREADS": "1"}
            run_child(cpu, [emulator, sys.executable, child.__file__, folder], timeout_s=200, env=env)
            emulated = read_result(job, folder, cpu)
        for one, other in zip(BY_NAME[name].run(job).outputs, emulated.outputs, strict=True):
            assert one["y"].tobytes() == other["y"].tobytes()
