"""Store transposed what is only read transposed: `Transpose(W)` of a constant becomes a constant.

Exporters fold it where a weight is read once, and leave it where layers share large weights (ALBERT): the
product then has no constant weight, and would stay float. Exact.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit import graph as g


def fold_transpose(model: ir.Model) -> int:
    """Fold every transposed constant, in place; return how many there were."""
    folded: dict[tuple[ir.Value, tuple[int, ...]], ir.Value] = {}
    changed = 0
    for node in g.nodes(model.graph, "Transpose"):
        value, array = node.inputs[0], g.constant(node.inputs[0])
        if value is None or array is None or node.outputs[0].is_graph_output():
            continue
        given = node.attributes["perm"].as_ints() if "perm" in node.attributes else ()
        order = tuple(int(axis) for axis in given) or tuple(reversed(range(array.ndim)))
        if (value, order) not in folded:
            turned = np.transpose(array, order)
            folded[value, order] = g.add_constant(model.graph, f"{value.name}_transposed", turned)
        node.outputs[0].replace_all_uses_with(folded[value, order])
        model.graph.remove(node, safe=True)
        changed += 1
    g.remove_unused(model)
    return changed
