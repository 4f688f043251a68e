"""Store nothing twice: constants of a quantized graph that follow from others, or fit in half the bytes.

What replaces a constant here is a node on constants alone. ONNX Runtime computes it once, when it opens the
file and before it looks for int8 kernels, so neither speed nor result changes; only the file does.
Source: onnxruntime core/optimizer/graph_transformer_utils.cc (ConstantFolding before QDQ selection).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit import graph as g

# Below this many numbers the node and its names take more than they save.
_WORTH_A_NODE = 128


def compact(graph: ir.Graph) -> int:
    """Make a quantized graph smaller, exactly; return the bytes of constants saved.

    * Equal zero points become one constant.
    * The scale of a product's bias, activation scale times weight scale, becomes that `Mul`.
    * A float32 vector whose every number float16 can hold is stored as float16 behind a `Cast`.

    Args:
        graph: Edited in place.
    """
    before = _constant_bytes(graph)
    _share_zero_points(graph)
    for node in g.nodes(graph, "Gemm"):
        _multiply_bias_scale(graph, node)
    for value in list(graph.initializers.values()):
        _halve(graph, value)
    return before - _constant_bytes(graph)


def _share_zero_points(graph: ir.Graph) -> None:
    shared: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
    for node in g.nodes(graph, "QuantizeLinear", "DequantizeLinear"):
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        array = g.constant(zero)
        if zero is None or array is None:
            continue
        first = shared.setdefault((str(array.dtype), array.shape, array.tobytes()), zero)
        node.replace_input_with(2, first)
        _drop_unread(graph, zero)


def _multiply_bias_scale(graph: ir.Graph, product: ir.Node) -> None:
    """Compute the scale of a bias from those of the two factors, where that gives the same bits."""
    makers = [value.producer() if value is not None else None for value in product.inputs]
    if len(makers) < 3 or any(maker is None or maker.op_type != "DequantizeLinear" for maker in makers):
        return
    activation, weight, bias = (maker.inputs[1] for maker in makers if maker is not None)
    factors, scale = (g.constant(activation), g.constant(weight)), g.constant(bias)
    if activation is None or weight is None or bias is None or scale is None or scale.size < _WORTH_A_NODE:
        return
    if factors[0] is None or factors[1] is None or not np.array_equal(factors[0] * factors[1], scale):
        return
    reader = makers[2]
    assert reader is not None
    multiply = ir.node("Mul", [activation, weight], name=f"{bias.name}_made")
    graph.insert_before(reader, multiply)
    _replace_constant(graph, bias, multiply.outputs[0])


def _halve(graph: ir.Graph, value: ir.Value) -> None:
    array = g.constant(value)
    if array is None or array.dtype != np.float32 or array.size < _WORTH_A_NODE or value.is_graph_output():
        return
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.array_equal(half.astype(np.float32), array):
        return
    held = g.add_constant(graph, f"{value.name}_half", half)
    cast = ir.node("Cast", [held], {"to": ir.DataType.FLOAT}, name=f"{value.name}_cast")
    graph.insert_before(next(iter(graph)), cast)
    _replace_constant(graph, value, cast.outputs[0])


def _replace_constant(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let a node's output take the readers and the name of a constant."""
    old.replace_all_uses_with(new)
    name = old.name
    _drop_unread(graph, old)
    old.name, new.name = None, name


def _drop_unread(graph: ir.Graph, value: ir.Value) -> None:
    if value.name is not None and not value.uses() and not value.is_graph_output():
        graph.initializers.pop(value.name, None)


def _constant_bytes(graph: ir.Graph) -> int:
    return sum(v.const_value.nbytes for v in graph.initializers.values() if v.const_value is not None)
