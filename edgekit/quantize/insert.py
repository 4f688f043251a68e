"""Put QuantizeLinear and DequantizeLinear nodes into a graph: the mechanics, without any policy."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.quantize.schemes import Affine


def quantize_dequantize(graph: ir.Graph, value: ir.Value, affine: Affine, name: str) -> list[ir.Node]:
    """Return a Q and a DQ node (not inserted yet) that hold `value` in 8 bits.

    A scalar scale is meant: a QuantizeLinear with one scale per channel is 80 times slower on the CPU.
    """
    scale = g.add_constant(graph, f"{name}_scale", np.array(affine.scale, np.float32))
    zero = g.add_constant(graph, f"{name}_zero_point", np.array(affine.zero_point, affine.scheme.dtype))
    quantize = ir.node("QuantizeLinear", [value, scale, zero], name=f"{name}_quantize")
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero], name=f"{name}_dequantize")
    quantize.outputs[0].name, dequantize.outputs[0].name = f"{name}_codes", f"{name}_held"
    return [quantize, dequantize]


def hold_in_8_bits(
    graph: ir.Graph, value: ir.Value, affine: Affine, only: Collection[ir.Node] | None = None
) -> None:
    """Make the readers of a value read it through Q and DQ.

    Args:
        graph: Where the value is.
        value: float32.
        affine: Its codes.
        only: Readers to change; None changes all, and the graph's output too.
    """
    readers = [(use.node, use.idx) for use in value.uses() if only is None or use.node in only]
    pair = quantize_dequantize(graph, value, affine, value.name or "tensor")
    held = pair[-1].outputs[0]
    held.shape, held.type = value.shape, value.type
    producer = value.producer()
    if producer is None:
        graph.insert_before(next(iter(graph)), pair)
    else:
        graph.insert_after(producer, pair)
    for node, index in readers:
        node.replace_input_with(index, held)
    for index, output in enumerate(graph.outputs):
        if output is value and only is None:
            held.name, value.name = value.name, f"{value.name}_float"
            graph.outputs[index] = held


def rectify_codes(graph: ir.Graph, value: ir.Value, affine: Affine) -> None:
    """Make a Relu or Clip that gives `value` work on codes, where no QuantizeLinear can stand for it.

    The runtime drops such an op where the codes end where it cuts, at 0. Symmetric codes go on below 0, so
    the convolution before it would stay float. Its output in the same codes loses nothing above 0, and on
    codes there is a kernel for LeakyRelu; with a slope of 0 it is the Relu. An upper bound is kept by the
    codes, which end at the largest value seen.
    Source: onnxruntime core/optimizer/qdq_transformer/relu_quantizelinear.cc, qlinear_lookup_table.

    Args:
        graph: Where the value is.
        value: float32, not held yet.
        affine: Its codes.
    """
    node = value.producer()
    before = node.inputs[0] if node is not None and node.op_type in ("Relu", "Clip") else None
    if node is None or before is None:
        return
    low = g.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.op_type == "Clip" and (low is None or low != 0):
        return
    pair = quantize_dequantize(graph, before, affine, before.name or "tensor")
    graph.insert_before(node, pair)
    node.op_type = "LeakyRelu"
    node.resize_inputs(1)
    node.replace_input_with(0, pair[-1].outputs[0])
    node.attributes["alpha"] = ir.AttrFloat32("alpha", 0.0)


def keep_in_float(graph: ir.Graph) -> None:
    """Part each convolution and Gemm that has a float weight from the DequantizeLinear that it reads.

    ONNX Runtime takes such a node for one that was meant to be quantized and rounds its weight, with one
    scale for all, when it opens the file. A Clip to all finite numbers changes nothing and is left alone;
    it costs one pass over the values. Reshapes and Identities would be taken away again.
    Source: onnxruntime core/optimizer/qdq_transformer/weight_bias_quantization.cc; seen in 1.31.
    """
    bounds = np.finfo(np.float32)
    for node in g.nodes(graph, "Conv", "ConvTranspose", "Gemm"):
        read, weight = node.inputs[0], node.inputs[1]
        source = read.producer() if read is not None else None
        if source is None or source.op_type != "DequantizeLinear" or g.constant(weight) is None:
            continue
        low = g.add_constant(graph, f"{node.name}_lowest", np.array(bounds.min, np.float32))
        high = g.add_constant(graph, f"{node.name}_highest", np.array(bounds.max, np.float32))
        clip = ir.node("Clip", [read, low, high], name=f"{node.name}_in_float")
        clip.outputs[0].name = f"{node.name}_read"
        node.replace_input_with(0, clip.outputs[0])
        graph.insert_before(node, clip)


def part_readers(graph: ir.Graph, node: ir.Node) -> None:
    """Put a Reshape that changes nothing behind a product where its readers would keep it in float.

    ONNX Runtime makes an int8 kernel of a product whose readers are all QuantizeLinear, or none of them. It
    looks through a Relu or Clip that is the only reader: there it makes one only where that op's only reader
    is a QuantizeLinear whose codes end where the op cuts, and the kernel then gives those codes. Anywhere
    else the product would run in float, with a weight that is dequantized on every run.
    Source: onnxruntime core/optimizer/qdq_transformer/selectors_actions/qdq_selectors.cc, GetQDQSelection
    and CheckQDQNodes.

    Args:
        graph: Where the product is.
        node: A quantized MatMul or Gemm.
    """
    if not _one_kernel(node.outputs[0]):
        part(graph, node)


def part(graph: ir.Graph, node: ir.Node) -> None:
    """Put a Reshape that changes nothing between a node and its readers."""
    out = node.outputs[0]
    uses = list(out.uses())
    shape = ir.node("Shape", [out], name=f"{node.name}_shape")
    same = ir.node("Reshape", [out, shape.outputs[0]], name=f"{node.name}_parted")
    shape.outputs[0].name, same.outputs[0].name = f"{out.name}_shape", f"{out.name}_parted"
    for use in uses:
        use.node.replace_input_with(use.idx, same.outputs[0])
    graph.insert_after(node, [shape, same])


def _one_kernel(out: ir.Value) -> bool:
    """Return whether a quantized product that gives `out` becomes an int8 kernel as it stands."""
    readers = g.consumers(out)
    ops = {reader.op_type for reader in readers}
    if "QuantizeLinear" in ops:
        return ops == {"QuantizeLinear"} and not out.is_graph_output()
    if len(readers) != 1 or ops.isdisjoint(("Relu", "Clip")):
        return True
    cut = readers[0].outputs[0]
    behind = g.consumers(cut)
    if len(behind) != 1 or cut.is_graph_output():
        return True
    quantized = behind[0].op_type == "QuantizeLinear" and _ends_there(readers[0], behind[0])
    return quantized and not out.is_graph_output()


def _ends_there(cut: ir.Node, quantize: ir.Node) -> bool:
    """Return whether all codes of a QuantizeLinear stand for numbers that a Relu or Clip lets through."""
    bounds = [-np.inf, np.inf] if cut.op_type == "Clip" else [0.0, np.inf]
    for side, value in enumerate(cut.inputs[1:]):
        bound = g.constant(value)
        if value is not None and bound is None:
            return False
        bounds[side] = float(bound) if bound is not None else bounds[side]
    scale, zero = g.constant(quantize.inputs[1]), g.constant(quantize.inputs[2])
    if scale is None or zero is None:
        return False
    codes = np.iinfo(zero.dtype)
    low, high = ((limit - int(zero)) * float(scale) for limit in (codes.min, codes.max))
    epsilon = np.finfo(np.float32).eps  # the runtime allows as much
    return bool(bounds[0] - low <= epsilon and high - bounds[1] <= epsilon)


def dequantized_weight(
    graph: ir.Graph, before: ir.Node, codes: np.ndarray, scale: np.ndarray, axis: int, name: str
) -> ir.Value:
    """Add int8 codes and their DequantizeLinear before a node, and return the float value.

    Args:
        graph: Where to add.
        before: The node that will read the value.
        codes: int8, or int32 for a bias.
        scale: float32, [channels] or a scalar.
        axis: Axis of the channels.
        name: Prefix of the constants' names.
    """
    held = g.add_constant(graph, f"{name}_quantized", codes)
    inputs = [held, g.add_constant(graph, f"{name}_scale", scale)]
    if codes.dtype != np.int32:  # a bias has no zero point: ONNX wants it absent or 0
        zeros = np.zeros(scale.shape, codes.dtype)
        inputs.append(g.add_constant(graph, f"{name}_zero_point", zeros))
    attributes = {"axis": axis} if scale.ndim else {}
    # Nodes that share a constant get codes each, so the codes' name is the one that is unique.
    node = ir.node("DequantizeLinear", inputs, attributes, name=f"{held.name}_dequantize")
    node.outputs[0].name = f"{held.name}_held"
    graph.insert_before(before, node)
    return node.outputs[0]


def int32_bias(
    graph: ir.Graph, node: ir.Node, bias: np.ndarray, activation: float, weight: np.ndarray, name: str
) -> None:
    """Give a Conv or Gemm its bias as int32 codes, whose scale is activation scale times weight scale.

    The kernel adds it to its int32 accumulator.
    Source: ONNX Runtime quantization documentation, "Bias is int32 with scale = scale_x * scale_w".
    """
    scale = (np.float32(activation) * weight.reshape(-1)).astype(np.float32)
    if scale.size != bias.size:
        scale = np.full(bias.shape, scale[0], np.float32)
    # In float64: float32 has no 2**31 - 1, and its 2**31 would come out as the lowest int32.
    steps = np.divide(bias, scale, out=np.zeros(bias.shape), where=scale > 0, dtype=np.float64)
    codes = np.clip(np.rint(steps), -(2**31 - 1), 2**31 - 1).astype(np.int32)
    node.replace_input_with(2, dequantized_weight(graph, node, codes, scale, 0, name))
