"""One package on many runners -> one row each: ran, finite, right, repeatable, how far from here, how fast.

What counts is the task's own measure against the golden, on each runner by itself. Bit equality with this
machine is shown, not asked for: an int8 graph turns the last digit of a float sum into a whole step, so two
right runs may differ (measured: moving LayerNorm's constants by 1e-6 moves int8 outputs by up to 0.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgekit.errors import EdgekitError, RunnerFailedError, RunnerMissingError
from edgekit.golden import Golden, GoldenBatch
from edgekit.profile import TargetProfile
from edgekit.record import Check, Clock, Execution, LatencyPoint, Level, Progress, silent
from edgekit.runners import Job, Measure, Result, Runner
from edgekit.runners.base import Arrays
from edgekit.runtime import usable_cores
from edgekit.tasks import task_named
from edgekit.validate.latency import WARM_UP_RUNS, inputs_at_points, latency_point
from edgekit.validate.witness import exact_sums_check, witness

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

_NO_CLOCK: tuple[Level, ...] = ("emulated", "simulated")
_REPEATS = 3
_POINTS, _EMULATED_POINTS = 2, 1
"""Input shapes that are timed, or counted under emulation; the first of a profile are the short ones."""


@dataclass(frozen=True)
class MatrixOptions:
    """How to run a matrix.

    Attributes:
        samples: Of the golden's samples, how many are run at most.
        emulated_samples: How many of those where a core is emulated or simulated, the smallest inputs first:
            one takes as long there as a hundred on this CPU.
        runs: Timed runs of each model at each point; 0 times and counts nothing.
        seconds_per_point: Where a point takes longer than this, it ends after the tenth run.
        timeout_s: Seconds after which a runner counts as hung.
        memory_limit_bytes: Address space per run; None sets no limit.
        gates: Thresholds by check name that come before the profile's and the task's.
        max_length: Longest token sequence that the model takes; None where it takes no text.
    """

    samples: int = 64
    emulated_samples: int = 16
    runs: int = 20
    seconds_per_point: float = 2.0
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
    budgets = {**profile.policy.gates, **options.gates}

    def judge(some: Golden, points: int) -> _Judge:
        job = make_job(model, some, profile, options, points=points, float_path=float_path)
        return _Judge(some, profile, budgets, job)

    golden = replace(golden, batches=_together(golden.batches, options.samples))
    smallest = sorted(golden.batches, key=lambda batch: sum(v.size for v in batch.inputs.values()))
    light = replace(golden, batches=_together(smallest, options.emulated_samples))
    fast, slow = judge(golden, _POINTS), judge(light, _EMULATED_POINTS)

    def run(runner: Runner) -> Execution:
        progress("validate", f"on {runner.name}", None)
        clock = Clock()
        with_clock = runner.level not in _NO_CLOCK
        row = fast.row(runner) if with_clock else replace(slow, native=fast.native_of(light)).row(runner)
        return replace(row, seconds=clock.seconds)

    # One after the other where a clock runs; what has no clock that counts shares the cores.
    by_clock = sorted(runners, key=lambda runner: runner.name != "native")
    timed = [runner for runner in by_clock if runner.level not in _NO_CLOCK]
    rows = {runner.name: run(runner) for runner in timed}
    untimed = [runner for runner in by_clock if runner.level in _NO_CLOCK]
    with ThreadPoolExecutor(usable_cores()) as pool:
        rows |= dict(zip((runner.name for runner in untimed), pool.map(run, untimed), strict=True))
    return tuple(rows[runner.name] for runner in runners)


def make_job(
    model: Path,
    golden: Golden,
    profile: TargetProfile,
    options: MatrixOptions,
    *,
    points: int,
    float_path: Path | None,
) -> Job:
    """Return the question that a runner is asked, with so many of the profile's points to measure."""
    measure = None
    if options.runs:
        sequence = options.max_length is not None or "attention_mask" in golden.batches[0].inputs
        inputs = inputs_at_points(
            golden, profile.runtime.points, sequence=sequence, max_length=options.max_length
        )
        measure = Measure(
            float_path,
            dict(list(inputs.items())[:points]),
            warm_up=WARM_UP_RUNS,
            runs=options.runs,
            seconds_per_point=options.seconds_per_point,
        )
    batches = tuple(batch.inputs for batch in golden.batches)
    return Job(
        model=model,
        batches=batches + batches[:1] * (_REPEATS - 1),
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


@dataclass
class _Judge:
    """Turns what a runner says into its row; keeps the native run, which the others are compared with.

    On x86 the int8 sums are asked for themselves, since kernels there may cut them and no measure shows it.
    There a wrong sum is a fault, whatever the target: the file was run on this CPU.
    """

    golden: Golden
    profile: TargetProfile
    budgets: Mapping[str, float]
    job: Job
    native: Result | None = None

    def native_of(self, some: Golden) -> Result | None:
        """Return the native run, of some of the batches."""
        if self.native is None:
            return None
        places = {id(batch): place for place, batch in enumerate(self.golden.batches)}
        outputs = tuple(self.native.outputs[places[id(batch)]] for batch in some.batches)
        return replace(self.native, outputs=outputs)

    def row(self, runner: Runner) -> Execution:
        """Run the job on a runner; whatever goes wrong there is the row's outcome."""
        try:
            result = runner.run(self.job)
            if runner.name == "native":
                self.native = result
            return self._compared(runner, result)
        except RunnerFailedError as error:
            return Execution(runner.name, runner.level, error.outcome, error.why)
        except RunnerMissingError as error:
            return Execution(runner.name, "unverified", "missing", str(error))
        except EdgekitError as error:  # outputs that cannot be compared, e.g. of another shape
            return Execution(runner.name, runner.level, "failed", error.message)

    def _compared(self, runner: Runner, result: Result) -> Execution:
        count = len(self.golden.batches)
        outputs, again = result.outputs[:count], result.outputs[count:]
        checks = [_finite(outputs), _deterministic(result.deterministic and _repeated(outputs[0], again))]
        if checks[0].passed:  # no measure says anything about NaN
            comparison = task_named(self.golden.task).compare(self.golden, outputs)
            checks += [check.with_budget(self.budgets) for check in comparison.checks]
        here = self.native.outputs[:count] if self.native is not None else None
        if "x86" in runner.name or runner.name == "native":
            sums = exact_sums_check(witness(self.job.model, runner), self.profile)
            checks.append(replace(sums, budget=0.0))
        same, largest = difference(outputs, here) if here is not None else (None, None)
        return Execution(
            runner=runner.name,
            level=runner.level,
            outcome="ran",
            checks=tuple(checks),
            same_as_native=same,
            largest_difference=largest,
            latency=_latency(result, self.job),
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


def difference(outputs: Sequence[Arrays], native: Sequence[Arrays]) -> tuple[float, float]:
    """Compare the outputs of two runs of the same batches, sample by sample.

    Returns:
        Share of samples whose outputs are the same bytes, and the largest absolute difference of any value
        (NaN where one of the two is not finite).
    """
    same: list[bool] = []
    largest = 0.0
    for found, expected in zip(outputs, native, strict=True):
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


def _together(batches: Sequence[GoldenBatch], samples: int) -> tuple[GoldenBatch, ...]:
    """Return the first batches that together have at most so many samples, at least one batch."""
    kept: list[GoldenBatch] = []
    count = 0
    for batch in batches:
        if kept and count + batch.size > samples:
            break
        kept.append(batch)
        count += batch.size
    return tuple(kept)


def _finite(outputs: Sequence[Arrays]) -> Check:
    count = sum(
        int(np.count_nonzero(~np.isfinite(value)))
        for batch in outputs
        for value in batch.values()
        if np.issubdtype(value.dtype, np.floating)
    )
    why = "the float model gave finite values, so one here is a kernel that is wrong"
    return Check("nonfinite", "NaN or infinite values", count, "", "<=", 0, why)


def _repeated(first: Arrays, again: Sequence[Arrays]) -> bool:
    return all(other[name].tobytes() == value.tobytes() for other in again for name, value in first.items())


def _deterministic(same: bool) -> Check:
    why = "the same inputs have to give the same bytes, or no other figure can be trusted"
    return Check("deterministic", f"Same bytes in {_REPEATS} runs", float(same), "", ">=", 1, why)


def _latency(result: Result, job: Job) -> tuple[LatencyPoint, ...]:
    return tuple(
        latency_point(times.point, np.array(times.float_ms), np.array(times.shipped_ms), job.threads)
        for times in result.times
        if times.float_ms
    )
