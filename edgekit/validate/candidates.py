"""The forms a model could ship in, side by side: float as exported and rewritten, dynamic and static int8.

All are timed in turns in one process, so a person can see what static quantization buys over the usual
alternatives, and whether int8 pays at all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.golden import Golden
from edgekit.record import Check
from edgekit.runtime import open_session
from edgekit.tasks import task_named
from edgekit.validate.latency import WARM_UP_RUNS, bootstrap_ratio, has_sequence, inputs_at_points
from edgekit.validate.parity import run_golden


@dataclass(frozen=True)
class Speed:
    """Speed-up over the exported float graph at one input shape, with its 95 % interval."""

    shape: str
    p50_ms: float
    speedup: float
    speedup_low: float
    speedup_high: float


@dataclass(frozen=True)
class Candidate:
    """One form of the model.

    Attributes:
        name: `float`, `float-rewritten`, `dynamic`, `static`.
        file_bytes: Size of its file.
        checks: The task's measures against PyTorch, with the request's budgets.
        speeds: One per input shape; empty where the target's CPU is not this one.
        shipped: Whether this is the one in the package.
    """

    name: str
    file_bytes: int
    checks: tuple[Check, ...]
    speeds: tuple[Speed, ...]
    shipped: bool = False

    @property
    def passed(self) -> bool:
        """Whether no check misses its budget."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the candidate as JSON values."""
        return {**asdict(self), "passed": self.passed}


def measure_candidates(
    files: Mapping[str, Path],
    golden: Golden,
    points: Sequence[tuple[int, int]],
    *,
    shipped: str,
    timed: bool,
    runs: int,
    threads: int,
    session_options: Mapping[str, str],
    gates: Mapping[str, float],
    max_length: int | None = None,
) -> tuple[Candidate, ...]:
    """Measure every form.

    Args:
        files: Name -> graph; the first is what speed is compared with.
        golden: Recorded inputs with the PyTorch outputs.
        points: (batch, length) pairs to time at.
        shipped: Name of the form in the package.
        timed: Whether times here are the target's.
        runs: Timed runs of each form at each point.
        threads: Intra-op threads.
        session_options: Session configuration entries.
        gates: Thresholds by check name that come before the task's.
        max_length: Longest sequence that the model takes.
    """
    sessions = {
        name: open_session(path, threads=threads, session_options=session_options)
        for name, path in files.items()
    }
    speeds: dict[str, list[Speed]] = {name: [] for name in files}
    if timed and runs:
        sequence = any(has_sequence(session) for session in sessions.values())
        shapes = inputs_at_points(golden, points, sequence=sequence, max_length=max_length)
        for shape, inputs in shapes.items():
            for name, speed in _time(sessions, inputs, shape, runs).items():
                speeds[name].append(speed)
    task = task_named(golden.task)
    return tuple(
        Candidate(
            name,
            path.stat().st_size,
            tuple(
                check.with_budget(gates)
                for check in task.compare(golden, run_golden(sessions[name], golden, path)).checks
            ),
            tuple(speeds[name]),
            name == shipped,
        )
        for name, path in files.items()
    )


def _time(
    sessions: Mapping[str, Any], inputs: Mapping[str, np.ndarray], shape: str, runs: int
) -> dict[str, Speed]:
    names = list(sessions)
    feeds = {n: {v.name: inputs[v.name] for v in sessions[n].get_inputs()} for n in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    order = np.random.default_rng(0)
    for turn in range(WARM_UP_RUNS + runs):
        for index in order.permutation(len(names)):
            name = names[index]
            begin = time.perf_counter()
            sessions[name].run(None, feeds[name])
            if turn >= WARM_UP_RUNS:
                times[name].append((time.perf_counter() - begin) * 1e3)
    base = np.array(times[names[0]])
    return {
        name: Speed(shape, float(np.median(times[name])), *bootstrap_ratio(base, np.array(times[name])))
        for name in names
    }
