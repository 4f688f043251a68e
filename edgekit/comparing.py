"""Packages -> Comparison: what each is, what it costs, what it keeps, and which are worth having.

The public verb `edgekit.compare` lives here; a module of that name would take its place on the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import InputError, MachineError, ModelError, RecipeError
from edgekit.golden import Golden
from edgekit.machine import read_machine, why_not_measured
from edgekit.package.manifest import Package, open_package
from edgekit.package_facts import ReadPackage, read_packages
from edgekit.record import Progress, silent
from edgekit.report.compare import ComparedPackage, Comparison, quality_axis, with_dominance
from edgekit.report.wording import no_speed, number
from edgekit.validate.candidates import Speed
from edgekit.validate.footprint import session_memory_bytes
from edgekit.validate.side_by_side import Contestant, time_side_by_side

RUNS = 60
_BASELINE = "the baseline"


def compare(
    packages: Sequence[Path],
    *,
    measure: bool = False,
    baseline: Path | None = None,
    runs: int | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Put packages side by side.

    Args:
        packages: Their folders.
        measure: Time all that can run here in turns, in one process; otherwise their reports are read.
        baseline: With `measure`, the package or ONNX file that speed-ups are relative to; None takes the
            first package that can run here.
        runs: With `measure`, timed runs of each at each shape; None takes 60.
        threads: With `measure`, intra-op threads; None takes the target's.
        progress: Told of each package.

    Raises:
        InputError: There is no package, one twice, or they are for different tasks.
        PackageError: A folder is no package, or was changed.
        RecipeError: A choice of the measurement makes no sense.
        ModelError: The baseline cannot be run, or a graph fails at a shape.
        MachineError: Nothing can be measured here.
    """
    _refuse_choices(measure, baseline, runs, threads)
    found = read_packages([Path(path) for path in packages], progress)
    task = found[0].package.manifest["model"].get("task", "")
    notes = _reference_notes(found)
    if measure:
        progress("measure", f"{len(found)} packages in turns", None)
        rows, basis = _measured(found, baseline, runs or RUNS, threads)
        speeds_compare = True
    else:
        rows, basis, why = _reported(found)
        speeds_compare = not why
        notes += [why] if why else []
    axis = quality_axis(rows)
    ranked = with_dominance(rows, axis, speeds_compare=speeds_compare)
    notes += _target_notes(ranked)
    return Comparison(str(task), ranked, axis, measure, basis, speeds_compare, tuple(notes))


def _refuse_choices(measure: bool, baseline: Path | None, runs: int | None, threads: int | None) -> None:
    for flag, value in (("--runs", runs), ("--threads", threads)):
        if value is not None and value < 1:
            raise RecipeError(f"{flag} {value}: at least one is needed")
    for flag, given in (("--baseline", baseline), ("--runs", runs), ("--threads", threads)):
        if given is not None and not measure:
            raise RecipeError(f"{flag} {given}: nothing is measured", "Add --measure.")


def _reference_notes(found: Sequence[ReadPackage]) -> list[str]:
    """Return what to say where quality was not measured against the same outputs."""
    others = [read.row.label for read in found if read.row.reference != 0]
    if not others:
        return []
    return [
        f"Quality of {', '.join(others)} was measured on other samples, or against another model, than that"
        f" of {found[0].row.label}, so it is not ranked against it."
    ]


def _target_notes(rows: Sequence[ComparedPackage]) -> list[str]:
    """Return what to say of packages that are beaten here and made for CPUs that are elsewhere."""
    targets = {row.label: row.target for row in rows}
    elsewhere = [row.label for row in rows if any(targets[label] != row.target for label in row.dominated_by)]
    if not elsewhere:
        return []
    return [
        f"{', '.join(elsewhere)}: dominated, where both were measured, by a package that is for other CPUs."
    ]


def _reported(found: Sequence[ReadPackage]) -> tuple[list[ComparedPackage], str, str]:
    """Return rows with the speed-ups of the reports, what these are, and why they do not compare, if so."""
    rows, timed = [], []
    for read in found:
        if read.report is None:
            rows.append(replace(read.row, speed_note="not recorded: the package has no report"))
            continue
        verdict = read.report["verdict"]
        speeds = tuple(
            Speed(str(p["shape"]), *(number(p.get(key)) or 0.0 for key in _POINT)) for p in verdict["latency"]
        )
        memory = number(verdict["quantized_size"].get("peak_memory_bytes"))
        rows.append(
            replace(
                read.row,
                speeds=speeds,
                overall=_mean(speeds),
                speed_note="" if speeds else no_speed(read.report),
                peak_memory_bytes=None if memory is None else int(memory),
            )
        )
        if speeds:
            timed.append(read)
    basis = (
        "Speed-ups are those of the packages' own reports: each over the float graph of its original model,"
        " measured when it was made. With --measure all are timed in turns against one baseline."
    )
    return rows, basis, _why_apart(timed)


_POINT = ("quantized_p50_ms", "speedup", "speedup_low", "speedup_high")


def _why_apart(timed: Sequence[ReadPackage]) -> str:
    """Return why reported speed-ups are not on one scale, or an empty string if they are."""

    def of(read: ReadPackage, what: str) -> Any:
        report = read.report or {}
        if what == "float graphs":
            return report["verdict"]["float_size"].get("file_bytes")
        if what == "machines":
            return report["machine"].get("cpu")
        if what == "versions of ONNX Runtime":
            return report["versions"].get("onnxruntime")
        return [(p.get("shape"), p.get("threads")) for p in report["verdict"]["latency"]]

    asked = ("float graphs", "machines", "versions of ONNX Runtime", "shapes or threads")
    apart = [what for what in asked if any(of(read, what) != of(timed[0], what) for read in timed)]
    if not apart:
        return ""
    return (
        f"The reported speed-ups are of different {' and '.join(apart)}, so they are not ranked;"
        " --measure puts them on one scale."
    )


def _mean(speeds: Sequence[Speed]) -> tuple[float, float, float] | None:
    """Return the geometric mean of speed-ups and of the ends of their intervals, which is a wide one."""
    values = [(speed.speedup, speed.speedup_low, speed.speedup_high) for speed in speeds]
    if not values or min(map(min, values)) <= 0:
        return None
    value, low, high = np.exp(np.mean(np.log(values), axis=0))
    return float(value), float(low), float(high)


def _measured(
    found: Sequence[ReadPackage], baseline: Path | None, runs: int, threads: int | None
) -> tuple[list[ComparedPackage], str]:
    """Return rows with times taken here and now, and what speed-ups are relative to."""
    machine = read_machine()
    refused = {
        read.row.label: why
        for read in found
        if (why := why_not_measured(machine, read.package.profile.hardware)) is not None
    }
    able = [read for read in found if read.row.label not in refused]
    if not able:
        told = "; ".join(f"{label}: {why}" for label, why in refused.items())
        raise MachineError(
            f"--measure: none of the packages can be timed here ({told})",
            "Leave --measure out to compare their reports.",
        )
    runtime = able[0].package.profile.runtime
    count = threads or runtime.threads
    base, extra, base_said = _baseline(baseline, able, refused)
    contestants = [_contestant(read.row.label, read.package, read.golden) for read in able]
    timings, failed = time_side_by_side([*extra, *contestants], runtime.points, runs=runs, threads=count)
    if baseline is None and base in failed:
        base = next((read.row.label for read in able if read.row.label not in failed), base)
        base_said = base
    if base in failed:
        raise ModelError(f"{base_said} cannot be timed: {failed[base]}", "Choose another --baseline.")
    refused |= failed
    rows = []
    for read in found:
        label, package = read.row.label, read.package
        if label in refused:
            rows.append(replace(read.row, speed_note=f"not measured here: {refused[label]}"))
            continue
        options = package.profile.runtime.session_options
        memory = session_memory_bytes(package.model, package.golden, threads=count, session_options=options)
        rows.append(
            replace(
                read.row,
                speeds=timings.speeds(label, base),
                overall=timings.overall(label, base),
                peak_memory_bytes=memory,
            )
        )
    plural = "s" if count > 1 else ""
    turns = len(next(iter(next(iter(timings.ms.values())).values())))
    return rows, (
        f"Speed-ups are relative to {base_said}; all were timed in turns in one process on {machine.cpu},"
        f" {count} thread{plural}, {turns} runs each at each shape, with 95 % intervals."
    )


def _contestant(name: str, package: Package, golden: Golden) -> Contestant:
    options = package.profile.runtime.session_options
    return Contestant(name, package.model, golden, package.max_length, options)


def _baseline(
    path: Path | None, able: Sequence[ReadPackage], refused: Mapping[str, str]
) -> tuple[str, list[Contestant], str]:
    """Return the name of the baseline, what has to be timed beside the packages for it, and what to call it.

    Raises:
        PackageError: It is a folder, but not a package.
        InputError: It is for another task.
        ModelError: It is not there, or cannot be timed here.
    """
    if path is None:
        return able[0].row.label, [], able[0].row.label
    for read in able:
        if read.package.path.resolve() == path.resolve():
            return read.row.label, [], read.row.label
    first = able[0]
    if path.is_file():
        golden, longest = first.golden, first.package.max_length
        return _BASELINE, [Contestant(_BASELINE, path, golden, longest)], str(path)
    if not path.exists():
        raise ModelError(f"baseline not found: {path}", "Give a package or an ONNX file to --baseline.")
    package = open_package(path)
    task, wanted = (str(p.manifest["model"].get("task", "")) for p in (package, first.package))
    if task != wanted:
        raise InputError(f"the baseline {path} is for {task}, and the packages are for {wanted}")
    why = why_not_measured(read_machine(), package.profile.hardware)
    if why is not None:
        raise ModelError(f"the baseline {path} cannot be timed here: {why}", "Choose another --baseline.")
    return _BASELINE, [_contestant(_BASELINE, package, Golden.load(package.golden))], str(path)
