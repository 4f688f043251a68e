"""The command line: one file per command, each parses, calls, renders.

A command's module is imported only when that command runs, so that help is instant; the one-line summaries
are kept here for the same reason.
"""

from __future__ import annotations

from importlib import import_module

import click

from edgekit import __version__

COMMANDS = {
    "compress": "Make a model smaller without training, and say what each step cost.",
    "distill": "Train a smaller model to give what a larger one gives.",
    "export": "Take a model to validated, packaged int8 artifacts, one per target.",
    "validate": "Run a package's gates again, from the package alone.",
    "explain": "Show where a package's time goes, and why some of it is float.",
    "compare": "Put packages side by side: size, quality, speed, cost, and which are worth having.",
    "runners": "List the places where a model can run, and install one.",
    "inspect": "Show what is in an ONNX file or a package.",
    "targets": "List the target profiles, or show one with its sources.",
    "doctor": "Show versions, CPU features, runtime limits and what is missing.",
}
"""Command -> one-line summary; the module `edgekit.cli.<command>` holds the click object `command`."""


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries, and imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order to show them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"edgekit.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the closest command when one is unknown."""
        from edgekit.errors import nearest

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"unknown command '{args[0]}'. {nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summaries without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgekit")
def cli() -> None:
    """Take a PyTorch model to edge devices: small, static int8 by the device's rules, proved, packaged."""
