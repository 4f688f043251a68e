"""Fold `BatchNormalization` into the convolution before it: `BN(Conv(x, W, b))` -> `Conv(x, W', b')`.

With per-channel factor f = gamma / sqrt(variance + epsilon):  W' = W f,  b' = (b - mean) f + beta. Exact up
to float rounding. A quantized convolution needs it: a BatchNormalization has no int8 kernel.

Source: Jacob et al. 2018, arXiv:1712.05877, section 3.2.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.record import Skip


def fold_batch_norm(model: ir.Model) -> tuple[int, list[Skip]]:
    """Fold every batch norm that can be, in place; return how many, and why others stay."""
    folded, skipped = 0, []
    for norm in g.nodes(model.graph, "BatchNormalization"):
        source = norm.inputs[0]
        conv = source.producer() if source is not None else None
        reason = _why_not(norm, conv)
        if reason or conv is None or source is None:
            skipped.append(Skip(f"BatchNormalization {norm.name}", reason))
            continue
        weight = g.constant(conv.inputs[1])
        gamma, beta, mean, variance = (g.constant(value) for value in norm.inputs[1:5])
        assert weight is not None and gamma is not None and beta is not None
        assert mean is not None and variance is not None
        epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
        factor = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
        bias = g.constant(conv.inputs[2]) if len(conv.inputs) > 2 else None
        shifted = ((0.0 if bias is None else bias) - mean.astype(np.float64)) * factor + beta
        scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        name = conv.inputs[1].name if conv.inputs[1] is not None else "conv"
        new_weight = g.add_constant(model.graph, f"{name}_folded", scaled.astype(np.float32))
        new_bias = g.add_constant(model.graph, f"{name}_folded_bias", shifted.astype(np.float32))
        fused = ir.node("Conv", [conv.inputs[0], new_weight, new_bias], conv.attributes, name=conv.name)
        g.replace_node(model.graph, norm, [fused])
        model.graph.remove(conv, safe=True)
        folded += 1
    return folded, skipped


def _why_not(norm: ir.Node, conv: ir.Node | None) -> str:
    if conv is None or conv.op_type != "Conv":
        return "no convolution comes before it"
    if len(g.consumers(conv.outputs[0])) != 1 or conv.outputs[0].is_graph_output():
        return "something else reads the convolution"
    if g.constant(conv.inputs[1]) is None or any(g.constant(value) is None for value in norm.inputs[1:5]):
        return "a weight or statistic is not constant"
    return ""
