"""What the command lines of benchmarks by rows share."""

from __future__ import annotations

import argparse
from collections.abc import Iterable


def refuse_unknown(parser: argparse.ArgumentParser, named: Iterable[str], known: Iterable[str]) -> None:
    """End the program with the rows that there are where one is named that is not among them."""
    there = list(known)
    unknown = [name for name in named if name not in there]
    if unknown:
        parser.error(f"no row {unknown[0]!r}; there are: {'; '.join(there)}")
