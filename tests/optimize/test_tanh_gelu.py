"""GELU's tanh form, spelled out as transformers does, as one operator."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit import graph as g
from edgekit.optimize.tanh_gelu import tanh_gelu
from edgekit.runtime import open_session

NEW_GELU = """
gelu (float[batch, 8] x) => (float[batch, 8] y)
<float half = {0.5}, float three = {3.0}, float cubic = {0.044715}, float inner = {0.7978845608},
 float one = {1.0}>
{
   left = Mul (x, half)
   cube = Pow (x, three)
   bent = Mul (BENT)
   sum = Add (SUM)
   scaled = Mul (sum, inner)
   t = Tanh (scaled)
   plus = Add (t, one)
   y = Mul (PRODUCT)
}
"""


def model(opset=20, bent="cube, cubic", total="x, bent", product="left, plus", text=NEW_GELU):
    text = text.replace("BENT", bent).replace("SUM", total).replace("PRODUCT", product)
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{text}')
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))


@pytest.mark.parametrize(
    ("bent", "total", "product"),
    [("cube, cubic", "x, bent", "left, plus"), ("cubic, cube", "bent, x", "plus, left")],
)
def test_it_is_one_operator_with_the_same_result(bent, total, product, tmp_path) -> None:
    loaded = model(bent=bent, total=total, product=product)
    g.save(loaded, tmp_path / "before.onnx")
    assert tanh_gelu(loaded) == 1
    assert [node.op_type for node in loaded.graph] == ["Gelu"]
    g.save(loaded, tmp_path / "after.onnx")
    x = np.linspace(-6, 6, 48, dtype=np.float32).reshape(6, 8)
    found = [
        open_session(tmp_path / name, optimize=False).run(None, {"x": x})[0]
        for name in ("before.onnx", "after.onnx")
    ]
    np.testing.assert_allclose(found[1], found[0], atol=2e-6)


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("cubic = {0.044715}", "cubic = {0.05}"),
        ("three = {3.0}", "three = {2.0}"),
        ("half = {0.5}", "half = {0.25}"),
        ("inner = {0.7978845608}", "inner = {0.7}"),
        ("left = Mul (x, half)", "left = Mul (cube, half)"),
    ],
)
def test_another_expression_is_left_alone(written, instead) -> None:
    assert written in NEW_GELU
    assert tanh_gelu(model(text=NEW_GELU.replace(written, instead))) == 0


def test_before_operator_set_20_there_is_no_such_operator() -> None:
    assert tanh_gelu(model(opset=19)) == 0


def test_a_value_inside_that_is_also_read_elsewhere_stays() -> None:
    text = NEW_GELU.replace("(float[batch, 8] y)", "(float[batch, 8] y, float[batch, 8] t)")
    loaded = model(text=text)
    assert tanh_gelu(loaded) == 1
    assert "Tanh" in [node.op_type for node in loaded.graph]
