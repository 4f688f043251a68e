"""Where the smoothing of an activation can go without a node of its own.

Dividing an activation's channels costs nothing when whatever makes the activation is linear in constants:

* the weight and bias of a LayerNorm or RMSNorm, or the vector of a Mul, that only these products read;
* the value projection of attention, when the activation is `softmax(...) @ value` with its heads put back
  together: attention mixes positions and never channels, so channel c of the result is scaled exactly as
  channel c of the value is. The projection loses nothing either: its scales are per output channel.
* the product before a Relu, since relu(x / s) = relu(x) / s for every s > 0. Then nothing stands between that
  product and the codes of its Relu, and it can give them at once.

Source: Xiao et al. 2022, SmoothQuant, arXiv:2211.10438, section 4 (norms); the others are the same algebra.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.quantize.plan import LinearGroup, transposed

_HEADS_FIRST = [0, 2, 1, 3]


@dataclass(frozen=True)
class Fold:
    """Constants to divide, so that an activation comes out smoothed.

    Attributes:
        into: What a person calls the place, e.g. `LayerNormalization`.
        parts: (node, input index, axis, first channel) of each constant; as many channels as are smoothed.
        early: The constants are a product's own weight: divide them before that product is quantized.
    """

    into: str
    parts: tuple[tuple[ir.Node, int, int, int], ...]
    early: bool

    def apply(self, graph: ir.Graph, smoothing: np.ndarray) -> None:
        """Divide the constants by `smoothing`, [channels]; other readers of a constant keep the old one."""
        for node, index, axis, first in self.parts:
            value = node.inputs[index]
            array = g.constant(value)
            assert value is not None
            assert array is not None
            divisor = np.ones(array.shape[axis], np.float32)
            divisor[first : first + len(smoothing)] = smoothing
            shape = [-1 if i == axis % array.ndim else 1 for i in range(array.ndim)]
            smoothed = (array / divisor.reshape(shape)).astype(np.float32)
            node.replace_input_with(index, g.add_constant(graph, f"{value.name}_smoothed", smoothed))


def find_fold(group: LinearGroup) -> Fold | None:
    """Return where the smoothing of a group's activation can go for free, or None."""
    if group.activation.is_graph_output() or set(g.consumers(group.activation)) != set(group.nodes):
        return None
    value = group.activation
    return _into_norm(value) or _into_rectified(value) or _into_value_projection(value)


def _into_norm(activation: ir.Value) -> Fold | None:
    norm = activation.producer()
    if norm is not None and norm.op_type == "Mul":
        return _into_scale(norm)
    if norm is None or norm.op_type not in ("LayerNormalization", "RMSNormalization"):
        return None
    parts = [(norm, i, -1, 0) for i, value in enumerate(norm.inputs) if i and value is not None]
    return Fold(norm.op_type, tuple(parts), early=False) if _constant(parts) else None


def _into_scale(multiply: ir.Node) -> Fold | None:
    """Return the fold into the constant vector of a Mul, which ends an RMSNorm in primitive nodes."""
    constants = [g.constant(value) for value in multiply.inputs]
    vectors = [i for i, c in enumerate(constants) if c is not None and c.ndim == 1 and c.size > 1]
    parts = tuple((multiply, index, -1, 0) for index in vectors)
    return Fold("scale before it", parts, early=False) if len(parts) == 1 else None


def _into_rectified(activation: ir.Value) -> Fold | None:
    relu = _maker(activation, "Relu")
    value = relu.inputs[0] if relu is not None else None
    return _into_product(value, "product before it") if value is not None and _read_once(value) else None


def _into_value_projection(activation: ir.Value) -> Fold | None:
    joined = _maker(activation, "Reshape")
    turned = _maker(joined, "Transpose")
    mixed = _maker(turned, "MatMul")
    if mixed is None or _permutation(turned) != _HEADS_FIRST or g.constant(mixed.inputs[1]) is not None:
        return None
    split_heads = mixed.inputs[1].producer() if mixed.inputs[1] is not None else None
    if split_heads is None or split_heads.op_type != "Transpose" or _permutation(split_heads) != _HEADS_FIRST:
        return None
    if not _read_once(mixed.inputs[1]):
        return None
    heads = _maker(split_heads.inputs[0], "Reshape", once=True)
    value = heads.inputs[0] if heads is not None else None
    return _into_product(value, "value projection") if value is not None and _read_once(value) else None


def _into_product(value: ir.Value, called: str) -> Fold | None:
    """Return the fold into the product that makes `value`, alone or as one part of a packed one."""
    node, first = value.producer(), 0
    if node is not None and node.op_type == "Split":
        sizes = g.constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if sizes is None or node.inputs[0] is None:
            return None
        first = int(sizes[: node.outputs.index(value)].sum())
        node = node.inputs[0].producer()
    parts: list[tuple[ir.Node, int, int, int]] = []
    if node is not None and node.op_type == "Gemm" and len(node.inputs) > 2:
        axis = 0 if transposed(node) else 1
        weight, bias_row = g.constant(node.inputs[1]), g.constant(node.inputs[2])
        if weight is None or bias_row is None or bias_row.shape[-1:] != weight.shape[axis : axis + 1]:
            return None  # one number for all channels cannot be divided channel by channel
        parts = [(node, 1, axis, first), (node, 2, -1, first)]
    elif node is not None and node.op_type == "Add":
        bias = [i for i, v in enumerate(node.inputs) if (c := g.constant(v)) is not None and c.ndim == 1]
        product = _maker(node.inputs[1 - bias[0]], "MatMul", once=True) if len(bias) == 1 else None
        if product is not None:
            parts = [(product, 1, 1, first), (node, bias[0], -1, first)]
    elif node is not None and node.op_type == "MatMul":
        parts = [(node, 1, 1, first)]
    return Fold(called, tuple(parts), early=True) if parts and _constant(parts) else None


def _maker(source: ir.Value | ir.Node | None, op_type: str, *, once: bool = False) -> ir.Node | None:
    """Return the node of a type that makes a value (or a node's first input), or None."""
    value = source.inputs[0] if isinstance(source, ir.Node) else source
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type != op_type:
        return None
    needs_one_reader = once or isinstance(source, ir.Node)
    return node if not needs_one_reader or _read_once(value) else None


def _read_once(value: ir.Value | None) -> bool:
    return value is not None and len(g.consumers(value)) == 1 and not value.is_graph_output()


def _permutation(node: ir.Node | None) -> list[int] | None:
    if node is None or "perm" not in node.attributes:
        return None
    return list(node.attributes["perm"].as_ints())


def _constant(parts: list[tuple[ir.Node, int, int, int]]) -> bool:
    return all(g.constant(node.inputs[index]) is not None for node, index, _, _ in parts)
