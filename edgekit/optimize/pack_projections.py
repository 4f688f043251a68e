"""Compute projections of one activation together: three `Gemm(x, W_i, b_i)` become one Gemm and a Split.

Query, key and value read the same rows, so one wider product quantizes them once and keeps the kernel busy
for longer. The weights are joined along the output channels; per-channel scales stay what they were. Products
without biases (T5, ModernBERT's gates) are joined likewise.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit import graph as g


def pack_projections(model: ir.Model) -> int:
    """Join every group of products that read one value, in place; return how many groups there were."""
    groups: dict[tuple[ir.Value, str], list[ir.Node]] = {}
    for node in g.nodes(model.graph, "Gemm", "MatMul"):
        if node.inputs[0] is not None and _joinable(node):
            groups.setdefault((node.inputs[0], node.op_type), []).append(node)
    packed = [members for members in groups.values() if len(members) > 1]
    for members in packed:
        _join(model.graph, members)
    return len(packed)


def _joinable(node: ir.Node) -> bool:
    ranks = [array.ndim for value in node.inputs[1:] if (array := g.constant(value)) is not None]
    if node.attributes or node.outputs[0].is_graph_output():
        return False
    if node.op_type == "Gemm":
        return len(node.inputs) == 3 and ranks == [2, 1]
    return ranks == [2] and not _has_bias(node)


def _has_bias(product: ir.Node) -> bool:
    """Return whether a constant is added to a product: the runtime does that inside its int8 kernel."""
    adds = [node for node in g.consumers(product.outputs[0]) if node.op_type == "Add"]
    return any(g.constant(value) is not None for node in adds for value in node.inputs)


def _join(graph: ir.Graph, members: list[ir.Node]) -> None:
    first = members[0]
    joined = []
    for index, axis in ((1, 1), (2, 0))[: len(first.inputs) - 1]:
        arrays = [array for node in members if (array := g.constant(node.inputs[index])) is not None]
        name = "+".join(value.name or "" for node in members if (value := node.inputs[index]) is not None)
        joined.append(g.add_constant(graph, name, np.concatenate(arrays, axis=axis)))
    widths = [weight.shape[1] for node in members if (weight := g.constant(node.inputs[1])) is not None]
    name = "+".join(node.name or "" for node in members)
    product = ir.node(first.op_type, [first.inputs[0], *joined], name=name)
    product.outputs[0].name, product.outputs[0].type = f"{name}_output", first.outputs[0].type
    sizes = g.add_constant(graph, "split_sizes", np.array(widths, np.int64))
    split = ir.node(
        "Split", [product.outputs[0], sizes], {"axis": -1}, num_outputs=len(members), name=f"{name}_split"
    )
    graph.insert_before(first, [product, split])
    for node, output in zip(members, split.outputs, strict=True):
        old = node.outputs[0]
        output.name, output.type = old.name, old.type
        old.name = f"{old.name}_unused"
        old.replace_all_uses_with(output)
        graph.remove(node, safe=True)
