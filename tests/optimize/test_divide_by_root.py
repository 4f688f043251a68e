"""`x * rsqrt(v)` as a division, which ONNX Runtime fuses to one norm."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit import graph as g
from edgekit.optimize.divide_by_root import divide_by_root
from edgekit.runtime import open_session

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
RMS_NORM = """
norm (float[batch, sequence, 8] x) => (float[batch, sequence, 8] y)
<float[8] weight = {1, 2, 3, 4, 5, 6, 7, 8}>
{
   two = Constant <value_float = 2.0> ()
   epsilon = Constant <value_float = 0.000001> ()
   last = Constant <value_ints = [-1]> ()
   square = Pow (x, two)
   mean = ReduceMean <keepdims = 1> (square, last)
   shifted = Add (mean, epsilon)
   root = Sqrt (shifted)
   inverse = Reciprocal (root)
   normal = Mul (LEFT, RIGHT)
   y = Mul (weight, normal)
}
"""


def model(text):
    proto = onnx.parser.parse_model(HEAD + text)
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))


def op_types(path):
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize(("left", "right"), [("x", "inverse"), ("inverse", "x")])
def test_the_runtime_makes_one_norm_of_it_and_the_result_stays(left, right, tmp_path) -> None:
    loaded = model(RMS_NORM.replace("LEFT", left).replace("RIGHT", right))
    g.save(loaded, tmp_path / "before.onnx")
    assert divide_by_root(loaded) == 1
    g.save(loaded, tmp_path / "after.onnx")
    assert "Reciprocal" not in op_types(tmp_path / "after.onnx")
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    before = open_session(tmp_path / "before.onnx", optimize=False).run(None, {"x": x})[0]
    for optimize in (False, True):
        session = open_session(
            tmp_path / "after.onnx", optimize=optimize, optimized_path=tmp_path / "optimized.onnx"
        )
        np.testing.assert_allclose(session.run(None, {"x": x})[0], before, rtol=1e-6, atol=1e-6)
    assert "SimplifiedLayerNormalization" in op_types(tmp_path / "optimized.onnx")


def test_the_inverse_of_anything_else_is_left_alone() -> None:
    text = RMS_NORM.replace("Sqrt", "Exp").replace("LEFT", "x").replace("RIGHT", "inverse")
    assert divide_by_root(model(text)) == 0
