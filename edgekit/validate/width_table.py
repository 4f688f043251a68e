"""How long the parts of a layer take at each width, in ONNX Runtime, in the types of a target.

Small graphs of all widths are timed in turns in one process, so that drift hits all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.errors import RecipeError
from edgekit.latency_table import LatencyTable, TableRequest
from edgekit.machine import read_machine, why_not_measured
from edgekit.profile import TargetProfile
from edgekit.runtime import import_onnxruntime, open_session
from edgekit.validate.latency import time_in_turns
from edgekit.validate.width_graphs import INPUT, Builder, Make, attention, feed_forward, pair

BATCH, SEQUENCE = 1, 128
"""One text of a middling length: where most of the time goes into the products."""

RUNS = 41

MOST_WIDTHS = 24
"""Widths of a kind that are timed; where more are asked for, those between lie on straight lines."""


def measure_table(
    request: TableRequest,
    profile: TargetProfile,
    *,
    batch: int = BATCH,
    sequence: int = SEQUENCE,
    runs: int = RUNS,
) -> LatencyTable:
    """Time what is asked for, on one thread.

    A part never gets faster by getting wider: where noise says so, neighbours share their mean.

    Args:
        request: Sizes and widths.
        profile: The target whose types and form of graph are taken; its CPU need not be this one, and the
            table says so.
        batch: Samples at once.
        sequence: Tokens of each.
        runs: Timed turns.

    Raises:
        RecipeError: The target computes whole graphs in integers, which no CPU has kernels for.
        ModelError: The activation is not known, or the runtime fails.
    """
    if profile.quantization.scope == "whole-graph":
        raise RecipeError(
            f"the target {profile.name} is no CPU, so widths cannot be timed for it here",
            "Name a CPU target first, or ask for a share of the multiply_adds.",
        )
    ffn, heads = _thinned(request.ffn), _thinned(request.heads)
    parts = [
        *(_Part(f"ffn {width}", request.hidden, feed_forward(request, width)) for width in ffn),
        *(_Part(f"heads {count}", request.hidden, attention(request, count)) for count in heads),
        *(_Part(f"pair {shape}", shape[0], pair(*shape)) for shape in dict.fromkeys(request.pairs)),
    ]
    if not parts:
        return LatencyTable(batch=batch, sequence=sequence, kind="nothing was asked for")
    taken = _timed(parts, profile, batch, sequence, runs)
    medians = {name: float(np.median(values)) for name, values in taken.items()}
    spread = float(np.median([_spread(values) for values in taken.values()]))
    return LatencyTable(
        ffn_ms=_by_width(request.ffn, ffn, [medians[f"ffn {width}"] for width in ffn]),
        heads_ms=_by_width(request.heads, heads, [medians[f"heads {count}"] for count in heads]),
        pairs_ms={shape: medians[f"pair {shape}"] for shape in request.pairs},
        batch=batch,
        sequence=sequence,
        kind=_kind(profile, len(next(iter(taken.values()))), spread),
    )


def monotone(values: Sequence[float]) -> list[float]:
    """Return the rising values that are nearest in the least-squares sense.

    Source: Ayer et al. 1955, pool adjacent violators.
    """
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, count = value, 1
        while pools and pools[-1][0] > mean:
            before, size = pools.pop()
            mean, count = (mean * count + before * size) / (count + size), count + size
        pools.append((mean, count))
    return [mean for mean, count in pools for _ in range(count)]


@dataclass(frozen=True)
class _Part:
    """A graph to time: its name, the columns of its input, and what makes it."""

    name: str
    width: int
    make: Make


def _timed(
    parts: Sequence[_Part], profile: TargetProfile, batch: int, sequence: int, runs: int
) -> Mapping[str, np.ndarray]:
    sessions, inputs = {}, []
    values = np.random.default_rng(0)
    for part in parts:
        builder = Builder(profile, batch, sequence, part.width)
        model = builder.finished(part.make(builder))
        sessions[part.name] = open_session(model, session_options=profile.runtime.session_options)
        inputs.append({INPUT: values.normal(size=(batch * sequence, part.width)).astype(np.float32)})
    # The clock of the thread does not count what other processes take; the sessions have no other thread.
    label = f"{batch}x{sequence}"
    return time_in_turns(sessions, inputs, runs=runs, label=label, clock=time.thread_time)


def _thinned(widths: Sequence[int]) -> tuple[int, ...]:
    """Return the widths to time, ascending: all, or evenly spread ones with both ends."""
    found = sorted(set(widths))
    if len(found) <= MOST_WIDTHS:
        return tuple(found)
    picks = np.linspace(0, len(found) - 1, MOST_WIDTHS).round().astype(int)
    return tuple(found[index] for index in picks)


def _by_width(wanted: Sequence[int], timed: Sequence[int], medians: Sequence[float]) -> dict[int, float]:
    if not timed:
        return {}
    values = np.interp(sorted(set(wanted)), timed, monotone(medians))
    return {width: float(value) for width, value in zip(sorted(set(wanted)), values, strict=True)}


def _spread(values: np.ndarray) -> float:
    """Return the distance between the quartiles over the median."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float((high - low) / middle)


def _kind(profile: TargetProfile, turns: int, spread: float) -> str:
    why = why_not_measured(read_machine(), profile.hardware)
    types = f"{profile.quantization.activation_type} x {profile.quantization.weight_type}"
    kind = (
        f"{types} for {profile.name} in ONNX Runtime {import_onnxruntime().__version__}, one thread; median "
        f"of {turns} turns, quartiles {spread:.0%} apart"
    )
    return kind if why is None else f"{kind}; not the target's CPU: {why}"
