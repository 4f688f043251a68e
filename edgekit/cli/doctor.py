"""`edgekit doctor`: what this machine has, what it can measure, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.machine import Machine

FEATURES: dict[str, dict[str, str]] = {
    "x86_64": {
        "avx2": "int8 products in saturating 16-bit lanes, where there is no VNNI",
        "avx512f": "wider float kernels",
        "avx_vnni": "exact int8 dot products (256 bit)",
        "avx512_vnni": "exact int8 dot products (512 bit)",
        "amx_int8": "int8 tiles, uint8 activations only",
    },
    "aarch64": {
        "asimd": "NEON",
        "asimddp": "int8 dot products (SDOT, UDOT)",
        "i8mm": "int8 matrix products (SMMLA), Linux and Android",
        "sve": "scalable vectors",
        "bf16": "bfloat16 products",
    },
}
"""Instruction set -> CPU feature -> what ONNX Runtime's kernels do with it.

Source: onnxruntime core/mlas/lib/platform.cpp.
"""


@click.command("doctor", short_help="Show versions, CPU features, runtime limits and what is missing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(as_json: bool) -> None:
    """Show what this machine has, what can be measured here, and what is missing.

    Exit code 3 when ONNX Runtime is missing or broken; everything else that is missing is only listed.
    """
    from edgekit.errors import MachineError

    findings = examine()
    if as_json:
        from edgekit.store import dump_json

        click.echo(dump_json(findings), nl=False)
    else:
        _print(findings)
    problem = findings["runtime"]["problem"]
    if problem:
        raise MachineError(problem, findings["runtime"]["hint"])


def examine() -> dict[str, Any]:
    """Return everything that doctor finds, as JSON values."""
    from edgekit.machine import BASE_PACKAGES, EXPORT_PACKAGES, read_machine, versions

    machine, installed, runtime = read_machine(), versions(), _runtime()
    missing = {
        group: [package for package in packages if package not in installed]
        for group, packages in (("base", BASE_PACKAGES), ("export", EXPORT_PACKAGES))
    }
    return {
        "versions": installed,
        "machine": machine.to_json(),
        "features": [
            {"name": name, "there": name in (machine.features or ()), "purpose": purpose}
            for name, purpose in FEATURES.get(machine.isa, {}).items()
        ],
        "runtime": runtime,
        "targets": _targets(machine),
        "runners": _runners(),
        "missing": missing,
        "advice": _advice(missing),
    }


def _runtime() -> dict[str, Any]:
    from edgekit.errors import MachineError
    from edgekit.machine import runtime_ceilings

    try:
        ceilings = runtime_ceilings()
    except MachineError as error:
        return {"ir_version": None, "opset": None, "problem": error.message, "hint": error.hint}
    return {"ir_version": ceilings.ir_version, "opset": ceilings.opset, "problem": "", "hint": ""}


def _targets(machine: Machine) -> list[dict[str, Any]]:
    from edgekit.machine import why_not_measured
    from edgekit.profile import available, load_profile

    rows = []
    for name in available():
        reason = why_not_measured(machine, load_profile(name).hardware)
        rows.append({"name": name, "latency_measured_here": reason is None, "reason": reason or ""})
    return rows


def _runners() -> list[dict[str, Any]]:
    from edgekit.runners.table import RUNNERS

    states = [(runner.name, runner.state()) for runner in RUNNERS]
    return [
        {"name": name, "ready": state.ready, "missing": state.missing, "get": state.hint}
        for name, state in states
    ]


def _advice(missing: dict[str, list[str]]) -> list[str]:
    advice = []
    if missing["base"]:
        advice.append(f"missing {', '.join(missing['base'])}; install with: pip install edgekit")
    if missing["export"]:
        advice.append(
            f"`edgekit export` needs {', '.join(missing['export'])}; "
            "install with: pip install 'edgekit[export]'"
        )
    return advice


def _print(findings: dict[str, Any]) -> None:
    from rich.text import Text

    from edgekit.cli.tables import stdout_console
    from edgekit.report.wording import say_bytes

    console = stdout_console()
    machine, runtime = findings["machine"], findings["runtime"]
    console.print(
        Text(
            f"{machine['cpu'] or 'unnamed CPU'}, {machine['arch']}, {machine['cores']} logical cores, "
            f"{say_bytes(machine['memory_bytes'])} of memory, {machine['os']}"
        )
    )
    console.print()
    _rows(console, "Versions", ("package", "version"), list(findings["versions"].items()))
    features = [
        (row["name"], "yes" if row["there"] else "no", row["purpose"]) for row in findings["features"]
    ]
    if machine["features"] is None:
        console.print(Text(f"CPU features: {machine['os']} does not list them\n"))
    elif features:
        _rows(
            console, "CPU features", ("feature", "here", "what int8 and float kernels do with it"), features
        )
    ceilings = (
        [("file format (IR version)", str(runtime["ir_version"])), ("operator set", str(runtime["opset"]))]
        if not runtime["problem"]
        else [("unusable", runtime["problem"])]
    )
    _rows(console, "Newest files that this ONNX Runtime loads", ("what", "highest"), ceilings)
    targets = [
        (row["name"], "timed here" if row["latency_measured_here"] else "not timed here", row["reason"])
        for row in findings["targets"]
    ]
    _rows(console, "Targets", ("target", "latency", "because"), targets)
    ready = [row["name"] for row in findings["runners"] if row["ready"]]
    console.print(
        Text(
            f"{len(ready)} of {len(findings['runners'])} places to run a package are ready:"
            f" {', '.join(ready)}. `edgekit runners` lists all, and how to get them."
        )
    )
    for line in findings["advice"] or ["every package that `edgekit export` needs is installed"]:
        console.print(Text(line[0].upper() + line[1:]))


def _rows(
    console: Console,
    title: str,
    headings: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
) -> None:
    from rich.text import Text

    from edgekit.cli.tables import table

    grid = table()
    for heading in headings:
        grid.add_column(heading, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(Text(title, style="bold"))
    console.print(grid)
