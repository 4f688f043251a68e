"""A package on the runners that stand for its target, and on those that a request names.

A target's own runners are run where they are installed; one that is not is a row that says so, and the level
of the verdict is what was really proved. A runner that a request names has to be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.golden import Golden
from edgekit.machine import read_machine, why_not_measured
from edgekit.profile import TargetProfile
from edgekit.record import Execution, Level, Progress, Verdict, silent
from edgekit.runners.table import TARGET, runner_named, runners_named, with_native, without_target
from edgekit.validate.matrix import MatrixOptions, level_of, run_matrix


def verified(
    verdict: Verdict,
    model: Path,
    golden: Path,
    profile: TargetProfile,
    options: MatrixOptions,
    *,
    asked: Sequence[str] = (),
    targets_own: bool = True,
    float_path: Path | None = None,
    progress: Progress = silent,
) -> Verdict:
    """Return a verdict with what the runners found, and the level that was proved.

    Args:
        verdict: What was measured on this machine.
        model: The shipped graph.
        golden: The golden's file.
        profile: The target.
        options: How to run the matrix.
        asked: Runners of the request; `all`, or `target` for the target's own.
        targets_own: Also run the target's own runners, as far as they are ready.
        float_path: The float graph to measure against; None measures the shipped one alone.
        progress: Told of each runner.

    Raises:
        RunnerMissingError: A runner that was asked for is unknown or not ready.
    """
    own = profile.verify.on if targets_own or TARGET in asked else ()
    states = {name: runner_named(name).state() for name in own}
    missing = tuple(
        Execution(name, "unverified", "missing", ": ".join(filter(None, (state.missing, state.hint))))
        for name, state in states.items()
        if not state.ready
    )
    ready = tuple(name for name, state in states.items() if state.ready)
    runners = runners_named((*ready, *without_target(asked)), profile)
    rows: tuple[Execution, ...] = ()
    if runners:
        rows = run_matrix(
            model,
            Golden.load(golden),
            profile,
            with_native(runners),
            options,
            float_path=float_path,
            progress=progress,
        )
    return replace(verdict, executions=(*rows, *missing), level=proved_level(profile, verdict, rows))


def proved_level(profile: TargetProfile, verdict: Verdict, rows: Sequence[Execution]) -> Level:
    """Return what is proved about a target: on this CPU where it is one of the target's, else by its runners.

    Args:
        profile: The target.
        verdict: What was measured on this machine.
        rows: What the runners found.
    """
    here: Level = "unverified"
    if why_not_measured(read_machine(), profile.hardware) is None:
        here = "native" if all(check.passed for check in verdict.checks) else "unverified"
    own = [row for row in rows if row.runner in profile.verify.on or row.level == "board"]
    best = level_of(own)
    if here == "native":
        return "board" if best == "board" else "native"
    return best if best != "unverified" else "packaged only"
