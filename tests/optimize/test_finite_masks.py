"""Masks become ordinary numbers made by arithmetic, and the answers stay."""

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest

from edgekit import graph as g
from edgekit.optimize.finite_masks import MASKED, finite_masks

WHERE = """
<ir_version: 10, opset_import: ["" : 21]>
scores (int64[1, 4] mask, float[1, 4] s) => (float[1, 4] y)
{
   keep = Cast <to = 9> (mask)
   m = Where (keep, zero, low)
   a = Add (s, m)
   y = Softmax (a)
}
"""
ADDED = """
<ir_version: 10, opset_import: ["" : 21]>
scores (float[1, 4] s) => (float[1, 4] y)
{
   a = Add (s, causal)
   b = Clip (a, lowest)
   y = Softmax (b)
}
"""
S = np.array([[1.5, -2, 30, 0.25]], np.float32)


def _model(text: str, **constants) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(v, name) for name, v in constants.items())
    return proto


def _run(proto: onnx.ModelProto, **inputs) -> np.ndarray:
    return onnx.reference.ReferenceEvaluator(proto).run(None, inputs)[0]


@pytest.mark.parametrize("low", [np.finfo(np.float32).min, -np.inf, -1e4])
def test_a_where_of_numbers_becomes_a_product_and_a_sum(low) -> None:
    proto = _model(WHERE, zero=np.float32(0), low=np.float32(low))
    model = ir.serde.deserialize_model(proto)
    assert finite_masks(model) == 2
    assert [node.op_type for node in model.graph] == ["Cast", "Cast", "Mul", "Add", "Add", "Softmax"]
    after = ir.serde.serialize_model(model)
    for mask in ([[1, 1, 0, 1]], [[1, 1, 1, 1]], [[0, 1, 0, 0]]):
        mask = np.array(mask)
        np.testing.assert_allclose(_run(after, mask=mask, s=S), _run(proto, mask=mask, s=S), atol=1e-6)
    assert min(g.constant(v).min() for v in model.graph.initializers.values() if v.uses()) == MASKED


def test_an_added_mask_is_bounded_and_other_low_numbers_are_not() -> None:
    causal = np.array([[0, 0, -np.inf, 0]], np.float32)
    model = ir.serde.deserialize_model(_model(ADDED, causal=causal, lowest=np.float32(-3e38)))
    assert finite_masks(model) == 1
    add, clip, _ = list(model.graph)
    np.testing.assert_array_equal(g.constant(add.inputs[1]), [[0, 0, MASKED, 0]])
    assert g.constant(clip.inputs[1]) == np.float32(-3e38)


def test_low_numbers_beside_others_are_no_mask() -> None:
    held = np.array([[1, -5000, 3, 0]], np.float32)
    model = ir.serde.deserialize_model(_model(ADDED, causal=held, lowest=np.float32(-3e38)))
    assert finite_masks(model) == 0
