"""Small charts as SVG text: sizes, speed-up with its interval, and the spread of errors.

Pure functions. Colours are CSS variables with fallbacks, so that a page can switch to dark; they are told
apart by shape or label too. All text that comes from outside is escaped.

Source of the colours: M. Okabe and K. Ito, "Color Universal Design", 2008 (blue and vermilion).
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 420
INK, MUTED, GRID = "var(--ink,#1c2126)", "var(--muted,#5b6670)", "var(--grid,#d5dade)"
GOOD, BAD, PLAIN = "var(--good,#0072b2)", "var(--bad,#d55e00)", "var(--plain,#8a949d)"
_STATE_COLOUR = {"faster": GOOD, "slower": BAD, "cannot tell": PLAIN}


@dataclass(frozen=True)
class Bar:
    """One bar: its label, its length, the text at its end, and whether it is what the chart is about."""

    label: str
    value: float
    text: str
    emphasis: bool = False


@dataclass(frozen=True)
class Interval:
    """A point with its confidence interval, and the verdict `faster`, `slower` or `cannot tell`."""

    label: str
    value: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Mark:
    """A vertical line at a value, with its label."""

    value: float
    label: str
    is_gate: bool = False


def bars(title: str, description: str, rows: Sequence[Bar]) -> str:
    """Return horizontal bars from zero, longest the full width.

    Args:
        title: What a screen reader says first.
        description: What the chart shows, in a sentence.
        rows: Top to bottom.
    """
    left, right, pitch = 148, 70, 26
    longest = max((row.value for row in rows), default=0) or 1
    parts = []
    for index, row in enumerate(rows):
        y = 8 + index * pitch
        length = (WIDTH - left - right) * max(row.value, 0) / longest
        colour = GOOD if row.emphasis else PLAIN
        parts += [
            text_at(left - 8, y + 13, row.label, anchor="end", colour=MUTED),
            f'<rect x="{left}" y="{y}" width="{digits(max(length, 1))}" height="18" rx="2" fill="{colour}"/>',
            text_at(left + length + 6, y + 13, row.text, weight=600 if row.emphasis else 400),
        ]
    return drawing(title, description, 8 + len(rows) * pitch + 4, parts)


def intervals(title: str, description: str, rows: Sequence[Interval]) -> str:
    """Return speed-ups on a logarithmic axis around a line at 1x, each with the whiskers of its interval.

    Args:
        title: What a screen reader says first.
        description: What the chart shows, in a sentence.
        rows: Top to bottom; values above 0.
    """
    left, right, top, pitch = 62, 134, 26, 34
    usable = [row for row in rows if 0 < row.low <= row.high < math.inf and 0 < row.value < math.inf]
    low = min([0.8, *(row.low for row in usable)]) / 1.08
    high = max([1.25, *(row.high for row in usable)]) * 1.08
    span = math.log(high / low)

    def x(value: float) -> float:
        return left + (WIDTH - left - right) * math.log(value / low) / span

    bottom = top + len(usable) * pitch
    parts = []
    for tick in log_ticks(low, high, WIDTH - left - right):
        parts += [
            line(x(tick), top, x(tick), bottom, GRID),
            text_at(x(tick), bottom + 16, f"{tick:g}×", "middle"),
        ]
    parts += [
        line(x(1), top - 6, x(1), bottom, INK, 1.5),
        text_at(x(1) - 8, top - 10, "◂ slower", anchor="end", colour=MUTED),
        text_at(x(1) + 8, top - 10, "faster ▸", colour=MUTED),
    ]
    for index, row in enumerate(usable):
        y = top + index * pitch + pitch / 2
        colour = _STATE_COLOUR.get(row.verdict, PLAIN)
        parts += [
            text_at(left - 10, y + 4, row.label, anchor="end"),
            line(x(row.low), y, x(row.high), y, colour, 2),
            *(line(x(end), y - 6, x(end), y + 6, colour, 2) for end in (row.low, row.high)),
            _point(x(row.value), y, row.verdict, colour),
            text_at(WIDTH - right + 12, y - 2, f"{row.value:.2f}×", weight=600),
            text_at(WIDTH - right + 62, y - 2, row.verdict, size=11),
            text_at(WIDTH - right + 12, y + 12, f"{row.low:.2f} to {row.high:.2f}", colour=MUTED, size=11),
        ]
    return drawing(title, description, bottom + 26, parts)


def histogram(
    title: str, description: str, values: Sequence[float], marks: Sequence[Mark] = (), *, good: str = ">="
) -> str:
    """Return how often each value occurs, with a stroke per value below and vertical marks.

    A mark too far from the values to share their axis is named at the edge instead.

    Args:
        title: What a screen reader says first.
        description: What the chart shows, in a sentence.
        values: In any order; values that are not finite are left out and counted in a line of text.
        marks: The gate and percentiles.
        good: Which side of the gate is good, `>=` or `<=`; bars on the other side take the warning colour.
    """
    left, right, top, height = 14, 14, 38, 96
    finite = sorted(value for value in values if math.isfinite(value))
    if not finite:
        return drawing(title, description, 40, [text_at(left, 24, "no finite value to show", colour=BAD)])
    low, high = _domain(finite, [mark.value for mark in marks if math.isfinite(mark.value)])
    gate = next((mark.value for mark in marks if mark.is_gate), None)

    def x(value: float) -> float:
        return left + (WIDTH - left - right) * (value - low) / (high - low)

    bottom, count = top + height, 30
    step = (high - low) / count
    tallies = [0] * count
    for value in finite:
        tallies[min(int((value - low) / step), count - 1)] += 1
    parts = [line(left, bottom, WIDTH - right, bottom, GRID)]
    for index, tally in enumerate(tallies):
        if tally:
            start, middle = low + index * step, low + (index + 0.5) * step
            missed = gate is not None and (middle < gate if good == ">=" else middle > gate)
            tall = max(height * tally / max(tallies), 2)
            parts.append(
                f'<rect x="{digits(x(start) + 0.75)}" y="{digits(bottom - tall)}" '
                f'width="{digits(x(start + step) - x(start) - 1.5)}" height="{digits(tall)}" '
                f'fill="{BAD if missed else GOOD}"/>'
            )
    parts += [line(x(value), bottom + 3, x(value), bottom + 9, INK, 1, opacity=0.35) for value in finite]
    for row, mark in enumerate(sorted(marks, key=lambda mark: mark.value)):
        parts += _mark(mark, x(mark.value), 12 + row * 15, bottom, left, WIDTH - right)
    for value, anchor in ((low, "start"), (high, "end")):
        parts.append(text_at(x(value), bottom + 24, f"{value:.4g}", anchor=anchor, colour=MUTED, size=11))
    strange = len(values) - len(finite)
    middle_text = f"{len(finite)} values" + (f", {strange} more not finite" if strange else "")
    parts.append(text_at(WIDTH / 2, bottom + 24, middle_text, anchor="middle", colour=MUTED, size=11))
    return drawing(title, description, bottom + 32, parts)


def _domain(values: Sequence[float], marks: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the axis: all values, and those marks that do not squash them."""
    low, high = values[0], values[-1]
    reach = max(2 * (high - low), abs(high) * 1e-6, 1e-12)
    near = [mark for mark in marks if low - reach <= mark <= high + reach]
    low, high = min([low, *near]), max([high, *near])
    pad = max((high - low) * 0.04, abs(high) * 1e-6, 1e-12)
    return low - pad, high + pad


def _mark(mark: Mark, x: float, label_y: float, bottom: float, left: float, right: float) -> list[str]:
    colour = BAD if mark.is_gate else INK
    if not left <= x <= right or not math.isfinite(x):
        arrow, edge, anchor = ("◂ ", left, "start") if x < left else (" ▸", right, "end")
        label = f"{arrow}{mark.label}" if x < left else f"{mark.label}{arrow}"
        return [text_at(edge, label_y, f"{label}, off this axis", anchor=anchor, colour=colour, size=11)]
    flip = x > (left + right) / 2
    dash = "" if mark.is_gate else "4 3"
    return [
        line(x, label_y - 9, x, bottom, colour, 1.75, dash=dash),
        text_at(
            x - 5 if flip else x + 5,
            label_y,
            mark.label,
            anchor="end" if flip else "start",
            colour=colour,
            size=11,
            weight=600,
        ),
    ]


def log_ticks(low: float, high: float, width: float) -> list[float]:
    """Return round ratios between `low` and `high`, at most as many as their labels have room for."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    rounder_first = [1.0, *(m * 10.0**d for m in (1, 2, 5, 3, 1.5, 7, 8, 1.2, 9, 1.1) for d in decades)]
    apart = 38 / width * math.log(high / low)
    ticks: list[float] = []
    for tick in rounder_first:
        if low <= tick <= high and all(abs(math.log(tick / other)) >= apart for other in ticks):
            ticks.append(tick)
    return sorted(ticks)


def _point(x: float, y: float, verdict: str, colour: str) -> str:
    if verdict == "faster":
        return f'<circle cx="{digits(x)}" cy="{digits(y)}" r="5" fill="{colour}"/>'
    if verdict == "slower":
        corners = " ".join(
            f"{digits(x + right)},{digits(y + down)}" for right, down in ((0, -6), (6, 0), (0, 6), (-6, 0))
        )
        return f'<polygon points="{corners}" fill="{colour}"/>'
    ring = f'fill="var(--paper,#fff)" stroke="{colour}" stroke-width="2"'
    return f'<circle cx="{digits(x)}" cy="{digits(y)}" r="4.5" {ring}/>'


def drawing(title: str, description: str, height: float, parts: Sequence[str]) -> str:
    """Return a chart with what a screen reader says of it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {digits(height)}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12.5">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )


def text_at(
    x: float,
    y: float,
    content: str,
    anchor: str = "start",
    *,
    colour: str = INK,
    size: float = 12.5,
    weight: int = 400,
    halo: bool = False,
) -> str:
    """Return a line of text; a halo parts it from what lies below."""
    around = ' paint-order="stroke" stroke="var(--panel,#fff)" stroke-width="3"' if halo else ""
    return (
        f'<text x="{digits(x)}" y="{digits(y)}" text-anchor="{anchor}" fill="{colour}" font-size="{size}" '
        f'font-weight="{weight}"{around}>{escape(content)}</text>'
    )


def line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    colour: str,
    width: float = 1,
    *,
    dash: str = "",
    opacity: float = 1,
) -> str:
    """Return a straight line."""
    return (
        f'<line x1="{digits(x1)}" y1="{digits(y1)}" x2="{digits(x2)}" y2="{digits(y2)}" '
        f'stroke="{colour}" stroke-width="{width}"'
        + (f' stroke-dasharray="{dash}"' if dash else "")
        + (f' stroke-opacity="{opacity}"' if opacity != 1 else "")
        + "/>"
    )


def escape(text: str) -> str:
    """Return text that is safe between tags and in quoted attributes; what XML cannot hold becomes U+FFFD.

    Source: XML 1.0, production [2] Char.
    """
    legal = (
        c
        if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000"
        else "\ufffd"
        for c in text
    )
    return html.escape("".join(legal), quote=True)


def digits(value: float) -> str:
    """Return a coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
