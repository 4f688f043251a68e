"""Packages -> what a comparison says of each before speed: read from manifests, reports, graphs, goldens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import InputError, PackageError
from edgekit.golden import Golden
from edgekit.package.manifest import NAME, Package, open_package
from edgekit.record import Check, Progress
from edgekit.report.compare import ComparedPackage
from edgekit.report.document import load_reports
from edgekit.report.wording import HEADLINE_CHECKS, number
from edgekit.validate.inspection import inspect_file

_FURTHER = ("accuracy_quantized", "rank_correlation", "perplexity_ratio")
_TRAININGS = (("distill", "distillation"), ("distill", "finish"))
_AGAIN = "Export the model again."


@dataclass(frozen=True)
class ReadPackage:
    """A package, what was reported of it, and its row without speed.

    Attributes:
        package: The open package.
        report: Its report in JSON form; None where there is none.
        golden: Recorded inputs and outputs.
        row: What a comparison says of it.
    """

    package: Package
    report: Mapping[str, Any] | None
    golden: Golden
    row: ComparedPackage


def read_packages(paths: Sequence[Path], progress: Progress) -> list[ReadPackage]:
    """Return packages with what is known of them.

    Raises:
        InputError: There is none, one is there twice, or they are for different tasks.
        PackageError: A folder is no package, or was changed.
    """
    if not paths:
        raise InputError("there is no package to compare", "Give the folders of packages.")
    opened: list[Package] = []
    for path in paths:
        package = open_package(path)
        for other in opened:
            if other.path.resolve() == path.resolve():
                raise InputError(f"{path} is given twice", "Give each package once.")
            if other.manifest == package.manifest:
                raise InputError(f"{other.path} and {path} are copies of one package", "Give one of them.")
        opened.append(package)
    tasks = {str(package.manifest["model"].get("task", "")): package.path for package in opened}
    if len(tasks) > 1:
        told = ", ".join(f"{path} is for {task or 'no task'}" for task, path in tasks.items())
        raise InputError(f"the packages are for different tasks: {told}", "Compare those of one task.")
    found: list[ReadPackage] = []
    references: list[tuple[int, np.ndarray]] = []
    for package, label in zip(opened, short_labels(paths), strict=True):
        progress("read", label, len(found) / len(opened))
        found.append(_read(package, label, references))
    return found


def short_labels(paths: Sequence[Path]) -> list[str]:
    """Return as little of the end of each path as tells it from the others, without an end that all share."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        ends = [part[-count:] for part in parts]
        if len(set(ends)) < len(ends):
            continue
        while len(ends) > 1 and len({end[-1] for end in ends}) == 1:
            ends = [end[:-1] for end in ends]
        return ["/".join(end) for end in ends]
    return [str(path) for path in paths]


def _read(package: Package, label: str, references: list[tuple[int, np.ndarray]]) -> ReadPackage:
    """Return a package with its row; `references` grows by the outputs that were not seen before."""
    manifest, report = package.manifest, _report(package)
    golden = Golden.load(package.golden)
    print_of = fingerprint(golden)
    same = (
        n for n, (size, seen) in enumerate(references) if size == len(print_of) and _close(seen, print_of)
    )
    reference = next(same, len(references))
    if reference == len(references):
        references.append((len(print_of), print_of))
    inspection = inspect_file(package.model)
    try:
        history = [dict(record) for record in manifest.get("history", ())]
        steps = tuple(str(record["did"]) for record in history if record["stage"] != "package")
        row = ComparedPackage(
            label=label,
            path=str(package.path),
            model=str(manifest["model"]["name"]),
            target=str(manifest["target"]),
            techniques=tuple(
                str(r["step"])
                for r in history
                if r["stage"] == "compress" or (r["stage"], r["step"]) in _TRAININGS
            ),
            form=form_of(history),
            steps=steps,
            parameters=inspection.parameters,
            file_bytes=inspection.file_bytes,
            compressed_bytes=inspection.compressed_bytes,
            quality=_quality(report) if report else (),
            reference=reference,
            seconds=_seconds(report) if report else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PackageError(f"{package.path / NAME} makes no sense: its history is damaged", _AGAIN) from None
    return ReadPackage(package, report, golden, row)


def _report(package: Package) -> Mapping[str, Any] | None:
    """Return what was reported of a package: in its folder, or beside it; None where there is nothing."""
    inside = package.path / "report.json"
    if inside.is_file():
        return load_reports(inside)[0]
    beside = package.path.resolve().parent / "report.json"
    if not beside.is_file():
        return None
    of_target = (r for r in load_reports(beside) if r["verdict"]["target"] == package.manifest["target"])
    same = (r for r in of_target if r["model"] == package.manifest["model"])
    return next(same, None)


def form_of(history: Sequence[Mapping[str, Any]]) -> str:
    """Return what a package's graph is, from the records of how it was made: `static int8`, `float`, ..."""
    steps = {str(r["step"]): r for r in history if r["stage"] == "quantize"}
    if "dynamic" in steps:
        return "dynamic int8"
    if "whole-graph" in steps:
        facts = steps["whole-graph"]["facts"]
        return f"whole graph, {facts['activation_type']} x {facts['weight_type']}"
    if "write" not in steps:
        return "float"
    reverted = len(steps.get("mixed", {}).get("facts", {}).get("reverted", ()))
    form = "static int8"
    if reverted:
        form += f" with {reverted} layer{'s' if reverted > 1 else ''} in float"
    tables = steps.get("embeddings", {}).get("facts", {}).get("form", "int8")
    return form if tables == "int8" else f"{form}, {tables} tables"


def _quality(report: Mapping[str, Any]) -> tuple[Check, ...]:
    """Return the task's headline measures and those that tell more, without budgets."""
    checks = {str(check["name"]): check for check in report["verdict"]["checks"]}
    names = next((group for group in HEADLINE_CHECKS if any(name in checks for name in group)), ())
    return tuple(
        Check(
            name,
            str(check.get("title") or name),
            number(check.get("measured")),
            str(check.get("unit") or ""),
            "<=" if check.get("comparison") == "<=" else ">=",
        )
        for name in (*names, *_FURTHER)
        if (check := checks.get(name)) is not None
    )


def _seconds(report: Mapping[str, Any]) -> dict[str, float] | None:
    seconds: dict[str, float] = {}
    for record in report["history"]:
        taken = number(record.get("seconds"))
        if taken is not None:
            stage = str(record["stage"])
            seconds[stage] = seconds.get(stage, 0.0) + taken
    return seconds or None


def fingerprint(golden: Golden) -> np.ndarray:
    """Return one number per sample, sorted: the sum of what the float model gave for it.

    However the samples are ordered and batched, the same ones give the same fingerprint for the same model.
    """
    sums = [
        sum(
            np.sum(value.astype(np.float64).reshape(batch.size, -1), axis=1)
            for value in batch.outputs.values()
        )
        for batch in golden.batches
    ]
    return np.sort(np.concatenate([np.atleast_1d(values) for values in sums]))


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two fingerprints differ by no more than another machine's rounding makes."""
    return bool(np.allclose(one, other, rtol=1e-3, atol=1e-3 * float(np.std(one)) + 1e-9))
