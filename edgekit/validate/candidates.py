"""Forms that a model could ship in: float as exported and rewritten; dynamic, static and mixed int8.

All are timed in turns in one process, so a person can see what static quantization buys over the usual
alternatives, and whether int8 pays at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.golden import Golden
from edgekit.record import Check
from edgekit.runtime import open_session
from edgekit.tasks import task_named
from edgekit.validate.latency import bootstrap_ratio, has_sequence, inputs_at_points, time_in_turns
from edgekit.validate.parity import run_golden

FORMS: dict[str, str] = {
    "float": "fp32 as exported",
    "float-rewritten": "fp32 rewritten",
    "dynamic": "dynamic int8",
    "static": "static int8",
    "mixed": "static int8 with layers in float",
}
"""Name of a form -> what a person calls it."""

_BOOTSTRAPS = 2000


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
        name: A key of `FORMS`.
        file_bytes: Size of its file.
        checks: The task's measures against PyTorch and further ones, with the request's budgets.
        speeds: One per input shape; empty where the target's CPU is not this one.
        shipped: Whether this is the one in the package.
    """

    name: str
    file_bytes: int
    checks: tuple[Check, ...]
    speeds: tuple[Speed, ...]
    shipped: bool = False

    @property
    def title(self) -> str:
        """What a person calls the form."""
        return FORMS[self.name]

    @property
    def passed(self) -> bool:
        """Whether no check misses its budget."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the candidate as JSON values."""
        out = {**asdict(self), "title": self.title, "passed": self.passed}
        for entry, check in zip(out["checks"], self.checks, strict=True):
            entry["state"] = check.state
        return out


@dataclass(frozen=True)
class Timings:
    """Times of all forms, taken in turns, so that any two can be compared turn by turn.

    Attributes:
        ms: Input shape -> form -> time of each turn, milliseconds.
    """

    ms: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)

    def speeds(self, form: str, base: str) -> tuple[Speed, ...]:
        """Return how many times as fast a form is as another, at each shape."""
        return tuple(
            Speed(shape, float(np.median(ms[form])), *bootstrap_ratio(ms[base], ms[form]))
            for shape, ms in self.ms.items()
        )

    def overall(self, form: str, base: str) -> tuple[float, float, float] | None:
        """Return the ratio over all shapes and its 95 % interval, low and high; None if nothing was timed.

        It is the geometric mean of the shapes' median ratios, so that a shape that takes long counts no more
        than one that an app asks for as often. Source: Fleming and Wallace 1986, "How not to lie with
        statistics"; the interval is the percentile bootstrap, turns drawn anew at each shape.
        """
        if not self.ms:
            return None
        draw = np.random.default_rng(0)
        logs = np.zeros(_BOOTSTRAPS)
        value = 0.0
        for ms in self.ms.values():
            ratios = ms[base] / ms[form]
            picks = draw.integers(0, len(ratios), (_BOOTSTRAPS, len(ratios)))
            logs += np.log(np.median(ratios[picks], axis=1)) / len(self.ms)
            value += float(np.log(np.median(ratios))) / len(self.ms)
        low, high = np.exp(np.quantile(logs, [0.025, 0.975]))
        return float(np.exp(value)), float(low), float(high)


def measure_candidates(
    files: Mapping[str, Path],
    golden: Golden,
    points: Sequence[tuple[int, int]],
    *,
    timed: bool,
    runs: int,
    threads: int,
    session_options: Mapping[str, str],
    gates: Mapping[str, float],
    max_length: int | None = None,
    further: Mapping[str, tuple[Check, ...]] | None = None,
) -> tuple[tuple[Candidate, ...], Timings]:
    """Measure every form.

    Args:
        files: Name -> graph; the first is what speed is compared with.
        golden: Recorded inputs with the PyTorch outputs.
        points: (batch, length) pairs to time at.
        timed: Whether times here are the target's.
        runs: Timed runs of each form at each point.
        threads: Intra-op threads.
        session_options: Session configuration entries.
        gates: Thresholds by check name that come before the task's.
        max_length: Longest sequence that the model takes.
        further: Name -> checks that were made elsewhere and count too.
    """
    sessions = {
        name: open_session(path, threads=threads, session_options=session_options)
        for name, path in files.items()
    }
    timings = Timings()
    if timed and runs:
        sequence = any(has_sequence(session) for session in sessions.values())
        shapes = inputs_at_points(golden, points, sequence=sequence, max_length=max_length)
        timings = Timings(
            {
                shape: time_in_turns(sessions, [inputs] * len(sessions), runs=runs, label=shape)
                for shape, inputs in shapes.items()
            }
        )
    task, base = task_named(golden.task), next(iter(files))
    candidates = []
    for name, path in files.items():
        compared = task.compare(golden, run_golden(sessions[name], golden, path))
        checks = tuple(check.with_budget(gates) for check in compared.checks)
        more = (further or {}).get(name, ())
        speeds = timings.speeds(name, base)
        candidates.append(Candidate(name, path.stat().st_size, (*checks, *more), speeds))
    return tuple(candidates), timings
