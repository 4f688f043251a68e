"""`Comparison`: packages side by side, and which of them another one makes superfluous."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from edgekit.record import Check
from edgekit.report.wording import HEADLINE_CHECKS

if TYPE_CHECKING:
    from edgekit.validate.candidates import Speed

AXES = ("accuracy_quantized", *(names[0] for names in HEADLINE_CHECKS))
"""Checks that can stand for quality, the most telling first."""


@dataclass(frozen=True)
class ComparedPackage:
    """One package in a comparison.

    Attributes:
        label: Short name, different from every other one's.
        path: Its folder, as it was given.
        model: Name of the model.
        target: Name of the profile.
        techniques: Steps that compressed the model, in their order.
        form: What the file is, e.g. `static int8`.
        steps: What each step before packaging did, one sentence each.
        parameters: Elements of the weights in its graph.
        file_bytes: Size of the graph, external weights included.
        compressed_bytes: Size as deflated archive members.
        quality: The task's measures against the model that it was made from.
        reference: Packages with the same number were measured on the same outputs of the same model.
        speeds: Time and speed-up at each input shape; empty where nothing was measured.
        overall: Geometric mean of the speed-ups with the ends of its interval.
        speed_note: Why there is no speed.
        peak_memory_bytes: What opening a session and one run add.
        seconds: Stage -> seconds that its steps took; None where that was not recorded.
        dominated_by: Labels of packages that are better at something and worse at nothing.
    """

    label: str
    path: str
    model: str
    target: str
    techniques: tuple[str, ...]
    form: str
    steps: tuple[str, ...]
    parameters: int
    file_bytes: int
    compressed_bytes: int
    quality: tuple[Check, ...]
    reference: int = 0
    speeds: tuple[Speed, ...] = ()
    overall: tuple[float, float, float] | None = None
    speed_note: str = ""
    peak_memory_bytes: int | None = None
    seconds: Mapping[str, float] | None = None
    dominated_by: tuple[str, ...] = ()

    @property
    def made_in_seconds(self) -> float | None:
        """Seconds of all steps; None where they were not recorded."""
        return None if self.seconds is None else sum(self.seconds.values())

    def measure(self, name: str) -> Check | None:
        """Return the check of a name if its value is a number, or None."""
        for check in self.quality:
            if check.name == name and check.measured is not None and math.isfinite(check.measured):
                return check
        return None


@dataclass(frozen=True)
class Comparison:
    """Packages side by side.

    Attributes:
        task: What all of them are for.
        rows: In the order they were given.
        axis: Name of the check that stands for quality where packages are ranked; None where none is known.
        measured: Whether speed was measured now, all in turns in one process.
        basis: What the speed-ups are relative to, and how they were measured: a sentence.
        speeds_compare: Whether speed-ups of different packages are on one scale.
        notes: What else to know, sentences.
    """

    task: str
    rows: tuple[ComparedPackage, ...]
    axis: str | None
    measured: bool
    basis: str
    speeds_compare: bool
    notes: tuple[str, ...] = ()

    @property
    def front(self) -> tuple[ComparedPackage, ...]:
        """The packages that no other one dominates."""
        return tuple(row for row in self.rows if not row.dominated_by)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        out = asdict(self)
        for entry, row in zip(out["rows"], self.rows, strict=True):
            entry["made_in_seconds"] = row.made_in_seconds
            for check, measured in zip(entry["quality"], row.quality, strict=True):
                check["state"] = measured.state
        return out


def quality_axis(rows: Sequence[ComparedPackage]) -> str | None:
    """Return the check that most packages have, the most telling of several; None where there is none."""
    counts = Counter(name for row in rows for name in AXES if row.measure(name) is not None)
    return max(AXES, key=lambda name: (counts[name], -AXES.index(name))) if counts else None


def with_dominance(
    rows: Sequence[ComparedPackage], axis: str | None, *, speeds_compare: bool
) -> tuple[ComparedPackage, ...]:
    """Return the packages, each with those that dominate it.

    One dominates another where it is better in size, quality or speed and worse in none. What is shown alike
    counts as equal: sizes of the same three digits, quality of the same four decimals, speeds whose
    intervals overlap. Only packages that could take each other's place are held against each other: both
    have a speed on one scale or both are for the same target, and their quality has the same reference.

    Args:
        rows: The packages.
        axis: Check that stands for quality.
        speeds_compare: Whether speed-ups are on one scale.
    """
    return tuple(
        replace(
            row,
            dominated_by=tuple(
                other.label
                for other in rows
                if other is not row and _dominates(other, row, axis, timed=speeds_compare)
            ),
        )
        for row in rows
    )


def _dominates(one: ComparedPackage, other: ComparedPackage, axis: str | None, *, timed: bool) -> bool:
    timed = timed and one.overall is not None and other.overall is not None
    if not timed and (one.target != other.target or (one.overall is None) != (other.overall is None)):
        return False
    found = [_cmp(float(f"{other.file_bytes:.3g}"), float(f"{one.file_bytes:.3g}"))]
    checks = (one.measure(axis), other.measure(axis)) if axis else (None, None)
    if (checks[0] is None) != (checks[1] is None) or one.reference != other.reference:
        return False
    if checks[0] is not None and checks[1] is not None:
        sign = 1 if checks[0].comparison == ">=" else -1
        found.append(sign * _cmp(*(round(float(check.measured or 0), 4) for check in checks if check)))
    if timed and one.overall and other.overall:
        found.append(int(one.overall[1] > other.overall[2]) - int(one.overall[2] < other.overall[1]))
    return min(found) >= 0 and max(found) > 0


def _cmp(one: float, other: float) -> int:
    return (one > other) - (one < other)
