"""Where a model can run: this CPU, this CPU with features off, emulated ARM, WebAssembly, a browser, a board.

One file or folder per place; `table.RUNNERS` lists them. `base` says what they all answer, `kit` how their
parts are installed, `job_folder` how a question travels to a place that has no edgekit.
"""

from edgekit.runners.base import Counts, Job, Measure, Result, Runner, Times
from edgekit.runners.kit import State

__all__ = ["Counts", "Job", "Measure", "Result", "Runner", "State", "Times"]
