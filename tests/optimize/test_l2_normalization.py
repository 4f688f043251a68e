"""A division by a tensor's own norm becomes LpNormalization; other divisions stay."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit.optimize.l2_normalization import l2_normalization

NORM = """
<ir_version: 10, opset_import: ["" : 21]>
norm (float[2, 6] x) => (float[2, 6] y)
{{
   n = ReduceL2 (x, axes)
   c = Clip (n, tiny)
   e = Expand (c, shape)
   y = Div ({numerator}, e)
}}
"""


def _model(numerator: str, tiny: float) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(NORM.format(numerator=numerator))
    constants = {"axes": np.array([-1]), "tiny": np.float32(tiny), "shape": np.array([2, 6])}
    constants["z"] = np.ones((2, 6), np.float32)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(v, name) for name, v in constants.items())
    return proto


def test_the_rewritten_graph_gives_the_same_vectors() -> None:
    proto = _model("x", 1e-12)
    model = ir.serde.deserialize_model(proto)
    assert l2_normalization(model) == 1
    x = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    run = onnx.reference.ReferenceEvaluator
    after = ir.serde.serialize_model(model)
    assert "Div" not in {node.op_type for node in after.graph.node}
    np.testing.assert_allclose(
        run(after).run(None, {"x": x})[0], run(proto).run(None, {"x": x})[0], atol=1e-6
    )


@pytest.mark.parametrize(("numerator", "tiny"), [("z", 1e-12), ("x", 0.5)])
def test_another_dividend_or_a_bound_that_matters_is_left_alone(numerator, tiny) -> None:
    model = ir.serde.deserialize_model(_model(numerator, tiny))
    assert l2_normalization(model) == 0
