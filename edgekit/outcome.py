"""What an export leaves: a package per target, and the reports over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.compressing import settled_recipe
from edgekit.errors import GateError
from edgekit.float_graph import Job
from edgekit.machine import read_machine, versions
from edgekit.package import Contents, Package, seal, write_package
from edgekit.preflight import failed_folder, profile_sha256
from edgekit.profile import Ship
from edgekit.record import StepRecord
from edgekit.report.document import TargetReport
from edgekit.report.html import render_html
from edgekit.report.terminal import failures
from edgekit.store import dump_json, write_text, writing_folder
from edgekit.target_run import TargetRun

_SHIP: dict[str, Ship] = {
    "float-rewritten": "float",
    "dynamic": "dynamic",
    "static": "static",
    "mixed": "static",
}
"""Form in a package -> what its recipe asks for, so that making it again measures nothing anew."""


@dataclass(frozen=True)
class ExportResult:
    """What an export made.

    Attributes:
        output: The folder that was asked for.
        packages: One per target, in the order of the recipe.
        reports: One per target.
        report_path: The HTML report over all targets.
    """

    output: Path
    packages: tuple[Package, ...]
    reports: tuple[TargetReport, ...]
    report_path: Path


def make_report(job: Job, run: TargetRun, packaged: Sequence[StepRecord] = ()) -> TargetReport:
    """Return the report of one target.

    Args:
        job: The export.
        run: What came out for the target.
        packaged: What packaging did, where it is done.
    """
    history = (*run.model.history, *packaged)
    ranges = [dict(record.facts) for record in history if record.step == "audit"]
    data: dict[str, object] = {purpose: audit.to_json() for purpose, audit in job.data.audits.items()}
    return TargetReport(
        model_name=job.model.name,
        task=job.model.task,
        source_sha256=job.model.source_sha256,
        profile=run.profile,
        signature=run.model.only.signature,
        machine=read_machine(),
        versions=versions(),
        verdict=run.verdict,
        history=history,
        command=f"edgekit export --recipe {run.profile.name}/recipe.toml -o OUTPUT",
        data=data | ({"ranges": ranges[-1]} if ranges else {}),
        explanation=run.explanation,
        candidates=run.candidates,
    )


def stop_on_failure(job: Job, runs: Sequence[TargetRun], output: Path) -> None:
    """Keep the reports in `<output>.failed/` and stop where a target's gate failed.

    Raises:
        GateError: One did.
    """
    failed = [run.verdict for run in runs if not run.verdict.passed]
    if not failed:
        return
    folder = failed_folder(output)
    with writing_folder(folder, force=True) as aside:
        write_reports(aside, [make_report(job, run) for run in runs])
    raise GateError(
        "a gate failed, so no package was written:\n" + "\n".join(map(failures, failed)),
        f"See {folder / 'report.html'}. More calibration data, --exclude, or --gate NAME=VALUE may help.",
    )


def write_target(folder: Path, job: Job, run: TargetRun) -> tuple[Package, TargetReport]:
    """Write the package of one target, named after it, into a folder; return it with its report."""
    target = folder / run.profile.name
    target.mkdir()
    contents = _contents(job, run)
    package, packaged = write_package(target, run.model, run.start.golden, run.profile, run.verdict, contents)
    report = make_report(job, run, packaged)
    return seal(package, report.to_json()), report


def write_reports(folder: Path, reports: Sequence[TargetReport]) -> None:
    """Write report.json and report.html over all targets into a folder."""
    documents = [report.to_json() for report in reports]
    write_text(folder / "report.json", dump_json({"schema_version": 1, "targets": documents}))
    write_text(folder / "report.html", render_html(documents))


def _contents(job: Job, run: TargetRun) -> Contents:
    """Return what goes beside the graph; the recipe in it names this target alone."""
    pinned = job.recipe.pinned.model_copy(update={"profile_sha256": profile_sha256(run.profile)})
    return Contents(
        name=job.model.name,
        task=job.model.task,
        source_sha256=job.model.source_sha256,
        preprocessing=run.start.preprocessor.to_json(),
        files=job.model.files,
        config=job.model.config,
        recipe=settled_recipe(job.recipe, run.model.history).model_copy(
            update={"targets": (run.target,), "ship": _SHIP.get(run.shipped), "pinned": pinned}
        ),
        versions=versions(),
    )
