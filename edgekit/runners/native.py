"""This CPU, as it is."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from edgekit.machine import installed_version
from edgekit.record import Level
from edgekit.runners.base import Job, Result
from edgekit.runners.kit import Kit, State
from edgekit.runners.python_child import run_in_python


@dataclass(frozen=True)
class Native:
    """ONNX Runtime in a Python process of its own on this machine."""

    name: str = "native"
    title: str = "this CPU, with the installed ONNX Runtime"
    level: Level = "native"
    kit: Kit | None = None

    def state(self) -> State:
        """Return whether onnxruntime is installed."""
        if installed_version("onnxruntime") is None:
            return State("onnxruntime is not installed", "pip install edgekit")
        return State()

    def run(self, job: Job) -> Result:
        """Run a job in a fresh process."""
        return run_in_python(self.name, Path(sys.executable), job)
