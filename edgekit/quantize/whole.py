"""Every float tensor of a graph in Q/DQ, for processors that compute in integers from input to output.

ONNX Runtime's quantizer places the nodes, with its own rules for Qualcomm's processors; the ranges are
edgekit's. Weights of convolutions and of matrix products get one scale per output channel: the provider of
2.7 takes them for both, and all-MiniLM-L6-v2 has a cosine of 0.9994 with them and of 0.988 without.

Source: onnxruntime.quantization.execution_providers.qnn, ONNX Runtime 1.31 (its rule that matrix products
cannot have scales per channel is older than the provider).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.errors import RecipeError
from edgekit.model import OnnxModel
from edgekit.profile import Quantization, TargetProfile
from edgekit.quantize.calibrate import Calibration, refuse_quantized
from edgekit.quantize.ranges import choose_range
from edgekit.quantize.schemes import ActivationScheme
from edgekit.recipe import QuantizeOptions
from edgekit.record import Clock
from edgekit.runtime import import_quantization

_FLOAT = ir.DataType.FLOAT
_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
_FROM_FLOAT = (_Q, "Cast", "Shape", "Size", "IsNaN", "IsInf", "ArgMax", "ArgMin")


def quantize_whole(
    model: OnnxModel, calibration: Calibration, profile: TargetProfile, options: QuantizeOptions, path: Path
) -> OnnxModel:
    """Write the graph with every float tensor in Q/DQ to `path` and return it.

    Args:
        model: The float graph, of static shapes.
        calibration: Statistics of every float tensor of it.
        profile: The target: types of activations and weights.
        options: Choices of the request; only how ranges are chosen has a meaning here.
        path: The new file; the float file is not touched.

    Raises:
        ModelError: The graph is quantized already.
        RecipeError: Nodes are to stay in float, and the target has no float.
    """
    if options.exclude:
        raise RecipeError(
            f"{profile.name} runs the whole graph in integers, so no node can stay in float: --exclude"
            f" {options.exclude[0]}",
            "Leave --exclude out for this target.",
        )
    clock, rules, before = Clock(), profile.quantization, model.file_bytes
    loaded = g.load(model.only.path)
    refuse_quantized(loaded, model.only.path)
    made = _placed(loaded, _ranges(calibration, rules, options), rules)
    made.graph.sort()
    made.ir_version = model.ir_version
    made.producer_name, made.producer_version = loaded.producer_name, loaded.producer_version
    made.metadata_props.clear()
    g.remove_unused(made)
    left = left_in_float(made)
    graph = g.saved(made, path)
    record = clock.record(
        "quantize",
        "whole-graph",
        f"put {len(calibration.tensors)} float tensors between Q and DQ",
        activation_type=rules.activation_type,
        weight_type=rules.weight_type,
        per_channel=rules.per_channel,
        left_in_float=list(left),
    )
    after = path.stat().st_size
    total = Clock().record(
        "quantize",
        "write",
        f"static {rules.activation_type} x {rules.weight_type}, {before / after:.2f}x smaller",
        bytes_before=before,
        bytes_after=after,
    )
    return model.with_step(calibration.record, record, total, graphs=(graph,))


def left_in_float(model: ir.Model) -> tuple[str, ...]:
    """Return the nodes that read or write a float tensor that no Q or DQ stands beside."""
    left = []
    for node in model.graph:
        if node.op_type in (_Q, _DQ):
            continue
        reads = () if node.op_type in _FROM_FLOAT else node.inputs
        writes = (v for v in node.outputs if v.dtype == _FLOAT)
        if any(map(_bare, reads)) or any(r.op_type != _Q for v in writes for r in g.consumers(v)):
            left.append(node.name or node.op_type)
    return tuple(left)


def _bare(value: ir.Value | None) -> bool:
    """Return whether a value is float and comes from no DQ; single constants, such as bounds, may be."""
    if value is None or value.dtype != _FLOAT:
        return False
    held, maker = g.constant(value), value.producer()
    return (held is None or held.size > 1) and (maker is None or maker.op_type != _DQ)


def _ranges(
    calibration: Calibration, rules: Quantization, options: QuantizeOptions
) -> dict[str, tuple[float, float]]:
    """Return the range that each tensor's codes cover.

    With 65536 codes a step is finer than the histogram's bins and rounding costs next to nothing, so the
    range with the least squared error is all that was seen.
    """
    scheme = ActivationScheme(rules.activation_type, rules.activation_symmetric)
    method = options.range_method
    if method == "mse" and rules.activation_type == "uint16":
        method = "minmax"
    found = {}
    for name, stats in calibration.tensors.items():
        affine = choose_range(stats.histogram, stats.bounds, scheme, method, options.percentile)
        found[name] = stats.bounds if method == "minmax" else (affine.low, affine.high)
    return found


def _placed(model: ir.Model, ranges: Mapping[str, tuple[float, float]], rules: Quantization) -> ir.Model:
    """Return the graph with the Q/DQ nodes that ONNX Runtime's quantizer places."""
    tool = import_quantization()
    types = {"uint8": tool.QuantType.QUInt8, "int8": tool.QuantType.QInt8, "uint16": tool.QuantType.QUInt16}
    proto = ir.serde.serialize_model(model)
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it warns of what was asked for
    try:
        config = tool.execution_providers.qnn.get_qnn_qdq_config(
            proto,
            None,
            activation_type=types[rules.activation_type],
            weight_type=tool.QuantType.QUInt8,
            init_overrides=_weights(model, tool.QuantType.QInt8) if rules.per_channel else None,
            activation_symmetric=rules.activation_symmetric,
        )
        data = {
            name: tool.calibrate.TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in ranges.items()
        }
        quantizer = tool.QDQQuantizer(
            proto,
            False,
            rules.reduce_range,
            config.weight_type,
            config.activation_type,
            tool.calibrate.TensorsData(tool.CalibrationMethod.MinMax, data),
            [],
            [],
            config.op_types_to_quantize,
            config.extra_options,
        )
        quantizer.quantize_model()
    finally:
        logger.setLevel(level)
    return ir.serde.deserialize_model(quantizer.model.model)


def _weights(model: ir.Model, signed: Any) -> dict[str, list[dict[str, Any]]]:
    """Return what the quantizer is told of weights: symmetric int8 codes, a scale per output channel."""
    found: dict[str, list[dict[str, Any]]] = {}
    for node in g.nodes(model.graph, "Conv", "ConvTranspose", "Gemm", "MatMul"):
        weight = node.inputs[1]
        held = g.constant(weight)
        if weight is None or held is None or held.ndim < 2:
            continue
        flipped = node.op_type == "Gemm" and "transB" in node.attributes and node.attributes["transB"].value
        if node.op_type in ("MatMul", "Gemm"):
            axis = 0 if flipped else held.ndim - 1
        else:
            axis = 0 if node.op_type == "Conv" else 1
        found[weight.name or ""] = [{"quant_type": signed, "symmetric": True, "axis": axis}]
    return found
