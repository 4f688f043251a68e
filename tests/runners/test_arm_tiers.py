"""A model runs on emulated ARM cores as it does here, each core is the one in its name, and limits hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgekit.errors import RunnerFailedError
from edgekit.runners import Job, Runner
from edgekit.runners.arm.tiers import ARM_TIERS, EmulatedArm
from edgekit.runners.base import Result
from edgekit.runners.native import Native

_TIERS = {tier.name: tier for tier in ARM_TIERS}
_FAST = ("arm64-cortex-a53", "arm64-cortex-a76", "arm64-i8mm", "armv7-cortex-a7")
Jobs = Callable[..., dict[str, Job]]
Ready = Callable[[Runner], EmulatedArm]


@pytest.mark.parametrize(
    "name", [*_FAST, *(pytest.param(n, marks=pytest.mark.slow) for n in _TIERS if n not in _FAST)]
)
def test_an_emulated_core_gives_what_this_cpu_gives(name: str, ready: Ready, tiny_jobs: Jobs) -> None:
    tier = ready(_TIERS[name])
    for job in tiny_jobs(repeats=2).values():
        here, there = Native().run(job), tier.run(job)
        assert there.deterministic
        assert there.runtime_version == ("1.21.0" if name.startswith("armv7") else "1.31.1")
        assert there.load_ms is None
        assert there.peak_memory_bytes is None
        assert not there.times
        for mine, its in zip(here.outputs, there.outputs, strict=True):
            np.testing.assert_allclose(its["y"], mine["y"], atol=1e-5, rtol=0)
            np.testing.assert_array_equal(its["argmax"], mine["argmax"])
        if tier.part is not None:
            assert f"{tier.part:03x}" in there.cpu
        assert tier.features <= set(there.cpu_features)


def test_session_options_reach_the_runtime(ready: Ready, tiny_jobs: Jobs) -> None:
    job = tiny_jobs(threads=2, session_options={"session.load_model_format": "ORT"})["int8"]
    with pytest.raises(RunnerFailedError, match="ORT"):
        ready(_TIERS["arm64-cortex-a76"]).run(job)


def test_a_model_that_does_not_load_says_why(ready: Ready, tiny_jobs: Jobs) -> None:
    job = tiny_jobs()["float"]
    job.model.write_bytes(b"\x08\x0a\x42")
    with pytest.raises(RunnerFailedError, match=r"arm64-cortex-a53: failed: model\.onnx: .+") as caught:
        ready(_TIERS["arm64-cortex-a53"]).run(job)
    assert caught.value.outcome == "failed"


def test_an_input_that_the_job_lacks_is_named(ready: Ready, tiny_jobs: Jobs) -> None:
    job = replace(tiny_jobs()["float"], batches=({"other": np.zeros(3, np.int64)},))
    with pytest.raises(RunnerFailedError, match="the job has no input 'ids'"):
        ready(_TIERS["arm64-cortex-a53"]).run(job)


def test_a_run_without_end_is_killed_and_called_hung(
    ready: Ready, tmp_path: Path, save: Callable[..., Path]
) -> None:
    with pytest.raises(RunnerFailedError) as caught:
        ready(_TIERS["arm64-cortex-a53"]).run(replace(_endless(tmp_path, save), timeout_s=6.0))
    assert caught.value.outcome == "hung"


@pytest.mark.parametrize("name", ["arm64-cortex-a76"])
def test_a_board_with_too_little_memory_fails_and_one_with_enough_does_not(
    name: str, ready: Ready, tmp_path: Path, save: Callable[..., Path]
) -> None:
    tier, job = ready(_TIERS[name]), _hungry(tmp_path, save)
    assert tier.run(replace(job, memory_limit_bytes=400 << 20)).outputs
    with pytest.raises(RunnerFailedError):
        tier.run(replace(job, memory_limit_bytes=60 << 20))


def test_another_core_than_the_one_in_the_name_is_refused(ready: Ready, tiny_jobs: Jobs) -> None:
    tier = ready(_TIERS["arm64-cortex-a76"])
    with pytest.raises(RunnerFailedError, match=r"saw 'MIDR 0x410fd034', not part 0xd0b"):
        replace(tier, cpu="cortex-a53").run(tiny_jobs(repeats=1)["float"])


def test_a_core_with_other_int8_features_is_refused() -> None:
    result = Result((), True, "1.31.1", "MIDR 0x000f0510", ("asimddp", "i8mm", "sme"))
    with pytest.raises(RunnerFailedError, match="saw asimddp, i8mm, sme, not asimddp, i8mm"):
        _TIERS["arm64-i8mm"]._held_against(result)


def _endless(folder: Path, save: Callable[..., Path]) -> Job:
    """A loop of 2**62 turns."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still"]),
            helper.make_node("Add", ["carried", "carried"], ["sum"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, [2]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [2]),
        ],
    )
    path = save(
        folder / "endless.onnx",
        [helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        weights=[helper.make_tensor("turns", TensorProto.INT64, [], [2**62])],
    )
    return Job(path, ({"x": np.ones(2, np.float32)},), ("y",))


def _hungry(folder: Path, save: Callable[..., Path]) -> Job:
    """Makes 100 MB out of 40 bytes."""
    path = save(
        folder / "hungry.onnx",
        [
            helper.make_node("Expand", ["x", "shape"], ["large"]),
            helper.make_node("ReduceSum", ["large"], ["y"], keepdims=0),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [10])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
        weights=[helper.make_tensor("shape", TensorProto.INT64, [2], [2_500_000, 10])],
    )
    return Job(path, ({"x": np.ones(10, np.float32)},), ("y",), repeats=1)
