"""Write the mean over an image's height and width as what it is: a `GlobalAveragePool`.

PyTorch's exporter turns `AdaptiveAvgPool2d(1)` into a ReduceMean, which has no int8 kernel in ONNX Runtime;
GlobalAveragePool has one, so a quantized network stays in 8 bits up to its classifier. An AveragePool whose
window is larger than the image (EfficientNet writes its last pool so) has one that is wrong: measured with
ONNX Runtime 1.31, QLinearAveragePool with ceil_mode gives zeros.

Source: ONNX operator GlobalAveragePool; onnxruntime core/optimizer/qdq_transformer/selectors_actions
(`UnaryOpQDQRules`: the pools are there, ReduceMean is not).
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit import graph as g


def mean_to_pool(model: ir.Model) -> int:
    """Rewrite every mean over the whole of the two last axes of a 4-axis tensor, in place; return how many.

    Where the mean drops the axes, a Flatten to [batch, channels] follows the pool.
    """
    changed = 0
    for mean in g.nodes(model.graph, "ReduceMean", "AveragePool"):
        x = mean.inputs[0]
        if x is None or x.shape is None or len(x.shape) != 4:
            continue
        if not (_over_image(mean) if mean.op_type == "ReduceMean" else _covers_image(mean, x.shape)):
            continue
        pool = ir.node("GlobalAveragePool", [x], name=mean.name)
        new = [pool]
        if mean.op_type == "ReduceMean" and _int(mean, "keepdims", 1) == 0:
            pool.outputs[0].name = f"{mean.outputs[0].name}_pooled"
            pool.outputs[0].type = x.type
            pool.outputs[0].shape = ir.Shape([*x.shape[:2], 1, 1])
            new.append(ir.node("Flatten", pool.outputs, name=f"{mean.name}_flatten"))
        g.replace_node(model.graph, mean, new)
        changed += 1
    return changed


def _over_image(mean: ir.Node) -> bool:
    axes = g.constant(mean.inputs[1]) if len(mean.inputs) > 1 else None
    return axes is not None and sorted(int(axis) % 4 for axis in axes.reshape(-1)) == [2, 3]


def _covers_image(pool: ir.Node, shape: ir.Shape) -> bool:
    """Return whether one window without padding holds the whole image."""
    sides = [size for size in shape[2:] if isinstance(size, int)]
    window = list(pool.attributes["kernel_shape"].as_ints())
    pads = list(pool.attributes["pads"].as_ints()) if "pads" in pool.attributes else []
    dilations = list(pool.attributes["dilations"].as_ints()) if "dilations" in pool.attributes else []
    padded = "auto_pad" in pool.attributes and pool.attributes["auto_pad"].as_string() not in (
        "NOTSET",
        "VALID",
    )
    if len(sides) != 2 or padded or any(pads) or any(step != 1 for step in dilations):
        return False
    larger = _int(pool, "ceil_mode", 0) == 1 and all(k >= s for k, s in zip(window, sides, strict=True))
    return window == sides or larger


def _int(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default
