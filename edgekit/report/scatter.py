"""Points in a plane with their labels, and the staircase that no point lies beyond."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgekit.report.svg import GOOD, GRID, INK, MUTED, PLAIN, WIDTH, digits, drawing, line, log_ticks, text_at

_LEFT, _RIGHT, _TOP, _HEIGHT = 54, 16, 26, 250
_SIZE, _PER_CHARACTER, _LONGEST = 11, 6.1, 26
_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Point:
    """A point with its name.

    Attributes:
        label: What it is.
        x: Across.
        y: Upwards.
        dominated: Drawn grey, and not on the staircase.
        low: Lower end of an interval across; None draws none.
        high: Upper end of it.
    """

    label: str
    x: float
    y: float
    dominated: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes:
        title: What a person calls it, with the unit.
        say: Value -> text at a tick.
        more_is_better: Which way is good.
        ratios: Logarithmic: equal ratios are equally far apart. Its values are above 0.
    """

    title: str
    say: Callable[[float], str]
    more_is_better: bool = True
    ratios: bool = False


def scatter(title: str, description: str, x: Axis, y: Axis, points: Sequence[Point]) -> str:
    """Return points in a plane; those that are not dominated are joined by a staircase.

    Args:
        title: What a screen reader says first.
        description: What the chart shows, in a sentence.
        x: The axis across.
        y: The axis upwards.
        points: In any order; those that are not finite are left out.
    """
    shown = [p for p in points if math.isfinite(p.x) and math.isfinite(p.y) and (p.x > 0 or not x.ratios)]
    if not shown:
        return drawing(title, description, 40, [text_at(14, 24, "no figures to show", colour=MUTED)])
    scale: Callable[[float], float] = math.log if x.ratios else float
    across = _span([scale(v) for p in shown for v in (p.x, p.low, p.high) if v is not None])
    upwards = _span([p.y for p in shown])
    bottom, right = _TOP + _HEIGHT, WIDTH - _RIGHT

    def at(point_x: float, point_y: float) -> tuple[float, float]:
        return (
            _LEFT + (right - _LEFT) * (scale(point_x) - across[0]) / (across[1] - across[0]),
            bottom - _HEIGHT * (point_y - upwards[0]) / (upwards[1] - upwards[0]),
        )

    parts = []
    ticks = _ticks(*across, 5)
    if x.ratios:
        ticks = log_ticks(math.exp(across[0]), math.exp(across[1]), right - _LEFT)
    for tick in ticks:
        place = at(tick, upwards[0])[0]
        parts += [line(place, _TOP, place, bottom, GRID), _tick(place, bottom + 16, x.say(tick), "middle")]
    for tick in _ticks(*upwards, 5):
        place = at(shown[0].x, tick)[1]
        parts += [line(_LEFT, place, right, place, GRID), _tick(_LEFT - 6, place + 4, y.say(tick), "end")]
    better = "▸" if x.more_is_better else "◂"
    told = f"{x.title} ▸ better" if x.more_is_better else f"better {better} {x.title}"
    parts += [
        text_at(right, bottom + 34, told, "end", colour=MUTED, size=_SIZE),
        text_at(8, 14, f"{y.title} {'▴' if y.more_is_better else '▾'} better", colour=MUTED, size=_SIZE),
    ]
    parts += _staircase([at(p.x, p.y) for p in shown if not p.dominated], x, y)
    places = [at(point.x, point.y) for point in shown]
    taken: list[_Box] = [(px - 6, py - 6, px + 6, py + 6) for px, py in places]
    # Who is dominated is drawn first, below the others, and named last, where there is room left.
    placed = list(zip(shown, places, strict=True))
    for point, (px, py) in sorted(placed, key=lambda pair: not pair[0].dominated):
        colour = PLAIN if point.dominated else GOOD
        if point.low is not None and point.high is not None:
            parts.append(line(at(point.low, point.y)[0], py, at(point.high, point.y)[0], py, colour, 2))
        fill = f'fill="var(--paper,#fff)" stroke="{colour}" stroke-width="2"'
        fill = fill if point.dominated else f'fill="{colour}"'
        parts.append(f'<circle cx="{digits(px)}" cy="{digits(py)}" r="5" {fill}/>')
    for point, (px, py) in sorted(placed, key=lambda pair: pair[0].dominated):
        parts += _label(point, px, py, taken, (_LEFT, _TOP - 8, right + _RIGHT, bottom))
    return drawing(title, description, bottom + 42, parts)


def _label(point: Point, x: float, y: float, taken: list[_Box], room: _Box) -> list[str]:
    """Return the point's name at the nearest free place beside it, with a line to it where that is far."""
    name = point.label if len(point.label) <= _LONGEST else f"…{point.label[1 - _LONGEST :]}"
    width, height = len(name) * _PER_CHARACTER, _SIZE + 2
    best: tuple[float, _Box] | None = None
    for distance in (9, 20, 32, 46, 62):
        for turn in range(16):
            angle = turn * math.pi / 8
            ax, ay = x + distance * math.cos(angle), y + distance * math.sin(angle)
            left = ax if math.cos(angle) > 0.3 else ax - width if math.cos(angle) < -0.3 else ax - width / 2
            box = (left, ay - height / 2, left + width, ay + height / 2)
            outside = sum(
                max(0.0, o) for o in (room[0] - box[0], room[1] - box[1], box[2] - room[2], box[3] - room[3])
            )
            cost = 50 * outside + sum(_overlap(box, other) for other in taken) + distance / 4
            if best is None or cost < best[0]:
                best = (cost, box)
    assert best is not None
    box = best[1]
    taken.append(box)
    middle = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
    far = math.dist(middle, (x, y)) > 14
    lead = [line(x, y, *middle, MUTED, opacity=0.7)] if far else []
    colour = MUTED if point.dominated else INK
    return [*lead, text_at(box[0], box[3] - 3, name, colour=colour, size=_SIZE, halo=True)]


def _overlap(one: _Box, other: _Box) -> float:
    """Return the area that two boxes share."""
    return max(0.0, min(one[2], other[2]) - max(one[0], other[0])) * max(
        0.0, min(one[3], other[3]) - max(one[1], other[1])
    )


def _staircase(places: Sequence[tuple[float, float]], x: Axis, y: Axis) -> list[str]:
    """Return the border of what the points reach: no point is better in both directions than its corners."""
    # On the paper, up is less. With both signs turned to "less is better" the front is one sweep.
    sx, sy = (-1 if x.more_is_better else 1), (1 if y.more_is_better else -1)
    front: list[tuple[float, float]] = []
    for px, py in sorted((sx * px, sy * py) for px, py in places):
        if not front or py < front[-1][1]:
            front.append((px, py))
    parts = []
    for (ax, ay), (bx, by) in pairwise(front):
        for x1, y1, x2, y2 in ((ax, ay, bx, ay), (bx, ay, bx, by)):
            parts.append(line(sx * x1, sy * y1, sx * x2, sy * y2, GOOD, 1.25, dash="3 3", opacity=0.7))
    return parts


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis with room around the values."""
    low, high = min(values), max(values)
    pad = max((high - low) * 0.12, abs(high) * 1e-3, 1e-9)
    return low - pad, high + pad


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Return round values between the ends, about `count` of them."""
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= rough * 0.999)
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)]


def _tick(x: float, y: float, content: str, anchor: str) -> str:
    return text_at(x, y, content, anchor, colour=MUTED, size=_SIZE)
