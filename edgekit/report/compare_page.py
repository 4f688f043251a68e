"""The page of a comparison: what each package is, the planes of size, speed and quality, and what to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit import __version__
from edgekit.errors import InputError
from edgekit.record import Check
from edgekit.report import scatter, wording
from edgekit.report.compare import ComparedPackage, Comparison
from edgekit.report.page import render_page
from edgekit.report.scatter import Axis, Point


def render_comparison(comparison: Comparison) -> str:
    """Return the page as one offline HTML file.

    Raises:
        InputError: There is no package.
    """
    from markupsafe import Markup

    if not comparison.rows:
        raise InputError("there is no package to compare", "Give the folders of packages.")
    return render_page(
        "compare.html.j2",
        {},
        task=comparison.task,
        count=len(comparison.rows),
        headline=headline(comparison),
        basis=comparison.basis,
        notes=comparison.notes,
        rows=[_row(row) for row in comparison.rows],
        charts=[(caption, Markup(chart)) for caption, chart in charts(comparison)],
        edgekit_version=__version__,
    )


def headline(comparison: Comparison) -> str:
    """Return which packages are worth having, in a sentence."""
    rows, front = comparison.rows, comparison.front
    if len(rows) == 1:
        return "There is one package, so there is nothing to compare it with."
    if len(front) == len(rows):
        other = "the other" if len(rows) == 2 else "every other one"
        return f"Each of the {len(rows)} packages is better than {other} at something, or as good."
    dominated = [row.label for row in rows if row.dominated_by]
    told = ", ".join(dominated[:4]) + (f" and {len(dominated) - 4} more" if len(dominated) > 4 else "")
    verb = "is" if len(dominated) == 1 else "are"
    return f"{len(front)} of {len(rows)} packages are worth having; {told} {verb} dominated by another one."


def charts(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (caption, SVG) of quality over size and over speed, as far as they are known."""
    name = comparison.axis
    measured = [(row, row.measure(name)) for row in comparison.rows] if name else []
    known = [(row, check) for row, check in measured if check is not None]
    if not known:
        return []
    check = known[0][1]
    title = wording.SHORT.get(check.name, check.title)
    quality = Axis(title, _plain_figure, check.comparison == ">=")
    found = [
        _chart(
            f"{title[:1].upper()}{title[1:]} and size of the file",
            Axis(
                "file",
                lambda value: wording.say_bytes(value).replace(".0 ", " "),
                more_is_better=False,
                ratios=True,
            ),
            quality,
            [(row, float(row.file_bytes), float(check.measured or 0), None) for row, check in known],
        )
    ]
    timed = [(row, check) for row, check in known if row.overall is not None and comparison.speeds_compare]
    if timed:
        points = [
            (row, row.overall[0], float(check.measured or 0), (row.overall[1], row.overall[2]))
            for row, check in timed
            if row.overall is not None
        ]
        across = Axis("speed-up, mean of all shapes", lambda value: f"{value:.3g}×", ratios=True)
        found.append(_chart(f"{title[:1].upper()}{title[1:]} and speed", across, quality, points))
    return found


def _chart(
    caption: str,
    across: Axis,
    upwards: Axis,
    points: Sequence[tuple[ComparedPackage, float, float, tuple[float, float] | None]],
) -> tuple[str, str]:
    shown = [
        Point(row.label, x, y, bool(row.dominated_by), *(ends or (None, None))) for row, x, y, ends in points
    ]
    told = "; ".join(f"{p.label}: {across.say(p.x)}, {upwards.say(p.y)}" for p in shown)
    return caption, scatter.scatter(caption, told, across, upwards, shown)


def _plain_figure(value: float) -> str:
    return f"{value:.4g}" if abs(value) >= 10 else f"{value:.4f}".rstrip("0").rstrip(".") or "0"


def _row(row: ComparedPackage) -> dict[str, Any]:
    """Return what the template says about one package."""
    return {
        "label": row.label,
        "path": row.path,
        "model": row.model,
        "target": row.target,
        "how": how(row),
        "steps": row.steps,
        "parameters": say_count(row.parameters),
        "file_bytes": row.file_bytes,
        "compressed_bytes": row.compressed_bytes,
        "quality": [(short(check), wording.say_check(check_json(check))[0]) for check in row.quality],
        "speeds": [(speed.shape, say_speed(speed), say_ms(speed)) for speed in row.speeds],
        "speed_note": row.speed_note,
        "memory": row.peak_memory_bytes,
        "made_in": say_made_in(row),
        "stages": sorted((row.seconds or {}).items(), key=lambda item: -item[1]),
        "dominated_by": row.dominated_by,
    }


def how(row: ComparedPackage) -> str:
    """Return what was done to the model, e.g. `vocabulary, layers, static int8`."""
    return ", ".join((*row.techniques, row.form))


def short(check: Check) -> str:
    """Return a name that fits a narrow column."""
    return wording.SHORT.get(check.name, check.title)


def check_json(check: Check) -> dict[str, Any]:
    """Return what `wording.say_check` takes."""
    return {"measured": check.measured, "budget": None, "unit": check.unit}


def say_speed(speed: Any) -> str:
    """Return a speed-up with its interval: `2.45× (2.40–2.53)`."""
    return f"{wording.say_times(speed.speedup)} ({speed.speedup_low:.2f}–{speed.speedup_high:.2f})"


def say_ms(speed: Any) -> str:
    """Return the median time: `3.20 ms`."""
    return f"{wording.say_ms(speed.p50_ms)} ms"


def say_count(count: int) -> str:
    """Return a count of parameters: `22.7 M`."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return str(count)


def say_made_in(row: ComparedPackage) -> str:
    """Return how long all steps took."""
    return "not recorded" if row.made_in_seconds is None else wording.say_seconds(row.made_in_seconds)
