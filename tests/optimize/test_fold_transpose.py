"""Weights that layers share are constants of their products, however the exporter wrote them."""

import numpy as np
import onnx
import onnx_ir as ir

from edgekit import graph as g
from edgekit.optimize.fold_transpose import fold_transpose
from edgekit.runtime import open_session

SHARED = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 3] x) => (float[batch, 2] y, float[3, batch] t)
<float[2, 3] w = {1, 2, 3, 4, 5, 6}, float[3, 2] v = {1, 0, 0, 1, 1, 1}>
{
   first = Transpose <perm = [1, 0]> (w)
   h = MatMul (x, first)
   up = Transpose (v)
   back = MatMul (h, up)
   second = Transpose <perm = [1, 0]> (w)
   y = MatMul (back, second)
   t = Transpose <perm = [1, 0]> (x)
}
"""


def test_transposed_weights_become_constants_and_one_that_is_shared_stays_one(tmp_path) -> None:
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(SHARED))
    model = ir.serde.deserialize_model(proto)
    assert fold_transpose(model) == 3
    products = [node for node in model.graph if node.op_type == "MatMul"]
    assert all(g.constant(node.inputs[1]) is not None for node in products)
    assert products[0].inputs[1] is products[2].inputs[1]
    assert [node.op_type for node in model.graph].count("Transpose") == 1
    assert set(model.graph.initializers) == {"w_transposed", "v_transposed"}
    g.save(model, tmp_path / "folded.onnx")
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    before = open_session(proto.SerializeToString()).run(None, {"x": x})
    after = open_session(tmp_path / "folded.onnx").run(None, {"x": x})
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6)
