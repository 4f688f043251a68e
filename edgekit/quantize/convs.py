"""Quantize convolutional regions in place: tensors in 8 bits, weights, int32 biases."""

from __future__ import annotations

import onnx_ir as ir

from edgekit import graph as g
from edgekit.profile import Quantization
from edgekit.quantize.calibrate import Calibration
from edgekit.quantize.insert import (
    dequantized_weight,
    hold_in_8_bits,
    int32_bias,
    keep_in_float,
    rectify_codes,
)
from edgekit.quantize.plan import Plan, transposed
from edgekit.quantize.ranges import choose_range
from edgekit.quantize.schemes import ActivationScheme, Affine, quantize_weight, with_room_for_bias
from edgekit.recipe import QuantizeOptions


def quantize_convs(
    graph: ir.Graph,
    plan: Plan,
    calibration: Calibration,
    scheme: ActivationScheme,
    rules: Quantization,
    options: QuantizeOptions,
) -> dict[ir.Value, Affine]:
    """Hold every tensor of the convolutional regions in 8 bits, and quantize the weights there."""
    affines: dict[ir.Value, Affine] = {}
    for value in dict.fromkeys(plan.tensors.values()):
        stats = calibration.tensors[value.name or ""]
        affines[value] = choose_range(
            stats.histogram, stats.bounds, scheme, options.range_method, options.percentile
        )
    for node in (*plan.convs, *plan.on_codes):
        old = node.inputs[1]
        weight = g.constant(old)
        assert weight is not None and old is not None
        channels = 0 if node.op_type == "Conv" or transposed(node) else 1
        per_channel = channels if rules.per_channel else None
        codes, scale = quantize_weight(weight, per_channel, reduce_range=rules.reduce_range)
        activation = node.inputs[0]
        assert activation is not None
        step = affines[plan.tensors[activation]].scale
        bias = g.constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if bias is not None:
            codes, scale = with_room_for_bias(codes, scale, channels, step, bias)
        node.replace_input_with(
            1, dequantized_weight(graph, node, codes, scale, channels, old.name or "weight")
        )
        if bias is not None and node.inputs[2] is not None:
            int32_bias(graph, node, bias, step, scale, node.inputs[2].name or "bias")
    for value, source in plan.tensors.items():
        if scheme.symmetric:
            rectify_codes(graph, value, affines[source])
        hold_in_8_bits(graph, value, affines[source], plan.on_tensors if value in plan.entries else None)
    keep_in_float(graph)
    return affines
