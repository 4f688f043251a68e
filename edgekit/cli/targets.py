"""`edgekit targets` and `edgekit targets show NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgekit.profile import TargetProfile

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.group("targets", invoke_without_command=True, short_help="List the target profiles.")
@_JSON
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the target profiles, or show one with the source of its values."""
    if context.invoked_subcommand is not None:
        return
    from edgekit.profile import available, load_profile

    profiles = [load_profile(name) for name in available()]
    if as_json:
        from edgekit.store import dump_json

        click.echo(dump_json([profile.model_dump(mode="json") for profile in profiles]), nl=False)
        return
    _print_list(profiles)


@command.command("show")
@click.argument("target", metavar="NAME|FILE.toml")
@_JSON
@click.pass_context
def show(context: click.Context, target: str, as_json: bool) -> None:
    """Show a built-in profile or one of your own, every value with where it comes from."""
    from edgekit.profile import load_profile

    profile = load_profile(target)
    if as_json or (context.parent is not None and context.parent.params.get("as_json")):
        from edgekit.store import dump_json

        click.echo(dump_json(profile.model_dump(mode="json")), nl=False)
        return
    _print_profile(profile)


def short_types(profile: TargetProfile) -> str:
    """Return the types of activations and weights as the field writes them, e.g. `U8S8`."""
    letters = {"uint8": "U8", "int8": "S8", "uint16": "U16"}
    return letters[profile.quantization.activation_type] + letters[profile.quantization.weight_type]


def _print_list(profiles: list[TargetProfile]) -> None:
    from edgekit.cli.tables import stdout_console, table

    grid = table()
    grid.add_column("target", style="bold", no_wrap=True)
    grid.add_column("for")
    for heading in ("types", "per\nchannel", "saturation\n-safe", "ISA", "opset\n/ IR", "ONNX\nRuntime"):
        grid.add_column(heading, no_wrap=True)
    for profile in profiles:
        rules = profile.quantization
        grid.add_row(
            profile.name,
            profile.title,
            short_types(profile),
            _yes(rules.per_channel),
            _yes(rules.reduce_range),
            profile.hardware.isa,
            f"{profile.onnx.opset} / {profile.onnx.ir_version}",
            f"≥ {profile.onnx.min_runtime}",
        )
    console = stdout_console()
    console.print(grid)
    console.print("`edgekit targets show NAME` gives every value with its source.", markup=False)


def _print_profile(profile: TargetProfile) -> None:
    from rich.text import Text

    from edgekit.cli.tables import stdout_console, table

    console = stdout_console()
    console.print(Text(profile.name, style="bold"), Text(profile.title), sep="  ")
    console.print(Text(profile.status))
    grid = table()
    grid.expand = True
    grid.add_column("key", no_wrap=True)
    grid.add_column("value", ratio=4, overflow="fold")
    grid.add_column("where it comes from", ratio=7, overflow="fold", style="dim")
    for section, values in profile.model_dump(mode="json", exclude={"sources"}).items():
        if not isinstance(values, dict):
            continue
        grid.add_row(Text(f"[{section}]", style="bold"))
        for key, value in values.items():
            source = profile.sources.get(f"{section}.{key}", "")
            grid.add_row(f"  {key}", Text(readable_value(value)), Text(source))
    console.print(grid)


def readable_value(value: Any) -> str:
    """Return a profile's value as a person writes it; a dash where there is none."""
    if isinstance(value, bool):
        return _yes(value)
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{key} = {inner}" for key, inner in value.items())
    if isinstance(value, list):
        pairs = ("x".join(map(str, item)) if isinstance(item, list) else str(item) for item in value)
        return ", ".join(pairs)
    return str(value)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
