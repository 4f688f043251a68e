"""The benchmark of zeros: what it counts in a file."""

import numpy as np
import onnx_ir as ir

from benchmarks.sparsity import FORMS, zero_codes
from edgekit import graph as g
from edgekit.compression import SparsityOptions


def test_zeros_are_counted_in_matrices_and_not_in_tables(tmp_path):
    x = ir.Value(name="x", shape=ir.Shape([1, 4]), type=ir.TensorType(ir.DataType.INT8))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 20}, name="codes")
    matrix = np.array([[0, 1], [2, 0], [3, 4], [5, 6]], np.int8)
    node = ir.node("MatMulInteger", [x, g.add_constant(graph, "matrix", matrix)], name="product")
    table = g.add_constant(graph, "table", np.zeros((5000, 2), np.int8))
    rows = ir.node("Gather", [table, node.outputs[0]], name="lookup")
    graph.extend([node, rows])
    graph.outputs.append(rows.outputs[0])
    g.save(ir.Model(graph, ir_version=10), tmp_path / "m.onnx")
    assert zero_codes(tmp_path / "m.onnx") == 0.25


def test_the_dense_model_and_a_control_are_among_the_forms():
    assert FORMS["dense"] is None
    controls = [f for f in FORMS.values() if isinstance(f, SparsityOptions) and f.method == "magnitude"]
    assert controls
