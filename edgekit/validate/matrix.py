"""One package on many runners -> one row each: ran, finite, right, repeatable, how far from here, how fast.

What counts is the task's own measure against the golden, on each runner by itself. Bit equality with this
machine is shown, not asked for: an int8 graph turns the last digit of a float sum into a whole step, so two
right runs may differ (measured: moving LayerNorm's constants by 1e-6 moves int8 outputs by up to 0.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgekit.errors import EdgekitError, RunnerFailedError, RunnerMissingError
from edgekit.golden import Golden
from edgekit.profile import TargetProfile
from edgekit.record import Check, Clock, Execution, LatencyPoint, Level, Progress, silent
from edgekit.runners import Job, Measure, Result, Runner
from edgekit.tasks import task_named
from edgekit.validate.latency import WARM_UP_RUNS, inputs_at_points, latency_point

BEST_FIRST: tuple[Level, ...] = (
    "board",
    "native",
    "masked",
    "emulated",
    "simulated",
    "packaged only",
    "unverified",
)
"""Levels by what they prove about a device, the most first."""


@dataclass(frozen=True)
class MatrixOptions:
    """How to run a matrix.

    Attributes:
        runs: Timed runs of each model at each point; 0 times and counts nothing.
        timeout_s: Seconds after which a runner counts as hung.
        memory_limit_bytes: Address space per run; None sets no limit.
        gates: Thresholds by check name that come before the profile's and the task's.
        max_length: Longest token sequence that the model takes; None where it takes no text.
    """

    runs: int = 30
    timeout_s: float = 300.0
    memory_limit_bytes: int | None = None
    gates: Mapping[str, float] = field(default_factory=dict)
    max_length: int | None = None


def run_matrix(
    model: Path,
    golden: Golden,
    profile: TargetProfile,
    runners: Sequence[Runner],
    options: MatrixOptions,
    *,
    float_path: Path | None = None,
    progress: Progress = silent,
) -> tuple[Execution, ...]:
    """Run a model on every runner.

    Args:
        model: The shipped graph.
        golden: Recorded inputs with the float model's outputs.
        profile: The target: threads, session options, points and gates.
        runners: Where to run, in the order of the rows. The run that others are compared with is the one of
            the runner called `native`; where there is none, no row has a difference.
        options: How.
        float_path: The float graph to measure against.
        progress: Told of each runner before it starts.

    Returns:
        One row per runner; what goes wrong on a runner is its row's outcome, never an exception.
    """
    job = make_job(model, golden, profile, options, float_path=float_path)
    found: dict[str, Result] = {}
    rows: dict[str, Execution] = {}
    native_first = sorted(runners, key=lambda runner: runner.name != "native")
    for index, runner in enumerate(native_first):
        progress("validate", f"on {runner.name}", index / len(runners))
        clock = Clock()
        try:
            found[runner.name] = runner.run(job)
            row = _row(runner, job, found[runner.name], golden, profile, options, found.get("native"))
        except RunnerFailedError as error:
            row = Execution(runner.name, runner.level, error.outcome, error.why)
        except RunnerMissingError as error:
            row = Execution(runner.name, "unverified", "missing", str(error))
        except EdgekitError as error:  # outputs that cannot be compared, e.g. of another shape
            row = Execution(runner.name, runner.level, "failed", error.message)
        rows[runner.name] = replace(row, seconds=clock.seconds)
    return tuple(rows[runner.name] for runner in runners)


def make_job(
    model: Path,
    golden: Golden,
    profile: TargetProfile,
    options: MatrixOptions,
    *,
    float_path: Path | None,
) -> Job:
    """Return the question that every runner is asked."""
    measure = None
    if options.runs:
        sequence = options.max_length is not None or "attention_mask" in golden.batches[0].inputs
        points = inputs_at_points(
            golden, profile.runtime.points, sequence=sequence, max_length=options.max_length
        )
        measure = Measure(float_path, points, warm_up=WARM_UP_RUNS, runs=options.runs)
    return Job(
        model=model,
        batches=tuple(batch.inputs for batch in golden.batches),
        outputs=golden.output_names,
        threads=profile.runtime.threads,
        session_options=profile.runtime.session_options,
        measure=measure,
        timeout_s=options.timeout_s,
        memory_limit_bytes=options.memory_limit_bytes,
    )


def level_of(executions: Sequence[Execution]) -> Level:
    """Return the most that the rows prove: the best level among those that passed."""
    levels = [row.level for row in executions if row.passed]
    return min(levels, key=BEST_FIRST.index, default="unverified")


def _row(
    runner: Runner,
    job: Job,
    result: Result,
    golden: Golden,
    profile: TargetProfile,
    options: MatrixOptions,
    native: Result | None,
) -> Execution:
    overrides = {**profile.policy.gates, **options.gates}
    checks = [_finite(result), _deterministic(result, job)]
    if checks[0].passed:  # no measure says anything about NaN
        comparison = task_named(golden.task).compare(golden, result.outputs)
        checks += [check.with_budget(overrides) for check in comparison.checks]
    same, largest = difference(result, native) if native is not None else (None, None)
    return Execution(
        runner=runner.name,
        level=runner.level,
        outcome="ran",
        checks=tuple(checks),
        same_as_native=same,
        largest_difference=largest,
        latency=_latency(result, job),
        p50_ms={times.point: float(np.median(times.shipped_ms)) for times in result.times},
        counts={
            counts.point: {"float": dict(counts.float_counts), "shipped": dict(counts.shipped_counts)}
            for counts in result.counts
        },
        load_ms=result.load_ms,
        peak_memory_bytes=result.peak_memory_bytes,
        runtime_version=result.runtime_version,
        cpu=result.cpu,
        facts=dict(result.facts),
    )


def difference(result: Result, native: Result) -> tuple[float, float]:
    """Compare two runs of the same job, sample by sample.

    Returns:
        Share of samples whose outputs are the same bytes, and the largest absolute difference of any value
        (NaN where one of the two is not finite).
    """
    same: list[bool] = []
    largest = 0.0
    for found, expected in zip(result.outputs, native.outputs, strict=True):
        equal = [
            [left.tobytes() == right.tobytes() for left, right in zip(found[name], value, strict=True)]
            for name, value in expected.items()
        ]
        same += [all(outputs) for outputs in zip(*equal, strict=True)]
        for name, value in expected.items():
            if value.size and np.issubdtype(value.dtype, np.number):
                apart = np.abs(found[name].astype(np.float64) - value.astype(np.float64)).max()
                largest = float(np.maximum(largest, apart))  # np.maximum keeps NaN
    return (float(np.mean(same)) if same else 1.0), largest


def _finite(result: Result) -> Check:
    count = sum(
        int(np.count_nonzero(~np.isfinite(value)))
        for outputs in result.outputs
        for value in outputs.values()
        if np.issubdtype(value.dtype, np.floating)
    )
    why = "the float model gave finite values, so one here is a kernel that is wrong"
    return Check("nonfinite", "NaN or infinite values", count, "", "<=", 0, why)


def _deterministic(result: Result, job: Job) -> Check:
    why = "the same inputs have to give the same bytes, or no other figure can be trusted"
    title = f"Same bytes in {job.repeats} runs"
    return Check("deterministic", title, float(result.deterministic), "", ">=", 1, why)


def _latency(result: Result, job: Job) -> tuple[LatencyPoint, ...]:
    return tuple(
        latency_point(times.point, np.array(times.float_ms), np.array(times.shipped_ms), job.threads)
        for times in result.times
        if times.float_ms
    )
