"""How a student learned: losses and held-out quality over the samples that it saw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.report import wording
from edgekit.report.svg import BAD, GOOD, GRID, INK, MUTED, PLAIN, WIDTH, digits, drawing, line, text_at

_LEFT, _RIGHT, _TOP, _HEIGHT = 54, 12, 14, 150
_STYLES = ((GOOD, ""), (BAD, "6 3"), (INK, "2 2"), (PLAIN, "8 2 2 2"), (MUTED, "1 3"))
_TICKS = 4
_MEASURES = 3
_TOO_LARGE = 1e100  # no loss; NaN is not below it either


@dataclass(frozen=True)
class Line:
    """One line of a chart: its name, and where it goes, ascending in x."""

    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Learning:
    """What a report says of a training.

    Attributes:
        did: In a sentence.
        charts: (caption, SVG).
    """

    did: str
    charts: tuple[tuple[str, str], ...]


def learning(history: Sequence[Mapping[str, Any]]) -> Learning | None:
    """Return how the last training in float went, or a finish with codes alone; None where neither was done.

    Args:
        history: Records in JSON form.
    """
    trainings, finishes = (
        [r for r in history if (r.get("stage"), r.get("step")) == ("distill", step)]
        for step in ("distillation", "finish")
    )
    records = trainings or finishes
    if not records:
        return None
    facts = records[-1]["facts"]
    curve, best = facts["curve"], facts["best_step"]
    seen = next(point["samples"] for point in curve if point["step"] == best)
    losses = sorted({name for point in curve for name in point["losses"]})
    measures = [name for name in curve[0]["quality"] if name != "closeness"][:_MEASURES]
    charts = (
        (
            "Losses, weighted, mean since the point before; logarithmic",
            curves("Losses", "The losses over the samples seen.", _lines(curve, "losses", losses), logs=True),
        ),
        (
            "Quality on samples held out from those it learned from",
            curves(
                "Quality", "Quality over the samples seen.", _lines(curve, "quality", measures), mark=seen
            ),
        ),
    )
    told = (*records[-1:], *(finishes[-1:] if trainings else ()))
    return Learning(" ".join(str(record["did"]) for record in told), charts)


def _lines(curve: Sequence[Mapping[str, Any]], key: str, names: Sequence[str]) -> list[Line]:
    return [
        Line(
            wording.SHORT.get(name, name.replace("_", " ")),
            tuple((float(p["samples"]), float(p[key][name])) for p in curve if name in p[key]),
        )
        for name in names
    ]


def curves(
    title: str, description: str, lines: Sequence[Line], *, logs: bool = False, mark: float | None = None
) -> str:
    """Return lines over a common axis of samples, told apart by colour, dashes and a legend.

    Args:
        title: What a screen reader says first.
        description: What the chart shows, in a sentence.
        lines: At most five; values that cannot be drawn are left out.
        logs: Equal ratios are equally far apart; values of 0 and below are left out.
        mark: Where to draw an upright line: the checkpoint that was kept.
    """
    usable = [
        Line(one.label, tuple(p for p in one.points if abs(p[1]) < _TOO_LARGE and (p[1] > 0 or not logs)))
        for one in lines[: len(_STYLES)]
    ]
    usable = [one for one in usable if one.points]
    on_axis = math.log if logs else float
    values = [on_axis(y) for one in usable for _, y in one.points]
    if not values:
        return drawing(title, description, 40, [text_at(_LEFT, 24, "nothing to show", colour=BAD)])
    low, high = min(values), max(values)
    if high - low <= 1e-6 * max(abs(low), 1e-6):
        margin = abs(low) / 100 or 0.5
        low, high = low - margin, high + margin
    most = max(x for one in usable for x, _ in one.points) or 1.0
    bottom, right = _TOP + _HEIGHT, WIDTH - _RIGHT

    def across(x: float) -> float:
        return _LEFT + (right - _LEFT) * x / most

    def up(at: float) -> float:
        return bottom - _HEIGHT * (at - low) / (high - low)

    parts: list[str] = []
    for index in range(_TICKS + 1):
        at = low + (high - low) * index / _TICKS
        value = math.exp(at) if logs else at
        parts.append(line(_LEFT, up(at), right, up(at), GRID))
        parts.append(text_at(_LEFT - 6, up(at) + 4, f"{value:.3g}", anchor="end", colour=MUTED, size=11))
    for index in range(_TICKS + 1):
        x = most * index / _TICKS
        anchor = "start" if index == 0 else "end" if index == _TICKS else "middle"
        parts.append(text_at(across(x), bottom + 16, _count(x), anchor=anchor, colour=MUTED, size=11))
    parts.append(text_at(right, bottom + 31, "samples seen", anchor="end", colour=MUTED, size=11))
    if mark is not None:
        parts.append(line(across(mark), _TOP, across(mark), bottom, INK, 1, dash="3 3"))
        side = "end" if mark > most / 2 else "start"
        offset = -4 if side == "end" else 4
        parts.append(text_at(across(mark) + offset, bottom - 5, "kept", anchor=side, size=11, halo=True))
    for one, (colour, dash) in zip(usable, _STYLES, strict=False):
        drawn = " ".join(f"{digits(across(x))},{digits(up(on_axis(y)))}" for x, y in one.points)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
    for row, (one, (colour, dash)) in enumerate(zip(usable, _STYLES, strict=False)):
        y = bottom + 31 + 17 * row
        parts.append(line(_LEFT, y - 4, _LEFT + 26, y - 4, colour, 2, dash=dash))
        parts.append(text_at(_LEFT + 32, y, f"{one.label}: {one.points[-1][1]:.4g} at the end", size=11.5))
    return drawing(title, description, bottom + 40 + 17 * len(usable), parts)


def _count(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    return f"{value / 1e3:.3g} k" if value >= 1e3 else f"{value:.0f}"
