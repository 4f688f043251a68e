"""Run a graph under ONNX Runtime's profiler, beside the graph that the runtime made of it."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekit.errors import ModelError
from edgekit.golden import Golden
from edgekit.runtime import open_session
from edgekit.store import workspace
from edgekit.validate.latency import has_sequence, inputs_at_points

WARM_UP_RUNS = 3
_MOST_RUNS = 15
_FEWEST_RUNS = 5
_SECONDS_PER_POINT = 1.2
_KERNEL = "_kernel_time"

_WEIGHTS_APART = {
    "session.optimized_model_external_initializers_file_name": "weights.bin",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}
"""Only the structure of the optimized graph is read, so its weights go to a file that is never opened.

Source: onnxruntime include/onnxruntime/core/session/onnxruntime_session_options_config_keys.h.
"""


Typed = tuple[str, tuple[int, ...]]
"""Type and shape of a tensor; types as profiles name them, e.g. `float` or `uint8`."""

Run = tuple[float, list[dict[str, Any]]]
"""Milliseconds of a whole run, and the events of its kernels."""


@dataclass(frozen=True)
class Kernel:
    """One node that ran.

    Attributes:
        name: As the profile calls it.
        op: Op type.
        inputs: Each input that is there. The profile itself lacks weights that the kernel has packed; they
            are filled in from the graph.
        outputs: The same of the outputs.
        ms: Median time.
        node: Where it is in the optimized graph; None for nodes inside subgraphs.
    """

    name: str
    op: str
    inputs: tuple[Typed, ...]
    outputs: tuple[Typed, ...]
    ms: float
    node: onnx.NodeProto | None


@dataclass(frozen=True)
class TracedPoint:
    """All kernels of a run at one input shape, in the order they ran, with the times of whole runs."""

    kernels: tuple[Kernel, ...]
    runs: int
    run_ms: float
    profiled_ms: float


def trace(
    model: Path,
    golden: Golden,
    points: Sequence[tuple[int, int]],
    *,
    max_length: int | None,
    threads: int,
    session_options: Mapping[str, str],
    timed: bool,
) -> tuple[onnx.GraphProto, dict[str, TracedPoint]]:
    """Return the graph as the runtime optimized it, and what ran at each input shape.

    Args:
        model: The file.
        golden: Real inputs, cut or repeated to each shape.
        points: (batch, length); the length is ignored where inputs have no sequence axis.
        max_length: Longest sequence that the model takes; longer points are cut to it.
        threads: Intra-op threads.
        session_options: Session configuration entries.
        timed: False runs each shape once, for the shapes alone.

    Raises:
        ModelError: The runtime cannot open the file, or fails on the inputs.
    """
    with workspace() as scratch:
        optimized = scratch / "optimized.onnx"
        session = open_session(
            model,
            threads=threads,
            session_options={**session_options, **_WEIGHTS_APART},
            profile_prefix=scratch / "profile",
            optimized_path=optimized,
        )
        # Beside it one without the profiler, which costs time in every node.
        plain = open_session(model, threads=threads, session_options=session_options) if timed else None
        wanted = [value.name for value in session.get_inputs()]
        labels: list[str | None] = []
        plain_ms: dict[str, float] = {}
        fed: dict[str, dict[str, Typed]] = {}
        feeds = inputs_at_points(golden, points, sequence=has_sequence(session), max_length=max_length)
        lacking = sorted(set(wanted).difference(*feeds.values()))
        if lacking:
            raise ModelError(f"{model} wants the input '{lacking[0]}', which the golden does not have")
        for label, inputs in feeds.items():
            feed = {name: inputs[name] for name in wanted}
            fed[label] = {name: _typed_array(value) for name, value in feed.items()}
            try:
                warm, kept, plain_ms[label] = _run(session, plain, feed)
            except Exception as error:  # the runtime raises a family of its own, all derived from Exception
                raise ModelError(f"{model} fails on inputs of shape {label}: {error}") from None
            labels += [None] * warm + [label] * kept
        profile = Path(session.end_profiling())
        graph = onnx.load(optimized, load_external_data=False).graph
        stored = {tensor.name: _typed_tensor(tensor) for tensor in graph.initializer}
        finder = _Finder(graph)
        return graph, {
            label: _point(runs, plain_ms[label], finder, {**stored, **fed[label]})
            for label, runs in _runs(profile, labels).items()
        }


def _run(session: Any, plain: Any, feed: Mapping[str, np.ndarray]) -> tuple[int, int, float]:
    """Run both sessions in turns; return warm-up runs, runs that count, and the median without profiler."""
    if plain is None:
        session.run(None, feed)
        return 0, 1, 0.0
    for _ in range(WARM_UP_RUNS):
        plain.run(None, feed)
        session.run(None, feed)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < _MOST_RUNS:
        begin = time.perf_counter()
        plain.run(None, feed)
        times.append((time.perf_counter() - begin) * 1e3)
        session.run(None, feed)
        if len(times) >= _FEWEST_RUNS and time.perf_counter() - started > _SECONDS_PER_POINT:
            break
    return WARM_UP_RUNS, len(times), statistics.median(times)


class _Finder:
    """Finds a kernel's node in the optimized graph: by name, and nodes without one by their order."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._nodes: dict[tuple[str, str], deque[onnx.NodeProto]] = defaultdict(deque)
        for node in graph.node:
            self._nodes[node.op_type, node.name].append(node)

    def find(self, op: str, name: str, taken: Counter[tuple[str, str]]) -> onnx.NodeProto | None:
        """Return the next node of this op and name that `taken` does not count yet, and count it."""
        for key in ((op, name), (op, "")):
            found = self._nodes.get(key, deque())
            if taken[key] < len(found):
                taken[key] += 1
                return found[taken[key] - 1]
        return None


def _runs(profile: Path, labels: list[str | None]) -> dict[str, list[Run]]:
    """Return the runs at each shape from a profile whose runs have labels; None marks warm-up."""
    whole, kernels = [], []
    for event in _events(profile):
        if event.get("name") == "model_run":
            whole.append((event["ts"], event["dur"]))
        elif event.get("cat") == "Node" and str(event.get("name")).endswith(_KERNEL):
            kernels.append(event)
    whole.sort()
    kernels.sort(key=lambda event: event["ts"])
    runs: dict[str, list[Run]] = defaultdict(list)
    at = 0
    for label, (begin, duration) in zip(labels, whole, strict=True):
        inside = []
        while at < len(kernels) and kernels[at]["ts"] <= begin + duration:
            inside.append(kernels[at])
            at += 1
        if label is not None:
            runs[label].append((duration / 1e3, inside))
    return runs


def _events(profile: Path) -> Iterator[dict[str, Any]]:
    """Yield the events one by one: a profile is one JSON array with an event on each line."""
    with profile.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            text = line.strip().rstrip(",")
            if text.startswith("{"):
                yield json.loads(text)


def _point(runs: list[Run], plain_ms: float, finder: _Finder, values: dict[str, Typed]) -> TracedPoint:
    """Return the medians over runs; `values` holds what is known of inputs and weights, and is added to."""
    # Control flow may run other nodes from run to run: keep the runs of the commonest length.
    length = Counter(len(events) for _, events in runs).most_common(1)[0][0]
    kept = [(ms, events) for ms, events in runs if len(events) == length]
    taken: Counter[tuple[str, str]] = Counter()
    kernels = []
    for events in zip(*(events for _, events in kept), strict=True):
        arguments = events[0]["args"]
        name = str(events[0]["name"]).removesuffix(_KERNEL)
        node = finder.find(arguments["op_name"], name, taken)
        outputs = _tensors(arguments["output_type_shape"])
        inputs = _tensors(arguments["input_type_shape"])
        if node is not None:
            values |= zip([value for value in node.output if value], outputs, strict=False)
            read = [values.get(value) for value in node.input if value]
            inputs = tuple(v for v in read if v) if None not in read else inputs
        ms = statistics.median(event["dur"] for event in events) / 1e3
        kernels.append(Kernel(name, arguments["op_name"], inputs, outputs, ms, node))
    return TracedPoint(tuple(kernels), len(kept), plain_ms, statistics.median(ms for ms, _ in kept))


def _typed_array(value: np.ndarray) -> Typed:
    return _type_name(onnx.helper.np_dtype_to_tensor_dtype(value.dtype)), value.shape


def _typed_tensor(tensor: onnx.TensorProto) -> Typed:
    return _type_name(tensor.data_type), tuple(tensor.dims)


def _type_name(data_type: int) -> str:
    return onnx.TensorProto.DataType.Name(data_type).lower()


def _tensors(entries: list[dict[str, list[int]]]) -> tuple[Typed, ...]:
    return tuple((kind, tuple(shape)) for entry in entries for kind, shape in entry.items())
