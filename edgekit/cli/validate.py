"""`edgekit validate`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(no_args_is_help=True)
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--float", "float_path", type=click.Path(path_type=Path), help="Float graph to time against.")
@click.option("--runs", type=int, help="Timed runs with --float.  [default: the recipe's]")
@click.option(
    "--on",
    multiple=True,
    metavar="RUNNER",
    help="Also run it there; `target`: the target's own runners, `all`: every ready one.",
)
@click.option(
    "--timeout", "timeout_s", type=float, default=300.0, show_default=True, help="Seconds per runner."
)
@click.option("--report", "report_path", type=click.Path(path_type=Path), help="Write the HTML page here.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def command(
    package: Path,
    float_path: Path | None,
    runs: int | None,
    on: tuple[str, ...],
    timeout_s: float,
    report_path: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the gates of PACKAGE again, from the package alone.

    Every file is held against its recorded digest, then the graph is run on the recorded inputs and compared
    with the recorded float outputs. Needs ONNX Runtime, but neither PyTorch nor the original model. With --on
    (as often as you like) the same is done on other runners: `edgekit runners` lists them.
    """
    from rich.console import Console

    from edgekit.cli.progress import shown_progress
    from edgekit.cli.tables import stdout_console
    from edgekit.errors import GateError
    from edgekit.report.document import strict_json
    from edgekit.report.terminal import failures, matrix_table, verdict_table
    from edgekit.revalidation import reported, revalidate
    from edgekit.store import dump_json, write_text

    with shown_progress(Console(stderr=True), quiet=quiet or not on) as progress:
        verdict = revalidate(
            package, float_path=float_path, runs=runs, on=on, timeout_s=timeout_s, progress=progress
        )
    if report_path is not None:
        write_text(report_path, reported(package, verdict))
    if as_json:
        click.echo(dump_json(strict_json(verdict.to_json())), nl=False)
    elif not quiet:
        console = stdout_console()
        console.print(verdict_table(verdict))
        if verdict.executions:
            console.print(matrix_table(verdict))
        for note in verdict.notes:
            console.print(note, markup=False)
    if not verdict.passed:
        raise GateError(failures(verdict), "The package does not do here what it did when it was made.")
