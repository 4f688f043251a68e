"""Models against each other, interleaved in one process, with an interval for the ratio.

Machines drift: frequency, neighbours, caches. Timing the models in turns, run by run, lets the drift
hit all of them, and the ratio of each turn is what the interval is made from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgekit.errors import ModelError
from edgekit.golden import Golden
from edgekit.record import LatencyPoint

WARM_UP_RUNS = 8
_BOOTSTRAPS = 2000
_PICKS = 2**20  # of runs, drawn at once: 16 MB
_CONFIDENCE = 0.95
# Also stop after this long at one point: a big model on a slow CPU gives fewer runs and a wider interval.
_SECONDS_PER_MODEL = 10.0
_FEWEST_RUNS = 10


def measure_latency(
    float_session: Any,
    quantized_session: Any,
    golden: Golden,
    points: Sequence[tuple[int, int]],
    *,
    runs: int,
    threads: int,
    max_length: int | None = None,
) -> tuple[LatencyPoint, ...]:
    """Time two sessions at several input shapes.

    Args:
        float_session: Session of the float graph.
        quantized_session: Session of the shipped graph, with the same threads.
        golden: Real inputs, tiled to each shape.
        points: (batch, length); the length is ignored where inputs have no sequence axis.
        runs: Timed runs of each model at each point.
        threads: What both sessions were opened with; recorded.
        max_length: Longest sequence that the model takes; longer points are cut to it. None takes the
            longest that was recorded: whether the model takes more is not known.

    Raises:
        ModelError: The runtime fails at one of the shapes.
    """
    inputs = inputs_at_points(golden, points, sequence=has_sequence(quantized_session), max_length=max_length)
    return tuple(
        _time_point(float_session, quantized_session, values, label, runs, threads)
        for label, values in inputs.items()
    )


def inputs_at_points(
    golden: Golden, points: Sequence[tuple[int, int]], *, sequence: bool, max_length: int | None
) -> dict[str, dict[str, np.ndarray]]:
    """Return real inputs at each point, under the point's readable name, e.g. `1x128`.

    Args:
        golden: Where the values come from.
        points: (batch, length); the length is ignored where inputs have no sequence axis.
        sequence: Whether they have one.
        max_length: Longest sequence that the model takes; longer points are cut to it. None takes the
            longest that was recorded.
    """
    limit = (max_length or longest_recorded(golden)) if sequence else 0
    shapes = dict.fromkeys((batch, min(length, limit)) for batch, length in points)
    return {
        f"{batch}x{length}" if sequence else f"{batch}": inputs_of_shape(golden, batch, length)
        for batch, length in shapes
    }


def inputs_of_shape(golden: Golden, batch: int, length: int) -> dict[str, np.ndarray]:
    """Return real inputs cut or repeated to a shape.

    Args:
        golden: Where the values come from: the longest row without padding of each input.
        batch: Rows.
        length: Size of axis 1; 0 leaves every other axis as recorded.
    """
    longest = max(golden.batches, key=lambda b: next(iter(b.inputs.values())).shape[1:])
    rows = {}
    for name, value in longest.inputs.items():
        row = value[:1]
        if "attention_mask" in longest.inputs:
            row = value[[int(np.argmax(longest.inputs["attention_mask"].sum(axis=1)))]]
        if length and row.ndim >= 2:
            row = np.take(row, np.arange(length) % row.shape[1], axis=1)
        if length and name == "attention_mask":
            row = np.ones_like(row)
        rows[name] = np.repeat(row, batch, axis=0)
    return rows


def bootstrap_ratio(
    float_ms: np.ndarray, quantized_ms: np.ndarray, *, confidence: float = _CONFIDENCE, seed: int = 0
) -> tuple[float, float, float]:
    """Return the median of the paired ratios with its bootstrap interval.

    Args:
        float_ms: Times of the float model, [runs].
        quantized_ms: Times of the quantized model in the same turns, [runs].
        confidence: Probability mass of the interval.
        seed: Of the resampling.

    Returns:
        Speed-up (float over quantized), lower end, upper end.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, percentile interval.
    """
    ratios = float_ms / quantized_ms
    rng, together = np.random.default_rng(seed), max(1, _PICKS // len(ratios))
    sizes = [min(together, _BOOTSTRAPS - start) for start in range(0, _BOOTSTRAPS, together)]
    picks = (rng.integers(0, len(ratios), (size, len(ratios))) for size in sizes)
    medians = np.concatenate([np.median(ratios[pick], axis=1) for pick in picks])
    tail = (1 - confidence) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return float(np.median(ratios)), float(low), float(high)


def _time_point(
    float_session: Any,
    quantized_session: Any,
    inputs: Mapping[str, np.ndarray],
    label: str,
    runs: int,
    threads: int,
) -> LatencyPoint:
    times = time_in_turns(
        {"float": float_session, "quantized": quantized_session}, [inputs, inputs], runs=runs, label=label
    )
    return latency_point(label, times["float"], times["quantized"], threads)


def time_in_turns(
    sessions: Mapping[str, Any],
    inputs: Sequence[Mapping[str, np.ndarray]],
    *,
    runs: int,
    label: str,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Return the time of each turn of any number of models, [turns], milliseconds.

    Whoever runs finds the caches full of the one before. So the order changes from turn to turn, and every
    second turn goes through the order of the one before it backwards.

    Args:
        sessions: Name -> open session.
        inputs: What each is fed, in their order; what a session does not ask for is left out.
        runs: Timed turns; fewer where the models are slow.
        label: Readable input shape, for messages.
        clock: Seconds. `time.thread_time` leaves out what other processes take, for sessions of one thread.

    Raises:
        ModelError: The runtime fails at this shape.
    """
    names = list(sessions)
    feeds = {
        name: {v.name: given[v.name] for v in sessions[name].get_inputs()}
        for name, given in zip(names, inputs, strict=True)
    }
    times: dict[str, list[float]] = {name: [] for name in names}
    shuffle, order = np.random.default_rng(0), np.arange(len(names))
    for name in names:
        try:
            for _ in range(WARM_UP_RUNS):
                sessions[name].run(None, feeds[name])
        except Exception as error:  # the runtime raises a family of its own, all derived from Exception
            raise ModelError(f"the {name} model fails on inputs of shape {label}: {error}") from None
    started = time.perf_counter()
    for turn in range(runs):
        order = order[::-1] if turn % 2 else shuffle.permutation(len(names))
        for index in order:
            name = names[index]
            begin = clock()
            sessions[name].run(None, feeds[name])
            times[name].append((clock() - begin) * 1e3)
        if turn + 1 >= _FEWEST_RUNS and time.perf_counter() - started > _SECONDS_PER_MODEL * len(names):
            break
    return {name: np.array(taken) for name, taken in times.items()}


def latency_point(label: str, float_ms: np.ndarray, quantized_ms: np.ndarray, threads: int) -> LatencyPoint:
    """Return medians, tails and the speed-up with its interval from times taken in turns.

    Args:
        label: Readable input shape.
        float_ms: Times of the float model, [runs], milliseconds.
        quantized_ms: Times of the quantized model in the same turns, [runs].
        threads: Intra-op threads of both.
    """
    speedup, low, high = bootstrap_ratio(float_ms, quantized_ms)
    return LatencyPoint(
        shape=label,
        threads=threads,
        runs=len(float_ms),
        float_p50_ms=float(np.median(float_ms)),
        float_p90_ms=float(np.quantile(float_ms, 0.9)),
        quantized_p50_ms=float(np.median(quantized_ms)),
        quantized_p90_ms=float(np.quantile(quantized_ms, 0.9)),
        speedup=speedup,
        speedup_low=low,
        speedup_high=high,
        confidence=_CONFIDENCE,
    )


def longest_recorded(golden: Golden) -> int:
    """Return the most tokens of any recorded input."""
    return max(v.shape[1] for batch in golden.batches for v in batch.inputs.values() if v.ndim > 1)


def has_sequence(session: Any) -> bool:
    """Return whether a session's inputs have a free sequence axis."""
    return any(len(value.shape) > 1 and value.shape[1] == "sequence" for value in session.get_inputs())
