"""`edgekit inspect FILE|PACKAGE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.model import TensorSpec
    from edgekit.package.inspection import PackageInspection
    from edgekit.validate.coverage import Coverage, Provider
    from edgekit.validate.inspection import Inspection


@click.command("inspect", short_help="Show what is in an ONNX file or a package.")
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE|PACKAGE")
@click.option(
    "--provider",
    type=click.Choice(["xnnpack", "nnapi", "coreml"]),
    help="Predict which nodes this execution provider of a phone would take.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(path: Path, provider: Provider | None, as_json: bool) -> None:
    """Show signature, versions, operators, quantized share and sizes of an ONNX file.

    For a package (a folder that `edgekit export` made) also its target and how it was made.
    """
    from edgekit.cli.tables import stdout_console
    from edgekit.store import dump_json

    if provider is not None:
        from edgekit.package.manifest import open_package
        from edgekit.validate.coverage import predict_coverage

        coverage = predict_coverage(open_package(path).model if path.is_dir() else path, provider)
        if as_json:
            click.echo(dump_json(coverage.to_json()), nl=False)
        else:
            _print_coverage(stdout_console(), coverage)
        return
    if path.is_dir():
        from edgekit.package.inspection import inspect_package

        package = inspect_package(path)
        if as_json:
            click.echo(dump_json(package.to_json()), nl=False)
        else:
            _print_package(stdout_console(), package)
        return
    from edgekit.validate.inspection import inspect_file

    inspection = inspect_file(path)
    if as_json:
        click.echo(dump_json(inspection.to_json()), nl=False)
    else:
        _print_inspection(stdout_console(), inspection)


def _print_coverage(console: Console, coverage: Coverage) -> None:
    from rich.text import Text

    from edgekit.cli.tables import table

    grid = table(f"What {coverage.provider} would leave to the CPU (predicted, not run)")
    grid.add_column("operator", no_wrap=True)
    grid.add_column("nodes", justify="right")
    grid.add_column("why", overflow="fold")
    for group in coverage.left:
        grid.add_row(Text(group.op), str(len(group.nodes)), Text(group.why))
    console.print(grid)
    console.print(
        f"{coverage.provider} would take {coverage.taken} of {coverage.nodes} nodes; a run would change"
        f" between it and the CPU {coverage.switches} times.",
        markup=False,
    )


def _print_package(console: Console, package: PackageInspection) -> None:
    from rich.text import Text

    from edgekit.cli.tables import readable_bytes, table

    facts = table()
    facts.show_header = False
    facts.add_row("package", Text(str(package.path)))
    facts.add_row("model", Text(f"{package.name} ({package.task})" if package.task else package.name))
    facts.add_row("target", Text(package.target))
    facts.add_row("runs on", Text(f"ONNX Runtime {package.min_runtime} and newer"))
    console.print(facts)
    for inspection in package.graphs.values():
        _print_inspection(console, inspection)
    steps = table("How it was made")
    for heading in ("stage", "step", "what it did"):
        steps.add_column(heading)
    steps.add_column("left alone", justify="right")
    steps.add_column("size after", justify="right")
    for record in package.history:
        after = record.get("bytes_after")
        steps.add_row(
            *(Text(str(record.get(key, ""))) for key in ("stage", "step", "did")),
            str(len(record.get("skipped") or ()) or ""),
            readable_bytes(after) if isinstance(after, int) else "",
        )
    console.print(steps)
    files = table("Files")
    files.add_column("name")
    files.add_column("size", justify="right")
    for name, size in sorted(package.files.items()):
        files.add_row(Text(name), readable_bytes(size))
    console.print(files)


def _print_inspection(console: Console, inspection: Inspection) -> None:
    from rich.text import Text

    from edgekit.cli.tables import readable_bytes, table

    facts = table()
    facts.show_header = False
    facts.add_column(no_wrap=True)
    facts.add_column()
    opsets = ", ".join(f"{domain} {version}" for domain, version in inspection.opsets.items())
    facts.add_row("file", Text(str(inspection.path)))
    facts.add_row("written by", Text(inspection.producer or "(it does not say)"))
    facts.add_row("versions", Text(f"IR {inspection.ir_version}, opset {opsets}"))
    for title, specs in (("input", inspection.signature.inputs), ("output", inspection.signature.outputs)):
        for spec in specs:
            facts.add_row(title, Text(_spec(spec)))
    size = (
        f"{readable_bytes(inspection.file_bytes)}, compressed {readable_bytes(inspection.compressed_bytes)}"
    )
    external = ", ".join(inspection.external_files)
    facts.add_row("size", Text(f"{size} (with {external})" if external else size))
    facts.add_row("constants", Text(_bytes_by_dtype(inspection)))
    facts.add_row("quantized weights", Text(_parameters(inspection)))
    facts.add_row("quantized layers", Text(_layers(inspection)))
    facts.add_row("operators", Text(", ".join(f"{count} {op}" for op, count in inspection.ops.items())))
    console.print(facts)


def _spec(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.dtype} [{', '.join(map(str, spec.shape))}]"


def _bytes_by_dtype(inspection: Inspection) -> str:
    from edgekit.cli.tables import readable_bytes

    return (
        ", ".join(f"{dtype} {readable_bytes(size)}" for dtype, size in inspection.bytes_by_dtype.items())
        or "none"
    )


def _parameters(inspection: Inspection) -> str:
    share = inspection.quantized_parameter_share
    if share is None:
        return "the file holds no weights"
    return f"{share:.1%} of {inspection.parameters:,} parameters are stored as integers"


def _layers(inspection: Inspection) -> str:
    share = inspection.quantized_layer_share
    if share is None:
        return "no layer has constant weights"
    parts = (f"{op} {done} of {total}" for op, (done, total) in inspection.weighted_layers.items())
    return f"{share:.1%}: {', '.join(parts)}"
