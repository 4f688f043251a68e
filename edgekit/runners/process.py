"""Run a child process that may hang, crash, or take too much memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekit.errors import RunnerFailedError

_TOLD_LINES = 3
_PR_SET_PDEATHSIG = 1
"""Source: Linux prctl(2), sys/prctl.h."""


def run_child(
    runner: str,
    command: Sequence[str | Path],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    memory_limit_bytes: int | None = None,
) -> str:
    """Run a command to its end and return its standard output.

    Args:
        runner: Name of the runner, for messages.
        command: Program and arguments.
        timeout_s: Seconds after which the process and its children are killed.
        env: Environment; None takes this process's.
        cwd: Working directory.
        memory_limit_bytes: Limit of its address space (RLIMIT_AS).

    Raises:
        RunnerFailedError: `hung` after the timeout; `crashed` with the signal's name; `failed` with the last
            lines of its standard error.
    """

    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def before_start() -> None:
        if libc is not None:  # where this process is killed outright, the child must not live on
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if memory_limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory_limit_bytes, memory_limit_bytes))

    try:
        child = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=dict(env) if env is not None else None,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=before_start,
        )
    except OSError as error:
        raise RunnerFailedError(
            runner, "failed", f"{command[0]} cannot be started: {error.strerror}"
        ) from None
    try:
        out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _kill_group(child)
        raise RunnerFailedError(runner, "hung", f"no answer within {timeout_s:g} s; it was killed") from None
    except BaseException:  # Ctrl-C too: nothing may be left running
        _kill_group(child)
        raise
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        why = f"it was ended by {name}" + (f": {tail(err)}" if err.strip() else "")
        raise RunnerFailedError(runner, "crashed", why)
    if child.returncode > 0:
        raise RunnerFailedError(runner, "failed", tail(err) or f"it ended with exit code {child.returncode}")
    return out


def tail(text: str) -> str:
    """Return the last lines of what a program said, as one line."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return " | ".join(lines[-_TOLD_LINES:])


def _kill_group(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
