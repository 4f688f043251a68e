"""Progress for a person: a live line on a terminal, plain lines when piped, nothing when quiet."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from edgekit.cli.interrupts import Interrupts
from edgekit.record import Progress, silent

if TYPE_CHECKING:
    from rich.console import Console

_PAUSE_SECONDS = 5.0
"""Between lines of a file that only tell how far a stage is; a training would fill it with thousands."""


@contextmanager
def shown_progress(console: Console, *, quiet: bool) -> Iterator[Progress]:
    """Yield what the pipeline tells its progress to, which also raises a Ctrl-C that was swallowed.

    Args:
        console: Where to show it; standard error, so that output can be piped.
        quiet: Show nothing.
    """
    context = click.get_current_context(silent=True)
    interrupts = (context and context.find_object(Interrupts)) or Interrupts()
    helper = os.environ.get("RANK", "0") != "0"  # of `accelerate launch` or torchrun: the first one tells
    with _shown(console, quiet=quiet or helper) as progress:
        yield interrupts.heeded(progress)


@contextmanager
def _shown(console: Console, *, quiet: bool) -> Iterator[Progress]:
    started = time.perf_counter()
    if quiet:
        yield silent
        return
    if not console.is_terminal:
        said, within = 0.0, ""

        def plain(stage: str, message: str, fraction: float | None = None) -> None:
            nonlocal said, within
            now = time.perf_counter() - started
            if fraction is not None and stage == within and now - said < _PAUSE_SECONDS:
                return
            said, within = now, stage
            line = f"[{now:6.1f} s] {stage}: {message}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        yield plain
        return
    with console.status("starting") as status:
        last, within = "", ""

        def live(stage: str, message: str, fraction: float | None = None) -> None:
            nonlocal last, within
            seconds = f"[dim]{time.perf_counter() - started:6.1f} s[/dim]"
            goes_on = bool(fraction) and stage == within
            within = stage
            if last and not goes_on:
                console.print(f"{seconds} [green]✓[/green] {last}")
            share = f" ({fraction:.0%})" if fraction else ""
            last = f"[bold]{stage:<9}[/bold] {message}"
            status.update(f"{last}{share} …")

        yield live
        console.print(f"[dim]{time.perf_counter() - started:6.1f} s[/dim] [green]✓[/green] {last}")
