"""Rewrites that were tried and that edgekit does not do; kept here so that they can be measured again.

Each edits a float graph in place and returns how often. `multi-head-attention` and `folded-root` know the
attention that PyTorch exports and edgekit's rewrites leave: Split, Reshape, Transpose, two products.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.optimize import REWRITES, GraphRewrite
from edgekit.optimize.probe_shapes import Shapes

_MICROSOFT = "com.microsoft"


def erf_gelu(model: ir.Model, _: Mapping[str, Shapes]) -> int:
    """Spell GELU out with Erf, which ONNX Runtime makes a BiasGelu of, or its own Gelu."""
    changed = 0
    for gelu in g.nodes(model.graph, "Gelu"):
        x, name = gelu.inputs[0], gelu.name or "gelu"
        root, one, half = (
            g.add_constant(model.graph, f"{name}_{number:.1f}", np.array(number, np.float32))
            for number in (math.sqrt(2), 1.0, 0.5)
        )
        scaled = ir.node("Div", [x, root])
        erf = ir.node("Erf", scaled.outputs)
        plus = ir.node("Add", [erf.outputs[0], one])
        product = ir.node("Mul", [x, plus.outputs[0]])
        halved = ir.node("Mul", [product.outputs[0], half])
        new = [scaled, erf, plus, product, halved]
        for index, node in enumerate(new):
            node.name, node.outputs[0].name = f"{name}_{index}", f"{name}_{index}_output"
        g.replace_node(model.graph, gelu, new)
        changed += 1
    return changed


def tanh_approximation(model: ir.Model, _: Mapping[str, Shapes]) -> int:
    """Take the tanh form of GELU where the model has the exact one: another function, off by up to 5e-4."""
    found = [node for node in g.nodes(model.graph, "Gelu") if "approximate" not in node.attributes]
    for node in found:
        node.attributes["approximate"] = ir.AttrString("approximate", "tanh")
    return len(found)


def skip_layer_norm(model: ir.Model, _: Mapping[str, Shapes]) -> int:
    """Fuse residual adds with the norms behind them, as ONNX Runtime does where tokens are not rows."""
    model.opset_imports[_MICROSOFT] = 1
    changed = 0
    for norm in g.nodes(model.graph, "LayerNormalization"):
        add = norm.inputs[0].producer() if norm.inputs[0] is not None else None
        if add is None or add.op_type != "Add" or len(g.consumers(add.outputs[0])) != 1:
            continue
        if any(g.constant(value) is not None for value in add.inputs):
            continue
        epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
        inputs = [*add.inputs, *norm.inputs[1:]]
        fused = ir.node(
            "SkipLayerNormalization", inputs, {"epsilon": epsilon}, domain=_MICROSOFT, name=norm.name
        )
        g.replace_node(model.graph, norm, [fused])
        changed += 1
    return changed


def plain_mask(model: ir.Model, shapes: Mapping[str, Shapes]) -> int:
    """Take the padding mask [batch, sequence] by two new axes, where it was gathered by computed indices."""
    changed = 0
    for gather in g.nodes(model.graph, "GatherND"):
        mask = gather.inputs[0]
        made, read = shapes.get(gather.outputs[0].name or ""), shapes.get((mask.name if mask else "") or "")
        if mask is None or not made or not read or len(read[0]) != 2:
            continue
        if any(out != (rows[0], 1, 1, rows[1]) for out, rows in zip(made, read, strict=True)):
            continue
        (both,) = g.consumers(gather.outputs[0])
        axes = g.add_constant(model.graph, "mask_axes", np.array([1, 2], np.int64))
        g.replace_node(
            model.graph, both if both.op_type == "And" else gather, [ir.node("Unsqueeze", [mask, axes])]
        )
        changed += 1
    g.remove_unused(model)
    return changed


@dataclass(frozen=True)
class _Attention:
    """softmax(scale · q kᵀ + mask) v, as nodes; q, k, v are [rows, heads · size]."""

    softmax: ir.Node
    scale: ir.Node
    mask: ir.Value
    projections: tuple[ir.Value, ir.Value, ir.Value]
    shape: ir.Node
    output: ir.Node


def _attentions(model: ir.Model) -> Iterator[_Attention]:
    for softmax in g.nodes(model.graph, "Softmax"):
        try:
            (context,) = g.consumers(softmax.outputs[0])
            add = _maker(softmax.inputs[0], "Add")
            scale = _maker(add.inputs[0], "Mul")
            scores = _maker(scale.inputs[0], "MatMul")
            turned = [_maker(v, "Transpose") for v in (*scores.inputs, context.inputs[1])]
            split = [_maker(node.inputs[0], "Reshape") for node in turned]
            (back,) = g.consumers(context.outputs[0])
            output = next(node for node in g.consumers(back.outputs[0]) if node.op_type == "Reshape")
            shape = _maker(split[0].inputs[1], "Concat")
            q, k, v = (node.inputs[0] for node in split)
        except (ValueError, StopIteration):
            continue
        if q and k and v and add.inputs[1]:
            yield _Attention(softmax, scale, add.inputs[1], (q, k, v), shape, output)


def _maker(value: ir.Value | None, op_type: str) -> ir.Node:
    node = value.producer() if value is not None else None
    if node is None or node.op_type != op_type:
        raise ValueError(op_type)
    return node


def multi_head_attention(model: ir.Model, shapes: Mapping[str, Shapes]) -> int:
    """Replace attention by ONNX Runtime's MultiHeadAttention."""
    model.opset_imports[_MICROSOFT] = 1
    found = list(_attentions(model))
    for attention in found:
        scale = g.constant(attention.scale.inputs[1])
        made = shapes[attention.output.inputs[0].name or ""] if attention.output.inputs[0] else ()
        assert scale is not None
        width = g.add_constant(model.graph, "width", np.array([math.prod(made[0][2:])], np.int64))
        to = ir.node("Concat", [*attention.shape.inputs[:2], width], {"axis": 0})
        tokens = [ir.node("Reshape", [value, to.outputs[0]]) for value in attention.projections]
        # The kernel takes no mask that is broadcast over the queries.
        batch, sequence = attention.shape.inputs[:2]
        one = g.add_constant(model.graph, "one", np.array([1], np.int64))
        square = ir.node("Concat", [batch, one, sequence, sequence], {"axis": 0})
        mask = ir.node("Expand", [attention.mask, square.outputs[0]])
        fused = ir.node(
            "MultiHeadAttention",
            [*(node.outputs[0] for node in tokens), None, None, mask.outputs[0]],
            {"num_heads": made[0][2], "scale": float(scale.item())},
            domain=_MICROSOFT,
        )
        model.graph.insert_before(attention.softmax, [to, *tokens, square, mask, fused])
        attention.output.replace_input_with(0, fused.outputs[0])
    g.remove_unused(model)
    return len(found)


def folded_root(model: ir.Model, _: Mapping[str, Shapes]) -> int:
    """Fold attention's 1/√d into the query's weight, which is the first part of a packed projection."""
    found = list(_attentions(model))
    for attention in found:
        factor = g.constant(attention.scale.inputs[1])
        split = attention.projections[0].producer()
        product = split.inputs[0].producer() if split is not None and split.inputs[0] is not None else None
        if factor is None or split is None or product is None or product.op_type != "Gemm":
            continue
        widths = g.constant(split.inputs[1])
        for index in (1, 2):
            array = g.constant(product.inputs[index])
            assert array is not None
            assert widths is not None
            scaled = array.copy()
            scaled[..., : int(widths[0])] *= float(factor.item())
            product.replace_input_with(index, g.add_constant(model.graph, "with_root", scaled))
        attention.scale.outputs[0].replace_all_uses_with(attention.scale.inputs[0])
    g.remove_unused(model)
    return len(found)


FORMS: dict[str, GraphRewrite] = {
    "plain-mask": plain_mask,
    "erf-gelu": erf_gelu,
    "tanh-approximation": tanh_approximation,
    **REWRITES,
    "skip-layer-norm": skip_layer_norm,
    "folded-root": folded_root,
    "multi-head-attention": multi_head_attention,
}
"""All that can be measured, in the order they are done."""
