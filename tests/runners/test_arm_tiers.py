"""A model runs on emulated ARM cores as it does here, each core is the one in its name, and limits hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgekit.errors import RunnerFailedError
from edgekit.runners import Job, Measure, Runner
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
        if tier.midr is not None:
            assert f"{tier.midr:08x}" in there.cpu
        assert tier.features <= set(there.cpu_features)


_PRODUCTS = 3 * 12 * 32 * 24
"""Multiply-adds of the tiny model's one matrix product for three rows of twelve ids."""


@pytest.mark.parametrize(
    ("name", "kind", "each"),
    [("arm64-cortex-a53", "smlal", 8), ("arm64-cortex-a76", "sdot", 16), ("arm64-i8mm", "smmla", 32)],
)
def test_a_core_does_the_int8_product_in_its_best_instruction_and_each_multiply_add_is_counted(
    name: str, kind: str, each: int, ready: Ready, tiny_jobs: Jobs
) -> None:
    jobs = tiny_jobs(repeats=1)
    point = {"ids": jobs["int8"].batches[0]["ids"]}
    measured = replace(jobs["int8"], measure=Measure(jobs["float"].model, {"3x12": point}))
    result = ready(_TIERS[name]).run(measured)
    (counts,) = result.counts
    assert counts.point == "3x12"
    assert counts.shipped_counts[kind] == _PRODUCTS // each
    assert counts.float_counts["fmla"] == _PRODUCTS // 4
    assert not {"sdot", "smmla"} & set(counts.float_counts)
    assert sum(n for k, n in counts.shipped_counts.items() if k != "total") == counts.shipped_counts["total"]
    shares = result.facts["share_of_int8_multiply_adds_in_sdot_or_smmla"]
    assert shares == {"3x12": 0.0 if kind == "smlal" else 1.0}
    assert not result.times
    assert ("estimated_speedup" in result.facts) == (_TIERS[name].board is not None)


def test_counts_are_the_same_in_every_process(ready: Ready, tiny_jobs: Jobs) -> None:
    jobs = tiny_jobs(repeats=1, threads=2)
    points = {"1x5": jobs["int8"].batches[1], "3x12": jobs["int8"].batches[0]}
    measured = replace(jobs["int8"], measure=Measure(None, points))
    first, second = (ready(_TIERS["arm64-cortex-a76"]).run(measured).counts for _ in range(2))
    assert first == second
    assert [counts.point for counts in first] == ["1x5", "3x12"]
    assert first[0].shipped_counts["sdot"] < first[1].shipped_counts["sdot"]
    assert not first[0].float_counts


def test_a_core_that_nothing_counts_on_says_so(ready: Ready, tiny_jobs: Jobs) -> None:
    job = tiny_jobs(repeats=1)["int8"]
    measured = replace(job, measure=Measure(None, {"3x12": job.batches[0]}))
    result = ready(_TIERS["armv7-cortex-a7"]).run(measured)
    assert not result.counts
    assert "64-bit" in str(result.facts["not_counted"])


def test_session_options_reach_the_runtime(ready: Ready, tiny_jobs: Jobs) -> None:
    job = tiny_jobs(threads=2, session_options={"session.load_model_format": "ORT"})["int8"]
    with pytest.raises(RunnerFailedError, match="ORT"):
        ready(_TIERS["arm64-cortex-a76"]).run(job)


@pytest.mark.parametrize("name", ["arm64-cortex-a53", "armv7-cortex-a7"])
def test_a_model_that_does_not_load_says_why_and_nothing_else(
    name: str, ready: Ready, tiny_jobs: Jobs
) -> None:
    job = tiny_jobs()["float"]
    job.model.write_bytes(b"\x08\x0a\x42")
    with pytest.raises(RunnerFailedError) as caught:
        ready(_TIERS[name]).run(job)
    assert caught.value.outcome == "failed"
    assert caught.value.why.startswith("model.onnx: ")


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


@pytest.mark.parametrize("name", ["arm64-cortex-a76", "armv7-cortex-a7"])
def test_a_board_with_too_little_memory_fails_and_one_with_enough_does_not(
    name: str, ready: Ready, tmp_path: Path, save: Callable[..., Path]
) -> None:
    tier, job = ready(_TIERS[name]), _hungry(tmp_path, save)
    assert tier.run(replace(job, memory_limit_bytes=400 << 20)).outputs
    with pytest.raises(RunnerFailedError):
        tier.run(replace(job, memory_limit_bytes=60 << 20))


def test_another_core_than_the_one_in_the_name_is_refused(ready: Ready, tiny_jobs: Jobs) -> None:
    tier = ready(_TIERS["arm64-cortex-a76"])
    with pytest.raises(RunnerFailedError, match=r"saw 'MIDR 0x410fd034', not MIDR 0x414fd0b1"):
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
