"""`edgekit compress`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.request import COLUMN, FORCE, MODEL, QUIET, VALIDATION_SAMPLES, WHERE, declared, request_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgekit.compressing import CompressResult
    from edgekit.recipe import Recipe


class _Layers(click.ParamType):
    name = "N|I,J,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read `4` as how many, `0,1,3,5` as which."""
        try:
            numbers = [int(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"'{value}' is neither a number nor a list of numbers, e.g. 4 or 0,1,3,5", param, ctx)
        return numbers if "," in str(value) else numbers[0]


class _Vocabulary(click.ParamType):
    name = "TOKENS|SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read `12000` as how many tokens, `0.999` as the share of the corpus."""
        try:
            return float(value) if "." in str(value) else int(value)
        except ValueError:
            self.fail(f"'{value}' is neither a count such as 12000 nor a share such as 0.999", param, ctx)


@click.command(no_args_is_help=True)
@click.argument("model", required=False)
@declared(*WHERE)
@click.option("-d", "--data", help="Samples to look at: .txt, .jsonl, .csv, .npz, or a folder of images.")
@COLUMN
@click.option("--label-column", help="Column, key or array that holds the label; only accuracy needs it.")
@click.option("--samples", type=int, help="Samples to look at, at most.  [default: 512]")
@click.option("--validation", help="Samples to measure the loss on; left out, they are held out from --data.")
@VALIDATION_SAMPLES
@declared(*MODEL)
@click.option("--weights", help="For package.module:factory: what compress made of it before.")
@click.option("--adapter", "adapters", multiple=True, help="LoRA folder to merge first; repeatable.")
@click.option(
    "--vocabulary", type=_Vocabulary(), help="Keep so many tokens, or those of a share of the corpus."
)
@click.option("--corpus", help="Texts that say which tokens are needed.  [default: --data]")
@click.option("--positions", type=int, help="Keep the positions that texts of so many tokens use.")
@click.option("--embedding-rank", type=int, help="Width of a narrower table of token embeddings.")
@click.option("--layers", type=_Layers(), help="Keep so many layers, or these.")
@click.option("--ffn", type=int, help="Neurons that stay in each feed-forward block.")
@click.option("--heads", type=int, help="Attention heads that stay in each layer.")
@click.option("--time", type=float, help="Share of the layers' time that may remain, as measured in int8.")
@click.option("--multiply-adds", type=float, help="Share of the layers' multiply-adds that may remain.")
@click.option("--no-repair", is_flag=True, help="Do not fit what is left to do the work of what went.")
@click.option("--channels", type=float, help="Share of a CNN's multiply-adds that may remain.")
@click.option("--low-rank", type=float, help="Share of the matrices' parameters that may remain.")
@click.option("--sparsity", type=float, help="Share of the weights to set to zero: a smaller download only.")
@click.option(
    "-t", "--target", help="Target whose types are timed for --time and --low-rank.  [default: cpu-x86]"
)
@FORCE
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Also print what each step left alone.")
@QUIET
def command(
    recipe_path: Path | None,
    output: Path | None,
    force: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Make MODEL smaller without training: fewer tokens, layers, heads, neurons, channels; lower rank.

    Writes a model directory that `edgekit export` takes, and that says what each step cost: outputs are
    compared with the original's on held-out samples. No labels are needed. The same steps are tables of
    [compress] in a recipe for `edgekit export`.

    \b
    edgekit compress ./all-MiniLM-L6-v2 -d texts.txt --vocabulary 12000 --layers 4 -o build/small
    """
    from edgekit.compressing import compress_model

    make(compress_model, _recipe(recipe_path, flags), output, force, as_json, quiet, verbose)


def make(
    verb: Callable[..., CompressResult],
    recipe: Recipe,
    output: Path | None,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool = False,
) -> None:
    """Make a model's directory, show how it goes, and print what was done.

    Args:
        verb: `compress_model` or `distill_model`.
        recipe: The request.
        output: Folder to make.
        force: Replace it if it is there.
        as_json: Print JSON.
        quiet: Print nothing.
        verbose: Also print what each step left alone.
    """
    from rich.console import Console

    from edgekit.cli.progress import shown_progress
    from edgekit.report.document import strict_json
    from edgekit.store import dump_json

    if output is None:
        raise click.UsageError("Missing option '-o' / '--output'.")
    with shown_progress(Console(stderr=True), quiet=quiet or as_json) as progress:
        result = verb(recipe, output, force=force, progress=progress)
    if as_json:
        click.echo(dump_json(strict_json(result.to_json())), nl=False)
    elif not quiet:
        _print_result(result, verbose)


def _recipe(path: Path | None, flags: dict[str, Any]) -> Recipe:
    table = {
        "targets": [flags["target"]] if flags["target"] else None,
        "calibration": {
            "data": flags["data"],
            "column": flags["column"],
            "label_column": flags["label_column"],
            "samples": flags["samples"] or (512 if flags["data"] else None),
        },
        "compress": {"samples": flags["samples"], **_techniques(flags)},
    }
    return request_of(path, flags["model"], flags, table)


def _techniques(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the tables of `[compress]` that flags ask for; none for a technique that no flag names."""
    vocabulary = flags["vocabulary"]
    width = {key: flags[key] for key in ("ffn", "heads", "time", "multiply_adds")}
    repair = False if flags["no_repair"] else None
    tables: dict[str, dict[str, Any]] = {
        "adapters": {"paths": list(flags["adapters"]) or None},
        "vocabulary": {
            "tokens": vocabulary if isinstance(vocabulary, int) else None,
            "coverage": vocabulary if isinstance(vocabulary, float) else None,
            "data": flags["corpus"],
        },
        "positions": {"keep": flags["positions"]},
        "embeddings": {"rank": flags["embedding_rank"]},
        "layers": {"keep": flags["layers"]} | ({"repair": repair} if flags["layers"] else {}),
        "width": width | ({"repair": repair} if any(width.values()) else {}),
        "channels": {"multiply_adds": flags["channels"]} | ({"repair": repair} if flags["channels"] else {}),
        "low_rank": {"parameters": flags["low_rank"]},
        "sparsity": {"share": flags["sparsity"]},
    }
    return {name: table for name, table in tables.items() if any(v is not None for v in table.values())}


def _print_result(result: CompressResult, verbose: bool) -> None:
    from edgekit.cli.tables import stdout_console
    from edgekit.report.terminal import waterfall_table
    from edgekit.report.waterfall import stages

    console = stdout_console()
    console.print(waterfall_table(stages([record.to_json() for record in result.history])))
    console.print()
    for record in result.history:
        if record.stage in ("compress", "distill"):
            console.print(f"{record.step}: {record.did}", markup=False, soft_wrap=True)
            for skip in record.skipped if verbose else ():
                console.print(f"    left alone: {skip.what}: {skip.why}", markup=False, soft_wrap=True)
    kept = result.parameters / result.parameters_before
    click.echo(f"\n{result.parameters_before:,} -> {result.parameters:,} parameters ({kept:.0%}).")
    click.echo(f"Model: {result.output}")
    click.echo(f"Next:  edgekit export {result.output} -t cpu-x86 -c SAMPLES -o OUTPUT")
