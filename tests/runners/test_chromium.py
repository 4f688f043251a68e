"""ONNX Runtime as WebAssembly in a page of headless Chromium."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper

from edgekit.errors import RunnerFailedError, RunnerMissingError
from edgekit.runners import Job, Measure, Runner
from edgekit.runners.javascript.chromium import CHROMIUM, CHROMIUM_2_THREADS, find_browser
from edgekit.runners.javascript.in_node import WASM_NODE
from edgekit.runners.native import Native

Ready = Callable[[Runner], Runner]
Jobs = Callable[..., dict[str, Job]]


def browser_processes(kind: str = "") -> list[psutil.Process]:
    """Processes that the run in this process has started, with a browser's profile in their command line."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if any("/profile" in word or "--type=" in word for word in words):
            found += [process] if not kind or f"--type={kind}" in words else []
    return found


@pytest.mark.parametrize("runner", [CHROMIUM, CHROMIUM_2_THREADS], ids=lambda runner: runner.name)
def test_a_page_gives_what_python_and_node_give(runner: Runner, ready: Ready, tiny_jobs: Jobs) -> None:
    ready(runner)
    jobs = tiny_jobs(repeats=2)
    measure = Measure(jobs["float"].model, {"3x12": jobs["float"].batches[0]}, warm_up=2, runs=11)
    job = replace(jobs["int8"], measure=measure)
    result, native, node = runner.run(job), Native().run(jobs["int8"]), WASM_NODE.run(jobs["int8"])
    for found, expected, same in zip(result.outputs, native.outputs, node.outputs, strict=True):
        np.testing.assert_allclose(found["y"], expected["y"], atol=1e-5)
        for name, value in same.items():
            np.testing.assert_array_equal(found[name], value)
    assert result.deterministic
    assert result.runtime_version == "1.30.0"
    assert (len(result.times[0].float_ms), len(result.times[0].shipped_ms)) == (11, 11)
    assert result.peak_memory_bytes is not None
    threads = 2 if runner is CHROMIUM_2_THREADS else 1
    facts = dict(result.facts)
    assert facts["cross_origin_isolated"] is True
    assert (facts["threads"], facts["workers"]) == (threads, threads - 1)
    assert "chrom" in str(facts["browser"]).lower()
    assert facts["model_bytes"] == job.model.stat().st_size
    assert facts["download_bytes"] == facts["runtime_bytes"] + facts["model_bytes"] > 10_000_000  # type: ignore[operator]
    assert facts["download_gzip_bytes"] < facts["download_bytes"]  # type: ignore[operator]
    assert "wasm-threads" in result.cpu_features
    assert browser_processes() == []


def test_an_operator_that_the_web_build_lacks_fails_in_the_runtimes_words(
    ready: Ready, save: Callable[..., Path], tmp_path: Path
) -> None:
    path = save(
        tmp_path / "lacking.onnx",
        [
            helper.make_node(
                "Rfft", ["x"], ["y"], domain="com.microsoft", normalized=0, onesided=1, signal_ndim=1
            )
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)],
    )
    with pytest.raises(RunnerFailedError, match="Could not find an implementation for Rfft") as caught:
        ready(CHROMIUM).run(Job(path, ({"x": np.ones(4, np.float32)},), ("y",)))
    assert caught.value.outcome == "failed"


def test_a_page_that_does_not_answer_is_hung_and_its_browser_is_gone(ready: Ready, tiny_jobs: Jobs) -> None:
    with pytest.raises(RunnerFailedError) as caught:
        ready(CHROMIUM).run(tiny_jobs(repeats=10_000_000, timeout_s=6.0)["int8"])
    assert caught.value.outcome == "hung"
    assert browser_processes() == []


@pytest.mark.parametrize("what", ["tab", "browser"])
def test_a_tab_or_browser_that_is_killed_has_crashed(what: str, ready: Ready, tiny_jobs: Jobs) -> None:
    ready(CHROMIUM)
    caught: list[RunnerFailedError] = []

    def run() -> None:
        try:
            CHROMIUM.run(tiny_jobs(repeats=10_000_000, timeout_s=120.0)["int8"])
        except RunnerFailedError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until = time.monotonic() + 60
    while not browser_processes("renderer") and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(5)  # the page is loaded and runs
    victims = browser_processes("renderer") if what == "tab" else psutil.Process().children()
    for victim in victims:
        victim.kill()
    thread.join(60)
    assert [error.outcome for error in caught] == ["crashed"]
    assert browser_processes() == []


def test_no_browser_outlives_an_edgekit_that_is_killed(ready: Ready, tiny_jobs: Jobs, tmp_path: Path) -> None:
    ready(CHROMIUM)
    job = tiny_jobs()["float"]
    code = (
        "import sys, numpy, pathlib; from edgekit.runners import Job;"
        "from edgekit.runners.javascript.chromium import CHROMIUM;"
        "batch = {'ids': numpy.zeros((1, 4), numpy.int64)};"
        "CHROMIUM.run(Job(pathlib.Path(sys.argv[1]), (batch,), ('y',), repeats=10**7))"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}  # it cannot clean up
    with subprocess.Popen([sys.executable, "-c", code, str(job.model)], env=env) as child:
        until = time.monotonic() + 60
        while not browser_processes("renderer") and time.monotonic() < until:
            time.sleep(0.1)
        browsers = browser_processes()
        assert browsers
        child.kill()
    assert psutil.wait_procs(browsers, timeout=20)[1] == []


def test_the_memory_limit_is_that_of_the_page(ready: Ready, tiny_jobs: Jobs) -> None:
    with pytest.raises(RunnerFailedError) as caught:
        ready(CHROMIUM).run(tiny_jobs(memory_limit_bytes=4 << 20)["int8"])
    assert caught.value.outcome == "failed"


def test_without_a_browser_the_state_names_the_package(
    tiny_jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser() is None
    assert "apt-get install chromium-headless-shell" in CHROMIUM.state().hint
    with pytest.raises(RunnerMissingError, match="no Chromium or Chrome"):
        CHROMIUM.run(tiny_jobs()["float"])


def test_a_browser_that_does_not_start_says_why(
    ready: Ready, tiny_jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(CHROMIUM)
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\necho 'no usable sandbox' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(RunnerFailedError, match=r"ended \(3\) before the page answered: no usable sandbox"):
        CHROMIUM.run(tiny_jobs()["float"])
