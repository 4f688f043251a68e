"""Quantize convolutional regions in place: tensors in 8 bits, weights, int32 biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.profile import Quantization
from edgekit.quantize.insert import (
    dequantized_weight,
    hold_in_8_bits,
    int32_bias,
    keep_in_float,
    part_readers,
    rectify_codes,
)
from edgekit.quantize.observers import TensorStats
from edgekit.quantize.plan import Plan, transposed
from edgekit.quantize.ranges import choose_range
from edgekit.quantize.schemes import ActivationScheme, Affine, quantize_weight, with_room_for_bias
from edgekit.quantize.windows import Samples, kernel_weight, products
from edgekit.recipe import QuantizeOptions
from edgekit.record import Fact

# A bias of its own where a layer has none has to take away this share of the error; half a percent is noise.
_WORTH_A_BIAS = 0.05


@dataclass(frozen=True)
class _Correction:
    """The mean error of a layer's outputs, and whether taking it away helps where it was not measured.

    Attributes:
        shift: Mean over the windows of float output minus quantized output, [outputs].
        error: Energy of the outputs' error over the energy of the outputs, on the second half of the inputs.
        error_corrected: The same with the first half's mean taken away.
    """

    shift: np.ndarray
    error: float
    error_corrected: float


def quantize_convs(
    graph: ir.Graph,
    plan: Plan,
    tensors: Mapping[str, TensorStats],
    samples: Samples,
    scheme: ActivationScheme,
    rules: Quantization,
    options: QuantizeOptions,
) -> tuple[dict[ir.Value, Affine], list[dict[str, Fact]]]:
    """Hold every tensor of the convolutional regions in 8 bits, and quantize the weights there.

    Args:
        graph: Edited in place.
        plan: What is quantized of it.
        tensors: Statistics of its tensors.
        samples: Pieces of what they held; biases are corrected where there are some.
        scheme: Codes of activations.
        rules: What the profile allows.
        options: What the request allows.

    Returns:
        The codes of each tensor, and what to record of each layer.
    """
    affines: dict[ir.Value, Affine] = {}
    for value in dict.fromkeys(plan.tensors.values()):
        stats = tensors[value.name or ""]
        affines[value] = choose_range(
            stats.histogram, stats.bounds, scheme, options.range_method, options.percentile
        )
    layers = []
    for node in (*plan.convs, *plan.on_codes):
        activation = node.inputs[0]
        assert activation is not None
        windows = samples.windows.get(node.outputs[0].name or "")
        layers.append(_quantize_node(graph, node, affines[plan.tensors[activation]], windows, rules, options))
    for value, source in plan.tensors.items():
        if scheme.symmetric:
            rectify_codes(graph, value, affines[source])
        hold_in_8_bits(graph, value, affines[source], plan.on_tensors if value in plan.entries else None)
    keep_in_float(graph)
    for node in plan.on_codes:
        part_readers(graph, node)
    return affines, layers


def _quantize_node(
    graph: ir.Graph,
    node: ir.Node,
    affine: Affine,
    windows: np.ndarray | None,
    rules: Quantization,
    options: QuantizeOptions,
) -> dict[str, Fact]:
    old = node.inputs[1]
    weight = g.constant(old)
    assert weight is not None and old is not None
    channels = 0 if node.op_type == "Conv" or transposed(node) else 1
    per_channel = channels if rules.per_channel else None
    codes, scale = quantize_weight(weight, per_channel, reduce_range=rules.reduce_range)
    bias = g.constant(node.inputs[2]) if len(node.inputs) > 2 else None
    found = _correction(node, windows, affine, codes, scale) if windows is not None else None
    worth = 0.0 if bias is not None else _WORTH_A_BIAS
    corrected = (
        options.bias_correction and found is not None and found.error_corrected < (1 - worth) * found.error
    )
    if corrected and found is not None:
        bias = (
            found.shift
            if bias is None
            else np.broadcast_to(bias.reshape(-1), found.shift.shape) + found.shift
        )
    if bias is not None:
        codes, scale = with_room_for_bias(codes, scale, channels, affine.scale, bias)
    node.replace_input_with(1, dequantized_weight(graph, node, codes, scale, channels, old.name or "weight"))
    if bias is not None:
        node.resize_inputs(3)
        name = node.inputs[2].name if node.inputs[2] is not None else f"{old.name}_bias"
        int32_bias(graph, node, bias, affine.scale, scale, name or "bias")
    fact: dict[str, Fact] = {"node": node.name or node.outputs[0].name or "", "bias_corrected": corrected}
    if found is not None:
        fact["output_error"] = float(f"{found.error_corrected if corrected else found.error:.3e}")
        fact["output_error_plain"] = float(f"{found.error:.3e}")
    return fact


def _correction(
    node: ir.Node, windows: np.ndarray, affine: Affine, codes: np.ndarray, scale: np.ndarray
) -> _Correction | None:
    """Measure the mean error on one half of the inputs, and what it is worth on the other.

    Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2 (there from batch norm's statistics).
    """
    weight, half = kernel_weight(node), len(windows) // 2
    if not half:
        return None
    held = codes if node.op_type == "Conv" or transposed(node) else codes.T
    quantized = held.reshape(weight.shape) * scale.reshape(-1, 1, 1)
    real = products(windows, weight)
    lost = real - products(affine.fake(windows), quantized)
    energy = float(np.mean(real[half:].astype(np.float64) ** 2)) or 1.0
    error = float(np.mean(lost[half:].astype(np.float64) ** 2)) / energy
    corrected = float(np.mean((lost[half:] - lost[:half].mean(axis=0)).astype(np.float64) ** 2)) / energy
    return _Correction(lost.mean(axis=0, dtype=np.float64).astype(np.float32), error, corrected)
