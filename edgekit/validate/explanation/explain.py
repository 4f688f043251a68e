"""Graph × golden × profile -> Explanation: where its time goes, which kernels run it, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from edgekit.golden import Golden
from edgekit.machine import installed_version, read_machine, why_not_measured
from edgekit.profile import TargetProfile
from edgekit.record import Skip
from edgekit.validate.explanation.kernels import explained, reasons_of
from edgekit.validate.explanation.rates import float_over_int8, measure_roofline
from edgekit.validate.explanation.record import (
    ExplainedNode,
    ExplainedPoint,
    Explanation,
    Prediction,
)
from edgekit.validate.explanation.trace import Kernel, TracedPoint, trace
from edgekit.validate.explanation.wiring import Wiring

_PREDICTING_SECONDS = 3.0
_LARGEST_EVICTION_BYTES = 2**25
_INT8_ALLOWED = "session.qdqisint8allowed"
"""ONNX Runtime turns int8 activations into uint8 ones unless it was built for ARM; this entry decides it.

Source: onnxruntime core/optimizer/qdq_transformer/selectors_actions/qdq_selector_action_transformer.h,
QDQIsInt8Allowed; onnxruntime_session_options_config_keys.h.
"""


def explain(
    model: Path,
    golden: Path,
    profile: TargetProfile,
    *,
    skips: Sequence[Skip] = (),
    points: Sequence[tuple[int, int]] | None = None,
    threads: int | None = None,
    max_length: int | None = None,
    predict: bool = True,
) -> Explanation:
    """Explain which kernels of ONNX Runtime run a graph, what each costs, and why some are float.

    Times are taken where this machine is one of the target's; elsewhere the structure alone is shown, as
    this machine's runtime makes it.

    Args:
        model: The shipped graph.
        golden: Recorded inputs, cut or repeated to each shape.
        profile: The target.
        skips: What quantization left alone, and why.
        points: (batch, length) pairs; None takes the profile's.
        threads: Intra-op threads; None takes the profile's.
        max_length: Longest sequence that the model takes; longer points are cut to it.
        predict: Also predict what excluding each int8 product would do.

    Raises:
        ModelError: The runtime cannot open the graph, or fails on the inputs.
    """
    missing = why_not_measured(read_machine(), profile.hardware)
    timed = missing is None
    threads = threads or profile.runtime.threads
    options = dict(profile.runtime.session_options)
    if profile.hardware.isa in ("aarch64", "armv7l"):
        options.setdefault(_INT8_ALLOWED, "1")
    graph, traced = trace(
        model,
        Golden.load(golden),
        points or profile.runtime.points,
        max_length=max_length,
        threads=threads,
        session_options=options,
        timed=timed,
    )
    wiring = Wiring.of(graph)
    shipped = onnx.load(model, load_external_data=False).graph if skips else onnx.GraphProto()
    reasons = reasons_of(skips, shipped)
    found = tuple(_point(label, point, wiring, reasons, timed) for label, point in traced.items())
    if not timed:
        note = f"{missing}; the kernels are those that ONNX Runtime takes here"
        return Explanation(profile.name, installed_version("onnxruntime") or "", threads, found, None, note)
    roofline = measure_roofline(
        profile.quantization.activation_type, threads=threads, session_options=options
    )
    if predict:
        predictions = _predict(found, tuple(traced.values()), wiring, threads, options)
        found = tuple(replace(p, predictions=q) for p, q in zip(found, predictions, strict=True))
    note = "medians of kernel times under the runtime's profiler, which itself costs some time per node"
    return Explanation(profile.name, installed_version("onnxruntime") or "", threads, found, roofline, note)


def _point(
    label: str, traced: TracedPoint, wiring: Wiring, reasons: Mapping[str, str], timed: bool
) -> ExplainedPoint:
    nodes = tuple(
        replace(node, ms=kernel.ms) if timed else node
        for kernel in traced.kernels
        for node in [explained(kernel, wiring, reasons)]
    )
    if not timed:
        return ExplainedPoint(label, nodes)
    return ExplainedPoint(label, nodes, traced.runs, traced.run_ms, traced.profiled_ms)


def _predict(
    points: Sequence[ExplainedPoint],
    traced: Sequence[TracedPoint],
    wiring: Wiring,
    threads: int,
    options: Mapping[str, str],
) -> list[tuple[Prediction, ...]]:
    """Return the predictions of each point; the slowest nodes are measured first, while there is time."""
    products = [
        (at, kernel, node)
        for at, (point, trace_of) in enumerate(zip(points, traced, strict=True))
        for kernel, node in zip(trace_of.kernels, point.nodes, strict=True)
        if node.role == "int8 product"
    ]
    products.sort(key=lambda entry: -entry[1].ms)
    weights = {kernel.name: _weight_elements(kernel) for _, kernel, _ in products}
    ratios = float_over_int8(
        [kernel for _, kernel, _ in products],
        wiring,
        threads=threads,
        session_options=options,
        evict_bytes=min(4 * sum(weights.values()), _LARGEST_EVICTION_BYTES),
        seconds=_PREDICTING_SECONDS,
    )
    shares = [_shares_before(point, trace_of, wiring) for point, trace_of in zip(points, traced, strict=True)]
    found: list[list[Prediction]] = [[] for _ in points]
    for index, ratio in sorted(ratios.items()):
        at, kernel, node = products[index]
        int8_ms = kernel.ms + shares[at].get(node.name, 0.0)
        found[at].append(Prediction(node.name, node.shape, int8_ms, kernel.ms * ratio))
    return [_in_order(entries, point) for entries, point in zip(found, points, strict=True)]


def _in_order(predictions: Sequence[Prediction], point: ExplainedPoint) -> tuple[Prediction, ...]:
    order = {node.name: at for at, node in enumerate(point.nodes)}
    return tuple(sorted(predictions, key=lambda prediction: order[prediction.node]))


def _shares_before(point: ExplainedPoint, traced: TracedPoint, wiring: Wiring) -> dict[str, float]:
    """Return for each int8 product its share of the QuantizeLinear and smoothing that make its input, ms."""
    by_output: dict[str, tuple[ExplainedNode, Kernel]] = {
        output: (node, kernel)
        for node, kernel in zip(point.nodes, traced.kernels, strict=True)
        if kernel.node is not None
        for output in kernel.node.output
    }
    found: dict[str, float] = {}
    for node, kernel in zip(point.nodes, traced.kernels, strict=True):
        if node.role != "int8 product" or kernel.node is None:
            continue
        value, cost, readers = kernel.node.input[0], 0.0, 1
        for role in ("quantize", "smoothing"):
            maker = wiring.origin(value)
            its_node, its_kernel = by_output.get(maker.output[0], (None, None)) if maker else (None, None)
            if maker is None or its_node is None or its_kernel is None or its_node.role != role:
                break
            readers *= max(len(wiring.users(maker.output[0])), 1)
            cost += its_kernel.ms / readers
            value = maker.input[0]
        found[node.name] = cost
    return found


def _weight_elements(kernel: Kernel) -> int:
    shapes = [shape for kind, shape in kernel.inputs if kind == "int8" and len(shape) > 1]
    return max((int(np.prod(shape)) for shape in shapes), default=0)
