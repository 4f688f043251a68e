"""What happened and what was measured: `StepRecord`, `Check`, `Verdict`.

Records say what a stage did; checks say how a measured value stands against its budget. All of it is
frozen, JSON-able, and ends up in `manifest.json` (what was done) and `report.json` (what was measured).
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

Fact = str | int | float | bool | None | list[Any] | dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Skip:
    """Something that a step left alone, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class StepRecord:
    """What one step did to an artifact.

    Attributes:
        stage: The room: `load`, `export`, `optimize`, `quantize`, `validate`, `package`.
        step: The act inside the stage, e.g. `smooth`.
        did: One sentence for a person.
        skipped: What was left alone, each with its reason.
        facts: Figures and choices, by name with unit.
        bytes_before: Size of the artifact before the step, or None where there was none.
        bytes_after: Size of the artifact after the step.
        seconds: Wall time.
        peak_memory_bytes: Peak resident memory of the process when the step ended.
    """

    stage: str
    step: str
    did: str
    skipped: tuple[Skip, ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)
    bytes_before: int | None = None
    bytes_after: int | None = None
    seconds: float = 0.0
    peak_memory_bytes: int = 0

    def to_json(self, *, measured: bool = True) -> dict[str, Any]:
        """Return the record as JSON values.

        Args:
            measured: False leaves out seconds and memory, which differ from run to run; the manifest is
                written so, because the same recipe has to make the same bytes.
        """
        out = asdict(self)
        out["facts"] = dict(self.facts)
        if not measured:
            del out["seconds"], out["peak_memory_bytes"]
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StepRecord:
        """Read what `to_json` wrote."""
        return cls(**{**data, "skipped": tuple(Skip(**skip) for skip in data["skipped"])})


@dataclass(frozen=True)
class Check:
    """One measured value against its budget.

    Attributes:
        name: Machine name, e.g. `cosine_p05`; the key of a `[gates]` override.
        title: What a person reads, e.g. "Cosine similarity, 5th percentile".
        measured: The value, or None where it could not be measured here (then `why` says so).
        unit: Unit of `measured` and `budget`; empty for ratios.
        comparison: Which side of the budget is good.
        budget: The threshold, or None for a value that is shown but does not gate.
        why: The reason for the budget, or for the missing value.
    """

    name: str
    title: str
    measured: float | None
    unit: str = ""
    comparison: Literal[">=", "<="] = ">="
    budget: float | None = None
    why: str = ""

    def with_budget(self, budgets: Mapping[str, float]) -> Check:
        """Return the check with the budget that `budgets` has under its name, or as it is."""
        if self.name not in budgets:
            return self
        return replace(self, budget=budgets[self.name], why="set by the request or the target")

    @property
    def passed(self) -> bool:
        """True unless there is a budget and the measured value misses it (NaN misses)."""
        if self.budget is None or self.measured is None:
            return True
        return self.measured >= self.budget if self.comparison == ">=" else self.measured <= self.budget

    @property
    def state(self) -> Literal["pass", "fail", "info", "not measured"]:
        """`info` has no budget, `not measured` has no value."""
        if self.measured is None:
            return "not measured"
        if self.budget is None:
            return "info"
        return "pass" if self.passed else "fail"


@dataclass(frozen=True)
class LatencyPoint:
    """Float against quantized at one input shape, interleaved in one process.

    Attributes:
        shape: Readable input shape, e.g. "1x128".
        threads: Intra-op threads of both sessions.
        runs: Timed runs per model.
        float_p50_ms: Median time of the float model, milliseconds.
        float_p90_ms: 90th percentile of the float model.
        quantized_p50_ms: Median time of the quantized model.
        quantized_p90_ms: 90th percentile of the quantized model.
        speedup: Median of float over quantized time; above 1 the quantized model is faster.
        speedup_low: Lower end of the bootstrap confidence interval of `speedup`.
        speedup_high: Upper end of it.
        confidence: Confidence of the interval, e.g. 0.95.
    """

    shape: str
    threads: int
    runs: int
    float_p50_ms: float
    float_p90_ms: float
    quantized_p50_ms: float
    quantized_p90_ms: float
    speedup: float
    speedup_low: float
    speedup_high: float
    confidence: float

    @property
    def verdict(self) -> Literal["faster", "slower", "cannot tell"]:
        """Whether the interval lies above 1, below 1, or around it."""
        if self.speedup_low > 1:
            return "faster"
        return "slower" if self.speedup_high < 1 else "cannot tell"


@dataclass(frozen=True)
class Footprint:
    """What a model file costs to ship and to hold.

    Attributes:
        file_bytes: Size on disk.
        compressed_bytes: Size as a deflated archive member, what a download weighs.
        load_ms: Median time to open a session, milliseconds; None where not measured.
        peak_memory_bytes: Peak resident memory that opening a session and one run add to the process that
            has only imported the runtime; None where not measured.
    """

    file_bytes: int
    compressed_bytes: int
    load_ms: float | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class OutputError:
    """How far one output is from the float model's, over the golden's samples.

    Attributes:
        output: Name of the graph output.
        measure: What each value is, e.g. `cosine` (1 is equal) or `sqnr_db` (higher is closer).
        values: One value per golden sample, sorted ascending.
    """

    output: str
    measure: str
    values: tuple[float, ...]


Level = Literal["native", "masked", "emulated", "simulated", "board", "packaged only", "unverified"]
"""What a run proves: on this CPU, on it with features off, on an emulated CPU, in a functional simulation, on
the device itself; or that it was only packaged, or not even looked at."""


@dataclass(frozen=True)
class Execution:
    """One row of the matrix: a package on one runner.

    Attributes:
        runner: Name of the runner, e.g. `arm64-cortex-a53`.
        level: What a run there proves.
        outcome: `ran`, or why there is nothing to compare.
        why: The reason where it did not run.
        checks: The task's measures against the golden, `finite`, `deterministic` and, where the result has
            to be the same as elsewhere, `identical`; with budgets.
        same_as_native: Share of the golden's samples whose outputs are the native run's, byte for byte; None
            where there was no native run.
        largest_difference: Largest absolute difference to the native run's outputs.
        latency: Float against shipped, measured there; empty where a clock means nothing or no float model
            was at hand.
        p50_ms: Median time of the shipped model by input shape, milliseconds.
        counts: Instructions of one inference by point and class, `{point: {"shipped": {class: n}}}`, and of
            the float model under `float`.
        load_ms: Time to open the session, milliseconds.
        peak_memory_bytes: What opening the session and running the golden adds.
        runtime_version: Version of ONNX Runtime there.
        cpu: The CPU as seen from inside.
        facts: What else the place told, by name with unit; an estimate says so in its name.
        seconds: Wall time of the whole run.
    """

    runner: str
    level: Level
    outcome: Literal["ran", "failed", "crashed", "hung", "missing"]
    why: str = ""
    checks: tuple[Check, ...] = ()
    same_as_native: float | None = None
    largest_difference: float | None = None
    latency: tuple[LatencyPoint, ...] = ()
    p50_ms: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    load_ms: float | None = None
    peak_memory_bytes: int | None = None
    runtime_version: str = ""
    cpu: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """True where it ran and every check holds; a runner that is missing passes nothing."""
        return self.outcome == "ran" and all(check.passed for check in self.checks)

    def to_json(self, *, measured: bool = True) -> dict[str, Any]:
        """Return the row as JSON values.

        Args:
            measured: False leaves out what differs from run to run: times, memory, seconds, facts.
        """
        out = {**asdict(self), "passed": self.passed}
        for entry, check in zip(out["checks"], self.checks, strict=True):
            entry["state"] = check.state
        for entry, point in zip(out["latency"], self.latency, strict=True):
            entry["verdict"] = point.verdict
        if not measured:
            for key in ("latency", "p50_ms", "load_ms", "peak_memory_bytes", "seconds", "facts"):
                del out[key]
        return out


@dataclass(frozen=True)
class Verdict:
    """Everything that was measured on one artifact for one target.

    Attributes:
        target: Name of the profile.
        checks: Every check, gating or not, in the order to show them.
        latency: One entry per input shape; empty where the target's CPU is not this one.
        latency_note: Why latency is missing, or what its figures mean.
        float_size: Footprint of the float model.
        quantized_size: Footprint of the shipped model.
        output_errors: Distributions behind the parity checks.
        notes: Sentences that the report must say, e.g. that int8 is not faster here.
        executions: Where else it was run, one row per runner; empty where nobody asked.
        level: What all of it proves about the target.
    """

    target: str
    checks: tuple[Check, ...]
    latency: tuple[LatencyPoint, ...]
    latency_note: str
    float_size: Footprint
    quantized_size: Footprint
    output_errors: tuple[OutputError, ...] = ()
    notes: tuple[str, ...] = ()
    executions: tuple[Execution, ...] = ()
    level: Level = "unverified"

    @property
    def passed(self) -> bool:
        """True when no check misses its budget, and no runner that ran it found it wrong."""
        return all(check.passed for check in self.checks) and not self.failed_executions

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that miss their budget."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def failed_executions(self) -> tuple[Execution, ...]:
        """The rows that show a fault; a runner that is not installed here shows nothing."""
        return tuple(row for row in self.executions if not row.passed and row.outcome != "missing")

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON values, with each check's and point's outcome spelled out."""
        out = asdict(self)
        out["passed"] = self.passed
        for entry, check in zip(out["checks"], self.checks, strict=True):
            entry["state"] = check.state
        for entry, point in zip(out["latency"], self.latency, strict=True):
            entry["verdict"] = point.verdict
        out["executions"] = [row.to_json() for row in self.executions]
        return out


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process so far, in bytes.

    On Linux this is VmHWM: getrusage would carry the peak of the parent process over an exec.
    Source: Linux proc(5), /proc/pid/status; getrusage(2), ru_maxrss.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB


@dataclass(frozen=True)
class Clock:
    """Started when made; stamps records with the seconds since and the memory reached."""

    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.started

    def record(
        self,
        stage: str,
        step: str,
        did: str,
        *,
        skipped: tuple[Skip, ...] = (),
        bytes_before: int | None = None,
        bytes_after: int | None = None,
        **facts: Fact,
    ) -> StepRecord:
        """Return a `StepRecord` with this clock's time on it."""
        return StepRecord(
            stage=stage,
            step=step,
            did=did,
            skipped=skipped,
            facts=facts,
            bytes_before=bytes_before,
            bytes_after=bytes_after,
            seconds=self.seconds,
            peak_memory_bytes=peak_memory_bytes(),
        )


Progress = Callable[[str, str, float | None], None]
"""Called by the pipeline as `progress(stage, message, fraction)`; fraction is 0..1, or None where unknown."""


def silent(stage: str, message: str, fraction: float | None = None) -> None:
    """A `Progress` that says nothing."""
