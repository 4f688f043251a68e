"""What a terminal shows of reports: rich renderables, never printed here.

Text that comes from a report is put in as `Text`, so that brackets in it are not read as markup. States
are spelled out: without colour nothing is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit.record import Verdict
from edgekit.report import wording
from edgekit.report.compare import Comparison
from edgekit.report.compare_page import check_json, how, say_count, say_made_in, say_speed, short
from edgekit.report.document import Document, TargetReport, completed, strict_json
from edgekit.report.matrix import matrix_rows
from edgekit.report.waterfall import Stage

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_STYLE = {"pass": "green", "faster": "green", "fail": "bold red", "slower": "red", "cannot tell": "yellow"}


def summary_table(reports: Sequence[TargetReport | Document]) -> Table:
    """Return one row per target: size, quality, speed-up with its interval, and whether the gates passed.

    Fits 100 columns; cells wrap on narrower terminals.

    Args:
        reports: In the order to show them, fresh ones or the JSON form of saved ones.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("Target", overflow="fold")
    table.add_column("Float → shipped", overflow="fold")
    table.add_column("Quality", overflow="fold")
    table.add_column("Speed-up (interval)", overflow="fold")
    table.add_column("Gates", overflow="fold")
    for report in reports:
        document = completed(report.to_json() if isinstance(report, TargetReport) else report)
        table.add_row(
            _plain(str(document["verdict"]["target"])),
            _size(document),
            _quality(document),
            _speed(document),
            _gates(document),
        )
    return table


def verdict_table(verdict: Verdict) -> Table:
    """Return one row per check and per timed shape: measured, required, state."""
    from rich import box
    from rich.table import Table

    document = completed({"verdict": strict_json(verdict.to_json())})
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("Check", overflow="fold")
    table.add_column("Measured", justify="right", overflow="fold")
    table.add_column("Required", justify="right", overflow="fold")
    table.add_column("State", overflow="fold")
    for check in document["verdict"]["checks"]:
        measured, required = wording.say_check(check)
        state = str(check["state"])
        table.add_row(_plain(str(check["title"])), measured, required, _styled(state))
    for finding in wording.speed(document):
        table.add_row(_plain(f"Speed-up at {finding.label}"), finding.text, "–", _styled(finding.state))
    if not document["verdict"]["latency"]:
        table.add_row("Speed-up", "–", "–", _plain(wording.no_speed(document)))
    return table


def matrix_table(verdict: Verdict) -> Table:
    """Return one row per runner: what it proves, whether it is right there, how far from here, how fast."""
    from rich import box
    from rich.table import Table

    document = completed({"verdict": strict_json(verdict.to_json())})
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("Runner", no_wrap=True)
    for heading in ("Level", "State", "Quality", "Against this CPU", "Speed or instructions", "Runtime"):
        table.add_column(heading, overflow="fold")
    for row in matrix_rows(document):
        quality = _plain("\n".join(f"{name} {f.text}" for name, f in row.quality) or "–")
        state = _styled(row.state)
        if row.outcome != "ran":
            state.append(f"\n{row.outcome}", style="dim")
        table.add_row(
            _plain(row.runner),
            row.level,
            state,
            quality,
            row.native,
            "\n".join(row.speed) or "–",
            row.runtime,
        )
    return table


def waterfall_table(stages: Sequence[Stage]) -> Table:
    """Return one row per stage: what is left of the original's quality after it, and what it cost."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("After", overflow="fold")
    table.add_column("Parameters", justify="right")
    for name, _ in stages[0].figures:
        table.add_column(name.capitalize(), justify="right", overflow="fold")
    table.add_column("Spent", justify="right")
    for stage in stages:
        figures = dict(stage.figures)
        table.add_row(
            _plain(stage.name),
            f"{stage.parameters:,}" if stage.parameters else "",
            *(figures.get(name, "–") for name, _ in stages[0].figures),
            "–" if stage.spent is None else f"{stage.spent:+.4f}",
        )
    return table


def forms_table(report: TargetReport | Document) -> Table:
    """Return one row per form that a model could ship in: gates, size, quality, speed-up over float."""
    from rich import box
    from rich.table import Table

    document = completed(report.to_json() if isinstance(report, TargetReport) else report)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in ("Form", "Gates", "Size", "Quality", "Speed-up (interval)"):
        table.add_column(heading, overflow="fold")
    for entry in document["candidates"]:
        alike = {**document, "verdict": {**document["verdict"], "checks": entry["checks"]}}
        name = _plain(str(entry.get("title") or entry["name"]))
        if entry["shipped"]:
            name.append("\nships", style="bold")
        speeds = [
            f"{speed['shape']} {wording.say_times(speed['speedup'])}"
            f" ({speed['speedup_low']:.2f}–{speed['speedup_high']:.2f})"
            for speed in entry["speeds"]
        ]
        table.add_row(
            name,
            _styled("pass" if entry.get("passed") else "fail"),
            wording.say_bytes(entry["file_bytes"]),
            _quality(alike),
            "\n".join(speeds) or "not measured here",
        )
    return table


def comparison_table(comparison: Comparison) -> Table:
    """Return one row per package: what was done, size, quality, speed-up, memory and cost, who beats it."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in ("Package", "What was done"):
        table.add_column(heading, overflow="fold")
    for heading in ("Size", "Quality", "Speed-up (interval)", "Memory,\ncost"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("Size", "Quality"))
    table.add_column("Dominated\nby", overflow="fold")
    for row in comparison.rows:
        quality = [f"{short(check)} {wording.say_check(check_json(check))[0]}" for check in row.quality]
        speeds = [f"{speed.shape} {say_speed(speed)}" for speed in row.speeds]
        sizes = (
            wording.say_bytes(row.file_bytes),
            f"{wording.say_bytes(row.compressed_bytes)} zipped",
            f"{say_count(row.parameters)} weights",
        )
        table.add_row(
            _plain(f"{row.label}\n{row.target}" if row.target not in row.label else row.label),
            _plain(how(row)),
            "\n".join(sizes),
            _plain("\n".join(quality) or "not recorded"),
            _plain("\n".join(speeds) or row.speed_note),
            f"{wording.say_bytes(row.peak_memory_bytes)}\n{say_made_in(row)}",
            _plain("\n".join(row.dominated_by) or "–"),
        )
    return table


def failures(verdict: Verdict) -> str:
    """Return one line per check that misses its budget, here or on a runner; empty where none does."""
    lines = []
    for check in strict_json(verdict.to_json())["checks"]:
        if check["state"] == "fail":
            measured, required = wording.say_check(check)
            why = f" ({check['why']})" if check["why"] else ""
            lines.append(f"{verdict.target}: {check['name']} is {measured}, required {required}{why}")
    document = completed({"verdict": strict_json(verdict.to_json())})
    for row in matrix_rows(document):
        if row.state == "fail":
            lines += [f"{verdict.target} on {row.runner}: {told}" for told in row.misses or (row.outcome,)]
    return "\n".join(lines)


def _styled(state: str) -> Text:
    from rich.text import Text

    return Text(state, style=_STYLE.get(state, ""))


def _plain(content: str) -> Text:
    from rich.text import Text

    return Text(content)


def _size(document: Document) -> Text:
    verdict = document["verdict"]
    before, after = (verdict[side].get("file_bytes") for side in ("float_size", "quantized_size"))
    ratio = wording.size_ratio(document)
    said = [wording.say_bytes(before), wording.say_bytes(after)]
    if said[0].split()[-1] == said[1].split()[-1]:
        said[0] = said[0].split()[0]  # the same unit is said once
    text = _plain(" → ".join(said))
    return text if ratio is None else text.append(f"\n{wording.say_times(ratio)} smaller", style="dim")


def _quality(document: Document) -> Text:
    shorts = {
        check.get("title"): wording.SHORT.get(check.get("name", ""))
        for check in document["verdict"]["checks"]
    }
    findings = wording.quality(document)
    text = _plain("" if findings else "–")
    for index, finding in enumerate(findings):
        text.append("\n" if index else "")
        text.append(f"{shorts.get(finding.label) or finding.label} ")
        text.append(finding.text, style=_STYLE["fail"] if finding.state == "fail" else "bold")
    return text


def _speed(document: Document) -> Text:
    findings = wording.speed(document)
    if not findings:
        return _plain(wording.no_speed(document))
    width = max(len(finding.label) for finding in findings)
    text = _plain("")
    for index, finding in enumerate(findings):
        text.append("\n" if index else "")
        text.append(f"{finding.label:<{width}} {finding.text} ")
        text.append(finding.state, style=_STYLE.get(finding.state, ""))
    return text


def _gates(document: Document) -> Text:
    return _styled(wording.verdict_word(document))
