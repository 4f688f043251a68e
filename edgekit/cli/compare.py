"""`edgekit compare`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(no_args_is_help=True)
@click.argument("packages", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PACKAGE...")
@click.option(
    "-o", "--output", "page_path", type=click.Path(path_type=Path), help="Write the HTML page here."
)
@click.option("--measure", is_flag=True, help="Time all packages here, in turns in one process.")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="PACKAGE|FILE.onnx",
    help="With --measure: what speed-ups are relative to.  [default: the first package]",
)
@click.option("--runs", type=int, help="With --measure: timed runs at each shape.  [default: 60]")
@click.option("--threads", type=int, help="With --measure: intra-op threads.  [default: the target's]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def command(
    packages: tuple[Path, ...],
    page_path: Path | None,
    measure: bool,
    baseline: Path | None,
    runs: int | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Put packages side by side: what was done, parameters, bytes, quality, speed, memory, and cost.

    A package is dominated where another one is better in size, quality or speed and worse in none of them.
    Without --measure, speed-ups are read from the packages' reports, where each is over the float graph of
    its original model; with it, all that can run here are timed in turns against one baseline, and a package
    for another CPU says why it is not. Needs no PyTorch.
    """
    from rich.console import Console

    from edgekit.cli.progress import shown_progress
    from edgekit.cli.tables import stdout_console
    from edgekit.comparing import compare
    from edgekit.report.compare_page import headline, render_comparison
    from edgekit.report.document import strict_json
    from edgekit.report.terminal import comparison_table
    from edgekit.store import dump_json, write_text

    with shown_progress(Console(stderr=True), quiet=quiet or not measure) as progress:
        comparison = compare(
            packages, measure=measure, baseline=baseline, runs=runs, threads=threads, progress=progress
        )
    if page_path is not None:
        write_text(page_path, render_comparison(comparison))
    if as_json:
        click.echo(dump_json(strict_json(comparison.to_json())), nl=False)
    elif not quiet:
        console = stdout_console()
        console.print(comparison_table(comparison))
        for sentence in (headline(comparison), comparison.basis, *comparison.notes):
            console.print(sentence, markup=False)
