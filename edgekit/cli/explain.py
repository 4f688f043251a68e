"""`edgekit explain PACKAGE`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from edgekit.validate.explanation import Explanation
    from edgekit.validate.explanation.record import ExplainedPoint, Group

_SLOWEST = 10
_SHOWN = 0.005  # op kinds below this share of the time go into one row


@click.command(no_args_is_help=True)
@click.argument("package", type=click.Path(path_type=Path))
@click.option(
    "--shape", "shapes", multiple=True, metavar="BATCHxLENGTH", help="Input shape.  [default: the target's]"
)
@click.option("--threads", type=int, help="Intra-op threads.  [default: the recipe's or the target's]")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, every node by name.")
def command(package: Path, shapes: tuple[str, ...], threads: int | None, as_json: bool) -> None:
    """Show where the time of PACKAGE goes: which kernels run it, and why some are float.

    ONNX Runtime optimizes the graph and runs it under its own profiler on the recorded inputs. Where this
    machine is not one of the target's, the kernels are shown without times. Needs no PyTorch.
    """
    from rich.text import Text

    from edgekit.cli.tables import stdout_console
    from edgekit.explaining import explain
    from edgekit.report.explained import main_index, sentences
    from edgekit.store import dump_json

    explanation = explain(package, shapes=shapes, threads=threads)
    document = explanation.to_json()
    if as_json:
        click.echo(dump_json(document), nl=False)
        return
    console = stdout_console()
    plural = "s" if explanation.threads > 1 else ""
    console.print(
        f"[bold]{explanation.target}[/] on ONNX Runtime {explanation.runtime},"
        f" {explanation.threads} thread{plural}\n"
    )
    for sentence in sentences(document):
        console.print(Text(f"• {sentence}"))
    console.print()
    point = explanation.points[main_index(len(explanation.points))]
    tables = [_products(explanation), _op_kinds(explanation), _conversions(point), _stayed_float(point)]
    if explanation.timed:
        tables += [_slowest(point), _predictions(document)]
    for grid in tables:
        if grid.row_count:
            console.print(grid)


def _products(explanation: Explanation) -> Table:
    from edgekit.cli.tables import table
    from edgekit.report.explained import percent

    grid = table("Multiply-adds")
    headings = ["input", "millions", "in int8", "with weights", "of these in int8"]
    headings += ["int8 GMAC/s", "float GMAC/s", "run ms"] if explanation.timed else []
    for heading in headings:
        grid.add_column(heading, justify="left" if heading == "input" else "right")
    for point in explanation.points:
        row = [point.shape, f"{point.macs / 1e6:,.1f}", percent(point.int8_share)]
        row += [
            percent(point.weight_macs / point.macs if point.macs else None),
            percent(point.int8_weight_share),
        ]
        if explanation.timed:
            row += [_rate(point.rate("int8 product")), _rate(point.rate("float product")), _ms(point.run_ms)]
        grid.add_row(*row)
    if explanation.roofline is not None:
        roofline = explanation.roofline
        rates = (_rate(roofline.int8_gmacs_per_s), _rate(roofline.float_gmacs_per_s))
        grid.add_row("this machine's best", "", "", "", "", *rates, "")
    return grid


def _op_kinds(explanation: Explanation) -> Table:
    from rich.text import Text

    from edgekit.cli.tables import table
    from edgekit.report.explained import main_index, others

    grid = table("Where the time goes" if explanation.timed else "What runs")
    for heading in ("op", "role"):
        grid.add_column(heading)
    grid.add_column("nodes", justify="right")
    points = explanation.points if explanation.timed else ()
    for point in points:
        grid.add_column(f"{point.shape} ms", justify="right")
        grid.add_column("share", justify="right")
    main = explanation.points[main_index(len(explanation.points))]
    kinds = main.op_kinds()
    shown = [
        kind for kind in kinds if not explanation.timed or (kind.ms or 0) >= _SHOWN * (main.kernels_ms or 0)
    ]
    for kind in shown:
        times = [_time_of([(kind.op, kind.role)], point) for point in points]
        grid.add_row(Text(kind.op), kind.role, str(len(kind.nodes)), *(t for pair in times for t in pair))
    rest = [(kind.op, kind.role) for kind in kinds[len(shown) :]]
    if rest:
        count = sum(len(kind.nodes) for kind in kinds[len(shown) :])
        times = [_time_of(rest, point) for point in points]
        grid.add_row(others(len(rest)), "", str(count), *(t for pair in times for t in pair))
    return grid


def _time_of(kinds: Sequence[tuple[str, str]], point: ExplainedPoint) -> tuple[str, str]:
    """Return the time of some kinds of nodes, and their share."""
    from edgekit.report.explained import percent

    ms = sum(group.ms or 0 for group in point.op_kinds() if (group.op, group.role) in kinds)
    return _ms(ms), percent(ms / point.kernels_ms if point.kernels_ms else None)


def _conversions(point: ExplainedPoint) -> Table:
    return _reasons(f"Conversions and smoothing, {point.shape}", point, point.conversions())


def _stayed_float(point: ExplainedPoint) -> Table:
    return _reasons(f"What stayed float, {point.shape}", point, point.stayed_float())


def _reasons(title: str, point: ExplainedPoint, groups: Sequence[Group]) -> Table:
    from rich.text import Text

    from edgekit.cli.tables import table
    from edgekit.report.explained import percent

    grid = table(title)
    total = point.kernels_ms
    grid.add_column("op", no_wrap=True)
    grid.add_column("nodes", justify="right")
    if total:
        grid.add_column("ms", justify="right")
        grid.add_column("share", justify="right", no_wrap=True)
    grid.add_column("needed" if any(g.needed is not None for g in groups) else "", no_wrap=True)
    grid.add_column("why")
    for group in groups:
        times = [_ms(group.ms), percent((group.ms or 0) / total)] if total else []
        needed = "" if group.needed is None else "yes" if group.needed else "left over"
        grid.add_row(Text(group.op), str(len(group.nodes)), *times, needed, Text(group.why))
    return grid


def _slowest(point: ExplainedPoint) -> Table:
    from rich.text import Text

    from edgekit.cli.tables import table

    grid = table(f"Slowest nodes, {point.shape}")
    grid.add_column("ms", justify="right")
    grid.add_column("op", no_wrap=True)
    grid.add_column("shapes", no_wrap=True)
    grid.add_column("GMAC/s", justify="right")
    grid.add_column("node", overflow="fold")
    for node in sorted(point.nodes, key=lambda node: -(node.ms or 0))[:_SLOWEST]:
        rate = node.macs / node.ms / 1e6 if node.macs and node.ms else None
        grid.add_row(_ms(node.ms), Text(node.op), Text(node.shape), _rate(rate), Text(node.name))
    return grid


def _predictions(document: dict[str, object]) -> Table:
    from rich.text import Text

    from edgekit.cli.tables import table
    from edgekit.report.explained import main_point, predicted

    main = main_point(document)["shape"]
    grid = table("Predicted: what excluding int8 products from quantization would do")
    for heading in ("input", "shapes"):
        grid.add_column(heading)
    for heading in ("nodes", "int8 ms", "float ms (predicted)", "excluding them (predicted)"):
        grid.add_column(heading, justify="right")
    for row in predicted(document):
        if row.point != main and row.effect != "saves":
            continue
        even = row.effect == "about even"
        effect = row.effect if even else f"{row.effect} {_ms(abs(row.gain_ms))} ms"
        grid.add_row(
            row.point, Text(row.shape), str(len(row.nodes)), _ms(row.int8_ms), _ms(row.float_ms), effect
        )
    return grid


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
