"""Masks in ordinary numbers: 0 where a token counts and -100 where it does not, made by arithmetic.

A mask of -3.4e38 leaves a tensor of 16-bit codes two values. Softmax gives a masked token e**-100, which is
0 beside any other in float32, as long as scores differ by less than about 80. And the Hexagon processor
computes with codes: `Where` between two float constants is none of its ops, a product and a sum are.

Source: measured with onnxruntime-qnn 2.7.0: all-MiniLM-L6-v2 had a cosine of 0.60 with -3.4e38; a `Where`
of float constants ends the compilation with an error.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit import graph as g

MASKED = -100.0
"""Added to the score of a masked token."""

_MASKS_FROM = -1e3
"""A number this low beside nothing but zeros is there to mask: models use -1e4, -1e9 or the lowest float."""


def finite_masks(model: ir.Model) -> int:
    """Bound the masks of a graph and spell out their `Where`, in place; return how many nodes changed."""
    changed = 0
    for node in g.nodes(model.graph, "Where", "Add", "Mul"):
        for index, value in enumerate(node.inputs):
            held = g.constant(value)
            if value is not None and held is not None and _is_mask(held):
                bounded = np.where(held < _MASKS_FROM, MASKED, held).astype(held.dtype)
                new = g.add_constant(model.graph, f"{value.name}_bounded", bounded)
                node.replace_input_with(index, new)
                changed += 1
    for node in g.nodes(model.graph, "Where"):
        yes, no = g.constant(node.inputs[1]), g.constant(node.inputs[2])
        if yes is None or no is None or yes.dtype != np.float32:
            continue
        name = node.name or "Where"
        cast = ir.node("Cast", [node.inputs[0]], {"to": ir.DataType.FLOAT}, name=f"{name}_number")
        span = g.add_constant(model.graph, f"{name}_span", (yes - no).astype(np.float32))
        base = g.add_constant(model.graph, f"{name}_base", no)
        scaled = ir.node("Mul", [cast.outputs[0], span], name=f"{name}_scaled")
        shifted = ir.node("Add", [scaled.outputs[0], base], name=f"{name}_shifted")
        old = node.outputs[0]
        for made, suffix in ((cast, "number"), (scaled, "scaled")):
            made.outputs[0].name = f"{old.name}_{suffix}"
            made.outputs[0].dtype = ir.DataType.FLOAT
        g.replace_node(model.graph, node, [cast, scaled, shifted])
        changed += 1
    return changed


def _is_mask(held: np.ndarray) -> bool:
    """Return whether an array holds nothing but zeros and very low numbers, and one of these at least."""
    if held.dtype != np.float32 or not held.size:
        return False
    low = held < _MASKS_FROM
    return bool(low.any() and (held[~low] == 0).all())
