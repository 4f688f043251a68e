"""The matrix of a package: one row per runner, as cells that the terminal and the page share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.report import wording
from edgekit.report.document import Document
from edgekit.report.wording import Finding, number, say_bytes, say_figure, say_ms, say_times

LEVELS: dict[str, str] = {
    "native": "this CPU",
    "masked": "this CPU with features off",
    "emulated": "an emulated CPU: right or wrong, and instructions, but no times",
    "simulated": "a functional simulation: right or wrong only",
    "board": "the device itself",
    "packaged only": "written, not run",
    "unverified": "not run",
}
"""Level -> what a run there proves."""

_COUNTED = ("sdot", "udot", "smmla", "ummla", "usmmla")
"""Classes of instruction that show int8 kernels, the telling ones first."""


@dataclass(frozen=True)
class MatrixRow:
    """One runner's row as text.

    Attributes:
        runner: Its name.
        level: What a run there proves.
        state: `pass`, `fail`, or `not measured` where the runner is missing.
        outcome: `ran`, or what happened instead, with the reason.
        quality: The task's headline measures, with short names.
        repeatable: Whether repeated runs gave the same bytes.
        native: How far it is from the run on this CPU.
        speed: Speed-ups or medians by shape; counted instructions where a clock means nothing.
        memory: What a session and its runs add.
        runtime: Version of ONNX Runtime, and the CPU it saw.
        misses: Checks that miss their budget, as sentences.
        facts: What else the place told: (name, value).
    """

    runner: str
    level: str
    state: str
    outcome: str
    quality: tuple[tuple[str, Finding], ...]
    repeatable: str
    native: str
    speed: tuple[str, ...]
    memory: str
    runtime: str
    misses: tuple[str, ...]
    facts: tuple[tuple[str, Any], ...]


def matrix_rows(document: Document) -> list[MatrixRow]:
    """Return the rows of a report in JSON form; none where it was run nowhere else."""
    return [_row(entry) for entry in document["verdict"]["executions"]]


def matrix_sentence(document: Document) -> str:
    """Return how many runners found it right, in one sentence; empty where there are none."""
    rows = matrix_rows(document)
    if not rows:
        return ""
    ran = [row for row in rows if row.state != "not measured"]
    wrong = [row.runner for row in ran if row.state == "fail"]
    missing = [row.runner for row in rows if row.state == "not measured"]
    told = []
    if ran:
        right = f"is wrong on {', '.join(wrong)}" if wrong else "is right on every one"
        told.append(f"It was run on {len(ran)} runner{'s' if len(ran) != 1 else ''} and {right}.")
    if missing:
        told.append(
            f"It was not run on {', '.join(missing)}, which stand for this target and are not ready here:"
            " `edgekit runners` says how to get them."
        )
    return " ".join(told)


def _row(entry: Mapping[str, Any]) -> MatrixRow:
    checks = {check["name"]: check for check in entry["checks"]}
    alike = {"verdict": {"checks": entry["checks"]}}
    names = {check["title"]: str(check["name"]) for check in entry["checks"]}
    repeat = checks.get("deterministic")
    return MatrixRow(
        runner=str(entry["runner"]),
        level=str(entry["level"]),
        state="not measured" if entry["outcome"] == "missing" else "pass" if entry["passed"] else "fail",
        outcome=f"{entry['outcome']}: {entry['why']}" if entry["why"] else str(entry["outcome"]),
        quality=tuple(
            (wording.SHORT.get(names[finding.label], names[finding.label]), finding)
            for finding in wording.quality(alike)
        ),
        repeatable="–" if repeat is None else "yes" if repeat["state"] == "pass" else "no",
        native=_native(entry),
        speed=_speed(entry),
        memory=say_bytes(entry["peak_memory_bytes"]),
        runtime=str(entry["runtime_version"] or "–"),
        misses=tuple(
            f"{check['title']} is {wording.say_check(check)[0]}, required {wording.say_check(check)[1]}"
            for check in entry["checks"]
            if check["state"] == "fail"
        ),
        facts=tuple(entry["facts"].items()),
    )


def _native(entry: Mapping[str, Any]) -> str:
    same, apart = number(entry["same_as_native"]), number(entry["largest_difference"])
    if same is None or entry["runner"] == "native":
        return "–"
    if same == 1:
        return "identical"
    return f"{same:.0%} identical, ≤ {say_figure(apart, digits=2)}"


def _speed(entry: Mapping[str, Any]) -> tuple[str, ...]:
    if entry["latency"]:
        return tuple(
            f"{point['shape']} {say_times(point['speedup'])}, {say_ms(point['quantized_p50_ms'])} ms"
            for point in entry["latency"]
        )
    if entry["p50_ms"]:
        return tuple(f"{shape} {say_ms(ms)} ms" for shape, ms in entry["p50_ms"].items())
    return tuple(_counted(shape, counts) for shape, counts in entry["counts"].items())


def _counted(shape: str, counts: Mapping[str, Mapping[str, int]]) -> str:
    shipped, before = counts["shipped"], counts.get("float") or {}
    text = f"{shape} {shipped.get('total', 0) / 1e6:.1f} M instructions"
    if before.get("total"):
        text += f" (float {before['total'] / 1e6:.1f} M)"
    dots = [f"{shipped[name] / 1e6:.1f} M {name}" for name in _COUNTED if shipped.get(name)]
    return f"{text}, {', '.join(dots)}" if dots else text


def headline_levels(rows: Sequence[MatrixRow]) -> list[tuple[str, str]]:
    """Return each level that occurs with what it proves, in the order of the rows."""
    return [(level, LEVELS.get(level, "")) for level in dict.fromkeys(row.level for row in rows)]
