"""Children that hang, crash, fail or take too much memory: each is named, none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import edgekit
from edgekit.errors import RunnerFailedError
from edgekit.runners.process import run_child

EDGEKIT = Path(edgekit.__file__).parents[1]


def _python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_a_child_that_ends_well_gives_its_output() -> None:
    assert run_child("here", _python("print(6 * 7)"), timeout_s=30) == "42\n"


def test_a_child_that_fails_is_told_by_its_last_lines() -> None:
    with pytest.raises(RunnerFailedError, match=r"here: failed: .*ValueError: no such op") as caught:
        run_child("here", _python("raise ValueError('no such op')"), timeout_s=30)
    assert caught.value.outcome == "failed"


def test_a_child_that_is_killed_is_told_by_its_signal() -> None:
    with pytest.raises(RunnerFailedError, match="SIGKILL") as caught:
        run_child("here", _python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), timeout_s=30)
    assert caught.value.outcome == "crashed"


def test_a_child_that_hangs_is_killed_with_its_own_children(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(RunnerFailedError, match=r"no answer within 3 s") as caught:
        run_child("here", _python(program), timeout_s=3)
    assert caught.value.outcome == "hung"
    pid = int((tmp_path / "pid").read_text())
    for _ in range(50):
        if not _runs(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the child's own child was left running")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    inner = (
        f"import os, pathlib, time; pathlib.Path({str(told)!r}).write_text(str(os.getpid())); time.sleep(600)"
    )
    outer = (
        "import sys\nfrom edgekit.runners.process import run_child\n"
        f"run_child('here', [sys.executable, '-c', {inner!r}], timeout_s=600)\n"
    )
    parent = subprocess.Popen(_python(outer), env={**os.environ, "PYTHONPATH": str(EDGEKIT)})
    while not (told.is_file() and told.read_text()):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not _runs(int(told.read_text())):
            return
        time.sleep(0.1)
    os.kill(int(told.read_text()), signal.SIGKILL)
    pytest.fail("the child lives on")


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is kept on Linux only")
def test_a_child_that_wants_more_memory_than_it_may_fails() -> None:
    with pytest.raises(RunnerFailedError, match="MemoryError") as caught:
        run_child("here", _python("bytearray(1 << 32)"), timeout_s=30, memory_limit_bytes=1 << 30)
    assert caught.value.outcome == "failed"


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(RunnerFailedError, match="/no/such/program cannot be started"):
        run_child("here", ["/no/such/program"], timeout_s=3)


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.is_file() and "State:\tZ" not in status.read_text()
