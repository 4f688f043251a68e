"""What in a graph is quantized, and why the rest is not.

Two rules cover transformers, convolutional nets and what lies between:

* A matrix product with a constant weight (`MatMul`, `Gemm`) gets 8-bit inputs and gives float. Its
  neighbours (LayerNorm, Softmax, GELU, residual adds) have no int8 kernels, so quantizing its output
  would only add work and error. Where only a Relu stands between it and the next product, it gives that
  product's codes, which end where the Relu cuts: the runtime then runs neither Relu nor QuantizeLinear.
* A convolution gets 8-bit inputs and gives 8-bit outputs, since its int8 kernel has no other form. Ops
  that follow it and have int8 kernels (`Add`, `Mul`, pools, reshapes) continue on 8-bit values. What lies
  between two float tensors that a convolution reads stays float: only the convolution reads codes.

Source: onnxruntime core/optimizer/qdq_transformer (which groups of Q/DQ nodes become int8 kernels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.record import Skip

_KEEPS_RANGE = ("MaxPool", "Flatten", "Reshape")
_OWN_RANGE = ("AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu")
_JOINS = ("Add", "Mul", "Concat")
_FEW_TERMS = 32

SMALLEST_TABLE = 4096
"""Numbers of a table below which the constants that come with codes outweigh what they save."""


@dataclass(frozen=True)
class LinearGroup:
    """Matrix products that read the same float activation, e.g. query, key and value.

    Attributes:
        activation: Their common input, [..., K].
        nodes: `MatMul` and `Gemm` nodes, in graph order.
    """

    activation: ir.Value
    nodes: tuple[ir.Node, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that the quantizer will change.

    Attributes:
        linear: Matrix products on float activations.
        convs: Convolutions, in graph order.
        on_codes: Matrix products whose activation a convolution's region already holds in 8 bits.
        tensors: Values that are held in 8 bits in convolutional regions; each maps to the value whose range
            it has, itself or the one before a pool or reshape.
        entries: Those of `tensors` that float nodes make: float readers keep reading the float value.
        on_tensors: Nodes that read `tensors` as codes.
        embeddings: `Gather` nodes on constant tables.
        skipped: Matrix products that stay float, and why.
        conv_skipped: Convolutions that stay float and ops that leave 8-bit values for float, and why.
    """

    linear: tuple[LinearGroup, ...]
    convs: tuple[ir.Node, ...]
    on_codes: tuple[ir.Node, ...]
    tensors: dict[ir.Value, ir.Value]
    entries: frozenset[ir.Value]
    on_tensors: frozenset[ir.Node]
    embeddings: tuple[ir.Node, ...]
    skipped: tuple[Skip, ...]
    conv_skipped: tuple[Skip, ...]

    def observed(self) -> dict[str, int]:
        """Return the tensors whose statistics are needed: name -> channel axis."""
        names = {group.activation.name or "": -1 for group in self.linear}
        names |= {value.name or "": 1 for value in self.tensors.values()}
        return names


def make_plan(
    model: ir.Model,
    *,
    matmul_ops: Sequence[str],
    conv_ops: Sequence[str],
    embeddings: bool,
    float_entries: bool = False,
    exclude: Sequence[str] = (),
) -> Plan:
    """Decide what to quantize.

    Args:
        model: A float graph in topological order.
        matmul_ops: Op types to quantize with float outputs.
        conv_ops: Op types to quantize with 8-bit outputs.
        embeddings: Whether tables read by `Gather` are stored in 8 bits.
        float_entries: Leave convolutions that read float values in float where `why_float_entry` says so.
        exclude: Shell patterns of node names to leave in float.
    """
    skipped: list[Skip] = []
    conv_skipped: list[Skip] = []

    def wanted(node: ir.Node, skipped: list[Skip]) -> bool:
        if any(fnmatch(node.name or "", pattern) for pattern in exclude):
            skipped.append(Skip(_label(node), "excluded by the request"))
            return False
        reason = why_not(node)
        if reason:
            skipped.append(Skip(_label(node), reason))
        return not reason

    convs = [n for n in g.nodes(model.graph, "Conv") if "Conv" in conv_ops and wanted(n, conv_skipped)]
    region = _conv_region(model.graph, convs, conv_ops, conv_skipped, float_entries=float_entries)
    convs = [node for node in convs if node in region.nodes]
    grouped: dict[ir.Value, list[ir.Node]] = {}
    on_codes = []
    for node in g.nodes(model.graph, *matmul_ops):
        if not wanted(node, skipped):
            continue
        activation = node.inputs[0]
        assert activation is not None
        if activation in region.tensors:
            on_codes.append(node)
        else:
            grouped.setdefault(activation, []).append(node)
    tables = [n for n in g.nodes(model.graph, "Gather") if embeddings and _is_embedding(n)]
    linear = tuple(LinearGroup(value, tuple(members)) for value, members in grouped.items())
    return Plan(
        linear=linear,
        convs=tuple(convs),
        on_codes=tuple(on_codes),
        tensors=region.tensors,
        entries=frozenset(region.entries),
        on_tensors=frozenset(region.nodes) | frozenset(on_codes),
        embeddings=tuple(tables),
        skipped=tuple(skipped),
        conv_skipped=tuple(conv_skipped),
    )


def why_not(node: ir.Node) -> str:
    """Return why a MatMul, Gemm or Conv cannot have an int8 kernel, or an empty string if it can."""
    weight = g.constant(node.inputs[1])
    if g.constant(node.inputs[0]) is not None:
        return "the constant is on the left: int8 kernels take their weight on the right"
    if weight is None:
        return "both inputs are activations: there is no constant weight to quantize"
    if weight.dtype != np.float32:
        return f"the weight is {weight.dtype}, not float32"
    if node.op_type == "MatMul" and weight.ndim != 2:
        return f"the weight has {weight.ndim} axes: int8 kernels take 2"
    if node.op_type == "Gemm" and not _plain_gemm(node):
        return "Gemm with transA, alpha or beta has no int8 kernel"
    return _why_not_bias(node, weight)


def _why_not_bias(node: ir.Node, weight: np.ndarray) -> str:
    value = node.inputs[2] if node.op_type != "MatMul" and len(node.inputs) > 2 else None
    if value is None:
        return ""
    bias = g.constant(value)
    if bias is None:
        return "the bias is not constant"
    channels = weight.shape[0 if node.op_type == "Conv" or transposed(node) else 1]
    vector = bias.size == 1 or bias.shape in ((channels,), (1, channels))
    return "" if vector else "the bias is not one number per channel"


def why_float_entry(node: ir.Node, conv_ops: Sequence[str]) -> str:
    """Return why the float kernel of a convolution is the faster one where it reads a float value, or "".

    In float such a convolution also needs no codes of its input. Measured on AVX512-VNNI, one thread, with
    what follows in int8: 3x3 on 1 and 3 channels is 1.4 to 2.1 and 1.2 times faster in float, 4x4 on 1
    channel 1.2, but 4x4 and 7x7 on 3 channels 0.77; 3x3 depthwise 1.0 to 1.25, 7x7 between float values
    1.3 to 1.4. A depthwise one stays in int8 where that would keep an int8 op beside or behind it in float.

    Source: onnxruntime core/mlas/lib/convsym.cpp (channels have to come in fours, else each window is
    copied into a row).
    """
    weight = g.constant(node.inputs[1])
    if weight is None:
        return ""
    groups, channels = _int(node, "group", 1), weight.shape[1]
    if groups > 1 and channels == 1:
        read, made = node.inputs[0], rectified(node.outputs[0])
        alone = read is not None and len(g.consumers(read)) == 1
        between = not any(reader.op_type in conv_ops for reader in g.consumers(made))
        gains = "it reads float values, and a depthwise convolution gains nothing there from int8"
        return gains if alone or between else ""
    if groups == 1 and channels % 4 and weight[0].size < _FEW_TERMS:
        return f"it reads float values and adds up {weight[0].size} products: the float kernel is faster"
    return ""


def weight_matrix(node: ir.Node) -> np.ndarray:
    """Return the weight of a MatMul or Gemm as [K, N], float32."""
    weight = g.constant(node.inputs[1])
    assert weight is not None
    return weight.T if transposed(node) else weight


def transposed(node: ir.Node) -> bool:
    """Return whether a Gemm holds its weight as [N, K]."""
    return node.op_type == "Gemm" and _int(node, "transB", 0) == 1


def rectified(value: ir.Value) -> ir.Value:
    """Return the value after a Relu or constant Clip that is the only reader of `value`, or `value`.

    The runtime folds such an op into the QuantizeLinear behind it, so the codes go after it.
    """
    readers = g.consumers(value)
    if len(readers) != 1 or value.is_graph_output():
        return value
    node = readers[0]
    bounds_known = all(i is None or g.constant(i) is not None for i in node.inputs[1:])
    return node.outputs[0] if node.op_type in ("Relu", "Clip") and bounds_known else value


@dataclass
class _Region:
    """Values in 8 bits -> the value whose range each has; those that float nodes make; nodes on codes."""

    tensors: dict[ir.Value, ir.Value] = field(default_factory=dict)
    entries: set[ir.Value] = field(default_factory=set)
    nodes: set[ir.Node] = field(default_factory=set)


def _conv_region(
    graph: ir.Graph,
    convs: Sequence[ir.Node],
    conv_ops: Sequence[str],
    skipped: list[Skip],
    *,
    float_entries: bool,
) -> _Region:
    """Follow the 8-bit values from each convolution as far as ops have int8 kernels."""
    region, chosen = _Region(), set(convs)
    tensors = region.tensors
    for node in graph if convs else ():
        if node in chosen:
            x = node.inputs[0]
            assert x is not None
            reason = why_float_entry(node, conv_ops) if float_entries and x not in tensors else ""
            if reason:
                skipped.append(Skip(_label(node), reason))
                continue
            if x not in tensors:
                tensors[x] = _range_source(x)
                region.entries.add(x)
        elif node.op_type not in conv_ops or node.op_type not in (*_KEEPS_RANGE, *_OWN_RANGE, *_JOINS):
            continue
        else:
            reason = _why_not_on_codes(node, tensors)
            if reason and any(value in tensors for value in node.inputs):
                skipped.append(Skip(_label(node), reason))
            if reason:
                continue
        region.nodes.add(node)
        if node.op_type in _KEEPS_RANGE and node.inputs[0] is not None:
            tensors[node.outputs[0]] = tensors[node.inputs[0]]
        else:
            out = rectified(node.outputs[0])
            tensors[out] = out
    return region


def _range_source(value: ir.Value) -> ir.Value:
    """Return the value before pools and reshapes, which is observed also where its conv stays float."""
    node = value.producer()
    while node is not None and node.op_type in _KEEPS_RANGE and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def _why_not_on_codes(node: ir.Node, tensors: dict[ir.Value, ir.Value]) -> str:
    """Return why an op that could run on codes stays float, or an empty string."""
    data = [value for value in node.inputs if value is not None]
    data = data if node.op_type in _JOINS else data[:1]
    for value in data:
        if g.constant(value) is not None:
            return f"its input '{value.name}' is a constant"
        if value not in tensors:
            return f"its input '{value.name}' is float"
    if node.op_type == "AveragePool" and (_int(node, "ceil_mode", 0) or _dilated(node)):
        return "the int8 kernel ignores ceil_mode and dilations"
    return ""


def _dilated(node: ir.Node) -> bool:
    return "dilations" in node.attributes and any(d != 1 for d in node.attributes["dilations"].as_ints())


def _is_embedding(node: ir.Node) -> bool:
    table = g.constant(node.inputs[0])
    if table is None or table.dtype != np.float32 or table.ndim != 2 or _int(node, "axis", 0) != 0:
        return False
    return g.constant(node.inputs[1]) is None and table.size >= SMALLEST_TABLE


def _plain_gemm(node: ir.Node) -> bool:
    ones = [node.attributes[name].as_float() for name in ("alpha", "beta") if name in node.attributes]
    return _int(node, "transA", 0) == 0 and all(value == 1.0 for value in ones)


def _int(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _label(node: ir.Node) -> str:
    return f"{node.op_type} {node.name or node.outputs[0].name}"
