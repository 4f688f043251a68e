"""Write `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))` as what it is: one `Gelu` of the tanh form.

ALBERT, GPT-2 and T5 v1.1 spell it out, and ONNX Runtime's own fusion does not know that spelling: eight
passes over the widest activation of a layer, one of them a power. Equal up to float rounding.

Source: ONNX operator Gelu, from operator set 20; Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgekit import graph as g

_FIRST_OPSET = 20
_INNER, _CUBIC = math.sqrt(2 / math.pi), 0.044715


def tanh_gelu(model: ir.Model) -> int:
    """Rewrite every such expression, in place; return how many there were."""
    if model.opset_imports.get("", 0) < _FIRST_OPSET:
        return 0
    changed = 0
    for tanh in g.nodes(model.graph, "Tanh"):
        x = _argument(tanh.inputs[0])
        product = _half_product(tanh, x) if x is not None else None
        if x is not None and product is not None:
            gelu = ir.node("Gelu", [x], {"approximate": "tanh"}, name=product.name)
            g.replace_node(model.graph, product, [gelu])
            changed += 1
    g.remove_unused(model)
    return changed


def _argument(value: ir.Value | None) -> ir.Value | None:
    """Return the x of √(2/π) (x + 0.044715 x³), or None."""
    total = _without(value, "Mul", _INNER)
    node = total.producer() if total is not None else None
    if node is None or node.op_type != "Add":
        return None
    for x, rest in (node.inputs, reversed(node.inputs)):
        cube = _without(rest, "Mul", _CUBIC)
        power = cube.producer() if cube is not None else None
        if power is not None and power.op_type == "Pow" and power.inputs[0] is x:
            exponent = g.constant(power.inputs[1])
            return x if exponent is not None and exponent.size == 1 and float(exponent.item()) == 3 else None
    return None


def _half_product(tanh: ir.Node, x: ir.Value) -> ir.Node | None:
    """Return the node that computes (0.5 x) (1 + tanh), or None."""
    for plus in g.consumers(tanh.outputs[0]):
        if _without(plus.outputs[0], "Add", 1.0) is not tanh.outputs[0]:
            continue
        for product in g.consumers(plus.outputs[0]):
            other = [value for value in product.inputs if value is not plus.outputs[0]]
            if product.op_type == "Mul" and len(other) == 1 and _without(other[0], "Mul", 0.5) is x:
                return product
    return None


def _without(value: ir.Value | None, op_type: str, number: float) -> ir.Value | None:
    """Return the v of `op_type(v, number)`, in either order, or None."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != op_type:
        return None
    for held, other in ((node.inputs[1], node.inputs[0]), (node.inputs[0], node.inputs[1])):
        array = g.constant(held)
        if array is not None and array.size == 1 and np.isclose(float(array.item()), number, rtol=1e-5):
            return other
    return None
