"""`edgekit export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.request import COLUMN, FORCE, MODEL, QUIET, VALIDATION_SAMPLES, WHERE, declared, request_of

if TYPE_CHECKING:
    from edgekit.pipeline import ExportResult
    from edgekit.recipe import Recipe


def _gates(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    gates = {}
    for value in values:
        name, equals, number = value.partition("=")
        try:
            gates[name] = float(number)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise click.BadParameter(f"'{value}' is not NAME=NUMBER, e.g. cosine_mean=0.995")
    return gates


@click.command(no_args_is_help=True)
@click.argument("model", required=False)
@click.option(
    "-t", "--target", "targets", multiple=True, help="Target profile or FILE.toml; repeat for several."
)
@declared(*WHERE)
@click.option("-c", "--calibration", help="Your samples: .txt, .jsonl, .csv, .npz, or a folder of images.")
@COLUMN
@click.option("--label-column", help="Column, key or array that holds the label.")
@click.option("--samples", type=int, help="Calibration samples at most.  [default: 256]")
@click.option("--validation", help="Samples to validate on; left out, they are held out from --calibration.")
@VALIDATION_SAMPLES
@declared(*MODEL)
@click.option("--weights", help="For package.module:factory: the folder that `edgekit compress` made of it.")
@click.option(
    "--ship",
    type=click.Choice(["static", "dynamic", "float", "best"]),
    help="Form in the package; best builds all and lets the figures choose.  [default: the target's]",
)
@click.option("--method", type=click.Choice(["static", "none"]), help="Quantization.  [default: static]")
@click.option("--no-smoothing", is_flag=True, help="Do not migrate activation outliers into weights.")
@click.option("--no-bias-correction", is_flag=True, help="Do not correct biases for the mean error.")
@click.option(
    "--range",
    "range_method",
    type=click.Choice(["mse", "minmax", "percentile", "entropy"]),
    help="Activation ranges.  [default: mse]",
)
@click.option("--percentile", type=float, help="For --range percentile, in percent.  [default: 99.99]")
@click.option(
    "--rounding",
    type=click.Choice(["nearest", "compensated"]),
    help="Rounding of weights.  [default: compensated]",
)
@click.option(
    "--embeddings",
    type=click.Choice(["int8", "int4"]),
    help="Embedding tables: one scale per row, or 4 bits with one per block.  [default: the target's]",
)
@click.option("--no-mixed", is_flag=True, help="Let a gate fail rather than leave layers in float.")
@click.option(
    "--max-drop",
    type=float,
    help="Loss of quality against float that is allowed: 0.01 is a point of accuracy or cosine.",
)
@click.option("--exclude", multiple=True, help="Node names (shell pattern) to leave in float; repeatable.")
@click.option(
    "--save-statistics",
    type=click.Path(path_type=Path),
    help="Keep what calibration finds in FILE; goes on from it after a kill.",
)
@click.option(
    "--statistics",
    type=click.Path(path_type=Path),
    help="Take what calibration found from FILE; the same model and data.",
)
@click.option("--max-memory", type=float, help="Memory that calibration may add, in MB; more passes if less.")
@click.option("--gate", "gates", multiple=True, callback=_gates, help="NAME=VALUE threshold; repeatable.")
@click.option(
    "--runs", type=int, help="Timed runs per model and input shape; 0 times nothing.  [default: 60]"
)
@click.option("--threads", type=int, help="Intra-op threads when timing.  [default: the target's]")
@click.option(
    "--candidates",
    is_flag=True,
    default=None,
    help="Also make and time the forms that do not ship.",
)
@click.option(
    "--min-runtime", help="Oldest ONNX Runtime that has to load it, e.g. 1.16.  [default: the target's]"
)
@click.option(
    "--on",
    multiple=True,
    metavar="RUNNER",
    help="Also run the packages there before they are written, see `edgekit runners`; repeatable.",
)
@click.option("--keep-float", is_flag=True, default=None, help="Keep the float graph beside the packages.")
@FORCE
@click.option("--dry-run", is_flag=True, help="Print the plan and the resolved profiles, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Also print every step with what it did and skipped.")
@QUIET
def command(
    recipe_path: Path | None,
    output: Path | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
    statistics: Path | None,
    save_statistics: Path | None,
    max_memory: float | None,
    **flags: Any,
) -> None:
    """Take MODEL to validated, packaged int8 artifacts, one per target.

    MODEL is a Hugging Face or sentence-transformers directory, a Hub id, or package.module:factory for any
    nn.Module. Each target's package becomes a folder in the output, with one report over all.

    \b
    edgekit export ./all-MiniLM-L6-v2 -t cpu-x86 -t arm64 -c texts.txt -o build/minilm
    """
    from rich.console import Console

    from edgekit.cli.progress import shown_progress

    recipe = _recipe(recipe_path, flags)
    if dry_run:
        _print_plan(recipe, output, as_json)
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output'.")
    with shown_progress(Console(stderr=True), quiet=quiet or as_json) as progress:
        from edgekit.pipeline import export
        from edgekit.quantize.run import CalibrationRun

        run = CalibrationRun(statistics, save_statistics, max_memory)
        result = export(recipe, output, force=force, progress=progress, calibration_run=run)
    if as_json:
        click.echo(_json(result))
    elif not quiet:
        _print_result(result, verbose)


def _recipe(path: Path | None, flags: dict[str, Any]) -> Recipe:
    table = {
        "targets": list(flags["targets"]) or None,
        "ship": flags["ship"],
        "min_runtime": flags["min_runtime"],
        "keep_float": flags["keep_float"],
        "gates": flags["gates"],
        "calibration": {
            "data": flags["calibration"],
            "column": flags["column"],
            "label_column": flags["label_column"],
            "samples": flags["samples"],
        },
        "quantize": {
            "method": flags["method"],
            "smoothing": False if flags["no_smoothing"] else None,
            "bias_correction": False if flags["no_bias_correction"] else None,
            "range_method": flags["range_method"],
            "percentile": flags["percentile"],
            "rounding": flags["rounding"],
            "embeddings": flags["embeddings"],
            "mixed": False if flags["no_mixed"] else None,
            "max_drop": flags["max_drop"],
            "exclude": list(flags["exclude"]) or None,
        },
        "latency": {key: flags[key] for key in ("runs", "threads", "candidates")},
        "verify": {"on": list(flags["on"]) or None},
    }
    recipe = request_of(path, flags["model"], flags, table)
    if not recipe.targets:
        raise click.UsageError(
            "Missing option '-t' / '--target' (or 'targets' in --recipe). See: edgekit targets"
        )
    return recipe


def _print_plan(recipe: Recipe, output: Path | None, as_json: bool) -> None:
    import json

    from edgekit.preflight import calibrates, resolve, ship_of
    from edgekit.recipe import to_toml

    profiles = resolve(recipe)
    if as_json:
        plan = {
            "recipe": recipe.model_dump(mode="json"),
            "profiles": [profile.model_dump(mode="json") for profile in profiles],
        }
        click.echo(json.dumps(plan, indent=2))
        return
    click.echo("# The request, every default spelled out\n")
    click.echo(to_toml(recipe))
    click.echo("# The way\n")
    graphs = sorted({(p.onnx.opset, p.onnx.ir_version) for p in profiles})
    click.echo(f"load      {recipe.model}")
    if recipe.compress.techniques:
        click.echo(f"compress  {', '.join(recipe.compress.techniques)}; measure each against the original")
    if recipe.distill is not None:
        click.echo(f"distill   {recipe.distill.student or 'what is left'}: learn from {recipe.model}")
    for opset, ir_version in graphs:
        click.echo(f"export    opset {opset}, IR {ir_version}; compare with PyTorch; optimize; compare again")
    if any(calibrates(recipe, profile) for profile in profiles):
        click.echo(
            f"calibrate {recipe.calibration.data or 'NO DATA GIVEN: --calibration is needed'}, once per graph"
        )
    for profile in profiles:
        rules = profile.quantization
        types = f"{rules.activation_type} x {rules.weight_type}"
        form = {
            "static": f"static int8, {types}",
            "dynamic": f"dynamic int8, {rules.weight_type} weights",
            "float": "float",
            "best": f"the best of float, dynamic int8 and static int8 ({types})",
        }[ship_of(recipe, profile)]
        click.echo(
            f"target    {profile.name}: {form}; validate; package in {output or 'OUTPUT'}/{profile.name}"
        )
    for profile in profiles:
        click.echo(f"\n# Target {profile.name}, resolved\n")
        for key, value in profile.model_dump(mode="json", exclude={"sources"}).items():
            click.echo(f"{key} = {json.dumps(value)}")


def _json(result: ExportResult) -> str:
    import json

    summary = {
        "output": str(result.output),
        "report": str(result.report_path),
        "packages": [str(package.path) for package in result.packages],
        "targets": [report.to_json() for report in result.reports],
    }
    return json.dumps(summary, indent=2)


def _print_result(result: ExportResult, verbose: bool) -> None:
    from edgekit.cli.tables import stdout_console
    from edgekit.report.matrix import matrix_sentence
    from edgekit.report.terminal import forms_table, summary_table, waterfall_table
    from edgekit.report.waterfall import waterfall

    console = stdout_console()
    documents = [report.to_json() for report in result.reports]
    console.print(summary_table(documents))
    for document in documents:
        if document["candidates"]:
            console.print(f"\nForms for {document['verdict']['target']}", style="bold", markup=False)
            console.print(forms_table(document))
            console.print()
    for document in documents:
        if steps := waterfall(document):
            console.print(
                f"\nWhat each step cost, {document['verdict']['target']}", style="bold", markup=False
            )
            console.print(waterfall_table(steps))
            console.print()
    for report, document in zip(result.reports, documents, strict=True):
        proved = f"Level: {report.verdict.level}. {matrix_sentence(document)}".strip()
        for note in (*report.verdict.notes, proved):
            console.print(f"{report.profile.name}: {note}", markup=False, soft_wrap=True)
    if verbose:
        for report in result.reports:
            console.print(f"\n{report.profile.name}", style="bold")
            for record in report.history:
                console.print(f"  {record.stage}/{record.step}: {record.did}", markup=False, soft_wrap=True)
                for skip in record.skipped:
                    console.print(f"    left alone: {skip.what}: {skip.why}", markup=False, soft_wrap=True)
    click.echo(f"\nPackages: {', '.join(str(package.path) for package in result.packages)}")
    click.echo(f"Report:   {result.report_path}")
