"""`x / max(|x|, tiny)` as the one operator that it is: LpNormalization.

Spelled out, the norm and the division do not compile for the Hexagon processor, which has the operator.
Source: measured with onnxruntime-qnn 2.7.0 (ReduceL2 followed by Div of the same tensor).
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit import graph as g

_TINY = 1e-6
"""Norms are held above a number like 1e-12 against division by 0; LpNormalization gives 0 for 0."""


def l2_normalization(model: ir.Model) -> int:
    """Replace divisions of tensors by their own L2 norm along one axis, in place; return how many."""
    changed = 0
    for node in g.nodes(model.graph, "Div"):
        axis = _normalized_axis(node)
        if axis is None:
            continue
        new = ir.node("LpNormalization", [node.inputs[0]], {"axis": axis, "p": 2}, name=node.name)
        g.replace_node(model.graph, node, [new])
        changed += 1
    return changed


def _normalized_axis(node: ir.Node) -> int | None:
    """Return the axis along which a Div divides by its dividend's own norm, or None where it does not."""
    below = node.inputs[1].producer() if node.inputs[1] is not None else None
    if below is not None and below.op_type == "Expand":
        below = below.inputs[0].producer() if below.inputs[0] is not None else None
    if below is not None and below.op_type in ("Clip", "Max"):
        bounds = [g.constant(value) for value in below.inputs[1:] if value is not None]
        if len(bounds) != 1 or bounds[0] is None or bounds[0].size != 1 or not 0 <= bounds[0] <= _TINY:
            return None
        below = below.inputs[0].producer() if below.inputs[0] is not None else None
    if below is None or below.op_type != "ReduceL2" or below.inputs[0] is not node.inputs[0]:
        return None
    axes = g.constant(below.inputs[1]) if len(below.inputs) > 1 else None
    keeps = "keepdims" not in below.attributes or below.attributes["keepdims"].as_int() == 1
    return int(axes.item()) if axes is not None and axes.size == 1 and keeps else None
