"""Write the mean over height and width as what it is: `ReduceMean(x, [2, 3])` -> `GlobalAveragePool(x)`.

PyTorch's exporter turns `AdaptiveAvgPool2d(1)` into a ReduceMean, which has no int8 kernel in ONNX Runtime;
GlobalAveragePool has one, so a quantized network stays in 8 bits up to its classifier.

Source: ONNX operator GlobalAveragePool; onnxruntime core/optimizer/qdq_transformer/selectors_actions
(`UnaryOpQDQRules`: the pools are there, ReduceMean is not).
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit import graph as g


def mean_to_pool(model: ir.Model) -> int:
    """Rewrite every mean over the two last axes of a 4-axis tensor, in place; return how many.

    Where the mean drops the axes, a Flatten to [batch, channels] follows the pool.
    """
    changed = 0
    for mean in g.nodes(model.graph, "ReduceMean"):
        x = mean.inputs[0]
        axes = g.constant(mean.inputs[1]) if len(mean.inputs) > 1 else None
        if x is None or x.shape is None or len(x.shape) != 4 or axes is None:
            continue
        if sorted(int(axis) % 4 for axis in axes.reshape(-1)) != [2, 3]:
            continue
        name = mean.name or mean.outputs[0].name
        pool = ir.node("GlobalAveragePool", [x], name=f"{name}_pool")
        new = [pool]
        if "keepdims" in mean.attributes and mean.attributes["keepdims"].as_int() == 0:
            pool.outputs[0].name = f"{name}_pooled"
            pool.outputs[0].type = x.type
            pool.outputs[0].shape = ir.Shape([*x.shape[:2], 1, 1])
            new.append(ir.node("Flatten", pool.outputs, name=f"{name}_flatten"))
        g.replace_node(model.graph, mean, new)
        changed += 1
    return changed
