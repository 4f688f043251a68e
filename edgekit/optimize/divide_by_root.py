"""Write `x * Reciprocal(Sqrt(v))` as `x / Sqrt(v)`.

PyTorch's `rsqrt` is exported in the first form. ONNX Runtime knows the second: with it, the eight nodes of
an RMSNorm (T5, Llama) become one SimplifiedLayerNormalization. Equal up to float rounding.

Source: onnxruntime core/optimizer/layer_norm_fusion.cc, SimplifiedLayerNormFusion.
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit import graph as g


def divide_by_root(model: ir.Model) -> int:
    """Rewrite every such product, in place; return how many there were."""
    changed = 0
    for node in g.nodes(model.graph, "Mul"):
        left, right = node.inputs
        for value, root in ((left, _root(right)), (right, _root(left))):
            if root is None or value is None:
                continue
            g.replace_node(model.graph, node, [ir.node("Div", [value, root], name=node.name)])
            changed += 1
            break
    g.remove_unused(model)
    return changed


def _root(value: ir.Value | None) -> ir.Value | None:
    """Return s of a value `Reciprocal(s)` where s is a square root, or None."""
    inverse = value.producer() if value is not None else None
    if inverse is None or inverse.op_type != "Reciprocal" or inverse.inputs[0] is None:
        return None
    root = inverse.inputs[0].producer()
    return inverse.inputs[0] if root is not None and root.op_type == "Sqrt" else None
