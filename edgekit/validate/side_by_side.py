"""Shipped graphs of different makes, timed in turns in one process at the same input shapes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.errors import ModelError
from edgekit.golden import Golden
from edgekit.runtime import open_session
from edgekit.validate.candidates import Timings
from edgekit.validate.latency import has_sequence, inputs_at_points, longest_recorded, time_in_turns


@dataclass(frozen=True)
class Contestant:
    """One graph to time.

    Attributes:
        name: Different from every other one's.
        model: The file.
        golden: Recorded inputs that it takes: a trimmed vocabulary has other ids than the whole one.
        max_length: Longest sequence that it takes; None takes the longest that was recorded.
        session_options: Session configuration entries.
    """

    name: str
    model: Path
    golden: Golden
    max_length: int | None = None
    session_options: Mapping[str, str] = field(default_factory=dict)


def time_side_by_side(
    contestants: Sequence[Contestant],
    points: Sequence[tuple[int, int]],
    *,
    runs: int,
    threads: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Timings, dict[str, str]]:
    """Time graphs in turns.

    Args:
        contestants: At least one.
        points: (batch, length); lengths are cut to what every graph takes.
        runs: Timed turns at each point.
        threads: Intra-op threads of every session.
        clock: See `time_in_turns`.

    Returns:
        The times of those that run here, and name -> why not of the others.

    Raises:
        ModelError: The runtime opens a graph and fails at one of the shapes.
    """
    sessions: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for one in contestants:
        try:
            session = open_session(one.model, threads=threads, session_options=one.session_options)
        except ModelError as error:
            refused[one.name] = error.message
            continue
        lacking = {value.name for value in session.get_inputs()} - one.golden.batches[0].inputs.keys()
        if lacking:
            refused[one.name] = f"it wants the input '{min(lacking)}', which was not recorded"
        else:
            sessions[one.name] = session
    sequence = any(has_sequence(session) for session in sessions.values())
    for name in [name for name, session in sessions.items() if has_sequence(session) != sequence]:
        refused[name] = "it takes inputs of one fixed shape, and the others do not"
        del sessions[name]
    running = [one for one in contestants if one.name in sessions]
    if not running:
        return Timings(), refused
    limit = min(one.max_length or longest_recorded(one.golden) for one in running) if sequence else None
    inputs = [inputs_at_points(one.golden, points, sequence=sequence, max_length=limit) for one in running]
    return (
        Timings(
            {
                shape: time_in_turns(
                    sessions, [given[shape] for given in inputs], runs=runs, label=shape, clock=clock
                )
                for shape in inputs[0]
            }
        ),
        refused,
    )
