"""What every runner answers: run this ONNX file on these inputs, and say what happened.

A `Runner` is one place where a model can run: this CPU, this CPU with features off, an emulated one, a
browser, a board. A `Job` is the same for all of them, and so is the `Result`. A runner never falls back to
another: what it cannot do, it raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from edgekit.record import Fact, Level
from edgekit.runners.kit import Kit, State

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Measure:
    """What to time, or to count where a runner has no clock that means anything.

    Attributes:
        float_model: The graph to measure against, in turns with the job's model; None measures that alone.
        points: Readable shape, e.g. `1x128` -> inputs.
        warm_up: Runs of each model before the first that counts.
        runs: Timed runs of each model at each point.
        seconds_per_point: Where a point takes longer than this, it ends after the tenth run.
    """

    float_model: Path | None
    points: Mapping[str, Arrays]
    warm_up: int = 8
    runs: int = 30
    seconds_per_point: float = 8.0


@dataclass(frozen=True)
class Job:
    """One question to a runner.

    Attributes:
        model: The ONNX file; weights outside it lie beside it as `<name>.data`.
        batches: Inputs, by name. A runner leaves out those that the graph does not have.
        outputs: Names of the outputs to return.
        repeats: How often all batches are run, to see whether the outputs are the same each time.
        threads: Intra-op threads.
        session_options: Session configuration entries that belong to the artifact.
        measure: What to time or count; None measures nothing.
        timeout_s: Seconds after which the run counts as hung and is killed.
        memory_limit_bytes: Address space that the process may take; None sets no limit. Runners that cannot
            limit it raise `RunnerError`.
    """

    model: Path
    batches: tuple[Arrays, ...]
    outputs: tuple[str, ...]
    repeats: int = 1
    threads: int = 1
    session_options: Mapping[str, str] = field(default_factory=dict)
    measure: Measure | None = None
    timeout_s: float = 300.0
    memory_limit_bytes: int | None = None


@dataclass(frozen=True)
class Times:
    """Times of both models at one point, in turns, milliseconds.

    Attributes:
        point: Readable shape.
        float_ms: One entry per run; empty where there is no float model.
        shipped_ms: One entry per run.
    """

    point: str
    float_ms: tuple[float, ...]
    shipped_ms: tuple[float, ...]


@dataclass(frozen=True)
class Counts:
    """Instructions of one inference of each model at one point.

    Attributes:
        point: Readable shape.
        float_counts: Class of instruction, e.g. `sdot` or `total` -> number; empty without a float model.
        shipped_counts: The same for the job's model.
    """

    point: str
    float_counts: Mapping[str, int]
    shipped_counts: Mapping[str, int]


@dataclass(frozen=True)
class Result:
    """What a runner found.

    Attributes:
        outputs: One mapping per batch of the job, from the first repetition.
        deterministic: Whether every repetition gave the same bytes.
        runtime_version: Version of ONNX Runtime that ran it, as that runtime reports it.
        cpu: The CPU, as seen from inside.
        cpu_features: CPU features seen from inside, sorted; empty where the place does not tell.
        load_ms: Time to open the session, milliseconds; None where it means nothing (emulation).
        peak_memory_bytes: Peak memory that opening the session and running the batches added.
        times: Measured times; empty where nothing was timed.
        counts: Counted instructions; empty where nothing was counted.
        facts: Whatever else the place tells, by name with unit.
    """

    outputs: tuple[Arrays, ...]
    deterministic: bool
    runtime_version: str
    cpu: str = ""
    cpu_features: tuple[str, ...] = ()
    load_ms: float | None = None
    peak_memory_bytes: int | None = None
    times: tuple[Times, ...] = ()
    counts: tuple[Counts, ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)


class Runner(Protocol):
    """One place where a model can run."""

    @property
    def name(self) -> str:
        """What `--on` takes, e.g. `arm64-cortex-a53`."""

    @property
    def title(self) -> str:
        """One line that says what it stands for."""

    @property
    def level(self) -> Level:
        """What a run there proves."""

    @property
    def kit(self) -> Kit | None:
        """What `edgekit runners install` fetches for it; None where it needs nothing of its own."""

    def state(self) -> State:
        """Return whether it can run now; looks, but starts nothing that takes seconds."""

    def run(self, job: Job) -> Result:
        """Run a job.

        Raises:
            RunnerMissingError: It is not installed, or its files are damaged.
            RunnerFailedError: The model does not load there, fails, crashes, is killed, or hangs.
        """
