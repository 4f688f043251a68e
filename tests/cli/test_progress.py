"""What a person sees of a long stage: one line that changes, and few lines in a file."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from edgekit.cli.progress import shown_progress


@pytest.fixture
def shown():
    def run(*, terminal: bool) -> str:
        out = io.StringIO()
        with shown_progress(Console(file=out, force_terminal=terminal, width=100), quiet=False) as progress:
            progress("load", "reading the data", None)
            for step in range(200):
                progress("distill", f"step {step} of 200", step / 200)
            progress("package", "writing", None)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())

    return run


def test_a_stage_that_tells_how_far_it_is_leaves_one_line_on_a_terminal(shown):
    ticked = [line for line in shown(terminal=True).splitlines() if "✓" in line]
    assert len(ticked) == 3
    assert "step 199 of 200" in ticked[1]


def test_it_does_not_fill_a_file(shown):
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 3
    assert "reading the data" in lines[0]
    assert "step 0 of 200" in lines[1]
    assert "writing" in lines[2]
