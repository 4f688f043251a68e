"""The look of tables, shared by the commands that show some."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

_PIPED_WIDTH = 100


def stdout_console() -> Console:
    """Return a console on standard output: as wide as the terminal, or 100 columns when piped."""
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    return console


def table(title: str = "") -> Table:
    """Return an empty table in the house style."""
    grid = Table(title=title or None, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    grid.title_justify, grid.title_style = "left", "bold"
    return grid


def readable_bytes(count: int) -> str:
    """Return a size in kB or MB, decimal, as app stores count them."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"
