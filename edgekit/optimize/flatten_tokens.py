"""Let a transformer's projections work on rows: [batch, sequence, K] becomes [batch · sequence, K].

`Add(MatMul(x, W), b)` then is `Gemm(rows, W, b)`, whose int8 kernel adds the bias to its accumulator, and
the residual adds and norms between projections run on rows too. ONNX Runtime does not fuse those into
SkipLayerNormalization, which on the CPU is slower than Add and LayerNormalization apart.

Source: measured on all-MiniLM-L6-v2 (`benchmarks/`); onnxruntime core/optimizer/skip_layer_norm_fusion.cc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.optimize.probe_shapes import Shapes

_UNARY = ("Gelu", "Relu", "Erf", "Tanh", "Sigmoid", "LeakyRelu", "HardSwish", "HardSigmoid", "Elu")
_NORMS = ("LayerNormalization", "RMSNormalization")
_BINARY = ("Add", "Sub", "Mul", "Div")


def flatten_tokens(model: ir.Model, shapes: Mapping[str, Shapes]) -> int:
    """Rewrite every matrix product on three or more axes, in place; return how many became Gemm.

    Args:
        model: A float graph in topological order.
        shapes: Of every value, as `probe_shapes` found them.
    """
    work = _Flattening(model.graph, shapes)
    for node in list(model.graph):
        work.visit(node)
    work.restore()
    g.remove_unused(model)
    return work.gemms


@dataclass
class _Flattening:
    """The rewrite under way.

    Attributes:
        rows: Value -> the same numbers as [rows, K].
        origin: Value -> a value with the same leading axes that is not rewritten.
        replaced: Nodes whose result is now computed on rows.
    """

    graph: ir.Graph
    shapes: Mapping[str, Shapes]
    rows: dict[ir.Value, ir.Value] = field(default_factory=dict)
    origin: dict[ir.Value, ir.Value] = field(default_factory=dict)
    replaced: set[ir.Node] = field(default_factory=set)
    gemms: int = 0

    def visit(self, node: ir.Node) -> None:
        """Rewrite one node if it can work on rows."""
        if node in self.replaced or len(node.outputs) != 1:
            return
        if node.op_type == "MatMul":
            self._product(node)
        elif node.op_type in _BINARY:
            self._binary(node)
        elif node.op_type == "Reshape":
            self._reshape(node)
        elif node.inputs and self._works_on_rows(node) and self._is_on_rows(node):
            attributes = dict(node.attributes)
            if node.op_type in _NORMS:
                attributes["axis"] = ir.AttrInt64("axis", -1)
            self._put(node, node.op_type, [self._rows_of(node.inputs[0], node), *node.inputs[1:]], attributes)

    def restore(self) -> None:
        """Give back the original shape where something that was not rewritten reads it."""
        for value, rows in self.rows.items():
            producer = value.producer()
            if producer not in self.replaced:
                continue
            readers = [use for use in value.uses() if use.node not in self.replaced]
            if readers or value.is_graph_output():
                self._restore_one(value, rows, readers)

    def _product(self, node: ir.Node) -> None:
        x, weight = node.inputs[0], g.constant(node.inputs[1])
        shape = self._shape(x)
        if x is None or weight is None or weight.ndim != 2 or shape is None or len(shape[0]) < 3:
            return
        rows = self._rows_of(x, node)
        add, bias = self._bias(node)
        if add is None or bias is None:
            self._put(node, "MatMul", [rows, node.inputs[1]], {})
            self.origin[node.outputs[0]] = self.origin[x]
            return
        self._put(add, "Gemm", [rows, node.inputs[1], bias], {}, name=node.name, before=node)
        self.replaced.add(node)
        self.origin[add.outputs[0]] = self.origin[x]
        self.gemms += 1

    def _bias(self, node: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
        readers = g.consumers(node.outputs[0])
        if len(readers) != 1 or readers[0].op_type != "Add" or node.outputs[0].is_graph_output():
            return None, None
        biases = [v for v in readers[0].inputs if (c := g.constant(v)) is not None and c.ndim == 1]
        return (readers[0], biases[0]) if biases else (None, None)

    def _binary(self, node: ir.Node) -> None:
        inputs = [value for value in node.inputs if value is not None]
        if not any(value in self.rows for value in inputs):
            return
        shape = self._shape(node.outputs[0])
        if shape is None or not all(self._fits_rows(value, shape) for value in inputs):
            return
        flat = [value if g.constant(value) is not None else self._rows_of(value, node) for value in inputs]
        self._put(node, node.op_type, flat, {})

    def _fits_rows(self, value: ir.Value, shape: Shapes) -> bool:
        """Whether a value is a constant along the last axis, or has exactly the result's shape."""
        array = g.constant(value)
        if array is not None:
            return array.size == 1 or (array.ndim == 1 and array.size == shape[0][-1])
        return self._shape(value) == shape

    def _reshape(self, node: ir.Node) -> None:
        x = node.inputs[0]
        if x is None or x not in self.rows:
            return
        target = self._shape(node.outputs[0])
        if target is not None and not _copies_axes(node.inputs[1]):
            node.replace_input_with(0, self.rows[x])

    def _is_on_rows(self, node: ir.Node) -> bool:
        """Whether a node's input is on rows, or the node is a sum's norm, which is kept from fusing so."""
        x = node.inputs[0]
        if x in self.rows:
            return True
        producer, shape = x.producer() if x is not None else None, self._shape(x)
        sums = producer is not None and producer.op_type == "Add" and len(producer.inputs) == 2
        return node.op_type in _NORMS and sums and shape is not None and len(shape[0]) == 3

    def _works_on_rows(self, node: ir.Node) -> bool:
        if node.op_type in _UNARY:
            return True
        if node.op_type not in _NORMS:
            return False
        shape = self._shape(node.inputs[0])
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
        constants = all(v is None or g.constant(v) is not None for v in node.inputs[1:])
        return shape is not None and axis in (-1, len(shape[0]) - 1) and constants

    def _rows_of(self, value: ir.Value | None, before: ir.Node) -> ir.Value:
        assert value is not None
        if value in self.rows:
            return self.rows[value]
        shape = self._shape(value)
        assert shape is not None
        producer = value.producer()
        source = producer.inputs[0] if producer is not None and producer.op_type == "Reshape" else value
        target = g.add_constant(self.graph, "rows_shape", np.array([-1, shape[0][-1]], np.int64))
        node = ir.node("Reshape", [source, target], name=f"{value.name}_to_rows")
        node.outputs[0].name = f"{value.name}_rows"
        self.graph.insert_before(before, node)
        self.rows[value], self.origin[value] = node.outputs[0], value
        return node.outputs[0]

    def _put(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, ir.Attr],
        *,
        name: str | None = None,
        before: ir.Node | None = None,
    ) -> None:
        """Compute a node's result on rows, by a new node beside it."""
        result = node.outputs[0]
        new = ir.node(op_type, inputs, name=name or node.name)
        new.attributes.update(attributes)
        new.outputs[0].name, new.outputs[0].type = f"{result.name}_rows", result.type
        self.graph.insert_before(before or node, new)
        self.rows[result] = new.outputs[0]
        self.replaced.add(node)
        known = [self.origin[v] for v in node.inputs if v in self.origin]
        if known:
            self.origin[result] = known[0]

    def _restore_one(self, value: ir.Value, rows: ir.Value, readers: Sequence[Any]) -> None:
        shape = self._shape(value)
        producer = rows.producer()
        assert shape is not None
        assert producer is not None
        leading = ir.node("Shape", [self.origin[value]], {"start": 0, "end": -1})
        width = g.add_constant(self.graph, "row_width", np.array([shape[0][-1]], np.int64))
        target = ir.node("Concat", [leading.outputs[0], width], {"axis": 0})
        restored = ir.node("Reshape", [rows, target.outputs[0]], name=f"{value.name}_restored")
        for node, suffix in ((leading, "leading"), (target, "shape"), (restored, "restored")):
            node.name, node.outputs[0].name = f"{value.name}_{suffix}", f"{value.name}_{suffix}_value"
        self.graph.insert_after(producer, [leading, target, restored])
        for use in readers:
            use.node.replace_input_with(use.idx, restored.outputs[0])
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                restored.outputs[0].name, value.name = value.name, f"{value.name}_unused"
                restored.outputs[0].type, restored.outputs[0].shape = value.type, value.shape
                self.graph.outputs[index] = restored.outputs[0]

    def _shape(self, value: ir.Value | None) -> Shapes | None:
        return self.shapes.get(value.name) if value is not None and value.name else None


def _copies_axes(target: ir.Value | None) -> bool:
    """Whether a Reshape's target may hold a 0, which would copy an axis of the input."""
    array = g.constant(target)
    if array is not None:
        return bool((array == 0).any())
    producer = target.producer() if target is not None else None
    if producer is None or producer.op_type != "Concat":
        return True
    parts = [g.constant(value) for value in producer.inputs]
    return any(part is not None and bool((part == 0).any()) for part in parts)
