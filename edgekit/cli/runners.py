"""`edgekit runners`, `edgekit runners install NAME...` and `edgekit runners remove NAME...`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgekit.runners.kit import Kit


@click.group("runners", invoke_without_command=True, short_help="List the places where a model can run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the places where a model can run: which are ready, and how to get the others.

    `edgekit validate PACKAGE --on NAME` runs a package there.
    """
    if context.invoked_subcommand is not None:
        return
    from edgekit.runners.table import RUNNERS

    if as_json:
        from edgekit.store import dump_json

        entries = [
            {
                "name": runner.name,
                "title": runner.title,
                "level": runner.level,
                "ready": (state := runner.state()).ready,
                "missing": state.missing,
                "hint": state.hint,
                "kit": runner.kit.name if runner.kit else None,
            }
            for runner in RUNNERS
        ]
        click.echo(dump_json(entries), nl=False)
        return
    _print_list()


@command.command("install")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Fetch and make it again.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def install(names: tuple[str, ...], force: bool, quiet: bool) -> None:
    """Install what a runner needs, without root, in the user's cache.

    NAME is a runner, a kit, or `all`. Every download is pinned by its SHA-256; its size is shown first.
    """
    from rich.console import Console

    from edgekit.cli.progress import shown_progress
    from edgekit.runners.kit import install_kit

    chosen = _kits(names)
    errors = Console(stderr=True)
    if not quiet:
        for kit in chosen:
            size = f"{kit.download_bytes / 1e6:.1f} MB to fetch"
            click.echo(f"{kit.name}: {kit.title} ({size}, into {kit.folder.parent})", err=True)
    for kit in chosen:
        with shown_progress(errors, quiet=quiet) as progress:
            made = install_kit(kit, force=force, progress=progress)
        if not quiet:
            click.echo(f"{kit.name}: {'installed' if made else 'was there already, every file intact'}")


@command.command("remove")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def remove(names: tuple[str, ...]) -> None:
    """Remove what was installed for a runner, a kit, or `all`."""
    from edgekit.runners.kit import remove_kit

    for kit in _kits(names):
        click.echo(f"{kit.name}: {'removed' if remove_kit(kit) else 'was not installed'}")


def _kits(names: tuple[str, ...]) -> tuple[Kit, ...]:
    from edgekit.errors import RunnerMissingError, nearest
    from edgekit.runners.table import RUNNERS, kits

    known = {kit.name: kit for kit in kits()}
    chosen: dict[str, Kit] = {}
    for name in names:
        if name == "all":
            chosen |= known
        elif name in known:
            chosen[name] = known[name]
        elif runner := next((runner for runner in RUNNERS if runner.name == name), None):
            if runner.kit is not None:
                chosen[runner.kit.name] = runner.kit
            elif not (state := runner.state()).ready:
                raise RunnerMissingError(f"{name}: {state.missing}", state.hint)
        else:
            hint = nearest(name, [*known, *(runner.name for runner in RUNNERS)])
            raise RunnerMissingError(f"unknown runner or kit '{name}'", hint)
    return tuple(chosen.values())


def _print_list() -> None:
    from rich.text import Text

    from edgekit.cli.tables import stdout_console, table
    from edgekit.runners.table import RUNNERS

    grid = table()
    grid.add_column("runner", style="bold", no_wrap=True)
    grid.add_column("level", no_wrap=True)
    grid.add_column("what it is", ratio=3, overflow="fold")
    grid.add_column("state", ratio=3, overflow="fold")
    grid.expand = True
    for runner in RUNNERS:
        state = runner.state()
        told = (
            Text("ready", style="green")
            if state.ready
            else Text(": ".join(filter(None, (state.missing, state.hint))), "yellow")
        )
        grid.add_row(runner.name, runner.level, Text(runner.title), told)
    console = stdout_console()
    console.print(grid)
    console.print(
        "`edgekit validate PACKAGE --on NAME` runs a package there; `--on all` on all that are ready.",
        markup=False,
    )
