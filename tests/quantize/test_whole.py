"""Whole graphs in Q/DQ: nothing left in float, weights per channel, close to the float graph."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from edgekit import graph as g
from edgekit.errors import RecipeError
from edgekit.profile import load_profile
from edgekit.quantize import calibrate, quantize
from edgekit.quantize.whole import left_in_float
from edgekit.recipe import QuantizeOptions
from edgekit.runtime import open_session

PROFILE = load_profile("android-qnn")

ENCODER = """
<ir_version: 10, opset_import: ["" : 21]>
block (int64[1, 8] ids) => (float[1, 8, 16] y)
{
   e = Gather (table, ids)
   n = LayerNormalization <axis = -1> (e, gamma, beta)
   qm = MatMul (n, wq)
   q = Add (qm, bq)
   kt = Transpose <perm = [0, 2, 1]> (q)
   s = MatMul (q, kt)
   p = Softmax <axis = -1> (s)
   c = MatMul (p, n)
   y = Add (c, e)
}
"""

CNN = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[1, 3, 8, 8] x) => (float[1, 5] y)
{
   c = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
   r = Relu (c)
   m = GlobalAveragePool (r)
   f = Flatten (m)
   y = Gemm <transB = 1> (f, w2, b2)
}
"""


def _normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


@pytest.fixture(params=["encoder", "cnn"])
def made(request, make_graph, tmp_path):
    """The float graph, its whole-graph form, and some of the inputs that it was calibrated on."""
    rng = np.random.default_rng(0)
    if request.param == "encoder":
        weights = {"table": _normal(rng, 30, 16), "gamma": np.ones(16, np.float32), "bq": _normal(rng, 16)}
        weights |= {"beta": _normal(rng, 16), "wq": 0.02 * _normal(rng, 16, 16) * (1 + np.arange(16))}
        weights["wq"] = weights["wq"].astype(np.float32)
        model = make_graph(ENCODER, **weights)
        data = [{"ids": rng.integers(0, 30, (1, 8))} for _ in range(40)]
    else:
        weights = {"w1": _normal(rng, 6, 3, 3, 3), "b1": _normal(rng, 6)}
        model = make_graph(CNN, **weights, w2=_normal(rng, 5, 6), b2=_normal(rng, 5))
        data = [{"x": _normal(rng, 1, 3, 8, 8)} for _ in range(40)]
    model = replace(model, opset=21)
    calibration = calibrate(model, data, every_tensor=True)
    whole = quantize(model, calibration, PROFILE, QuantizeOptions(), tmp_path / "whole.onnx")
    return model, whole, data[32:]


def test_no_node_is_left_in_float(made) -> None:
    _, whole, _ = made
    loaded = g.load(whole.only.path)
    assert left_in_float(loaded) == ()
    assert whole.history[-2].facts["left_in_float"] == []
    assert {node.domain for node in loaded.graph} == {""}


def test_a_node_that_is_left_in_float_is_found(made) -> None:
    model, whole, _ = made
    float_graph = g.load(model.only.path)
    assert len(left_in_float(float_graph)) == len(float_graph.graph), "all of them"
    loaded = g.load(whole.only.path)
    node = next(node for node in loaded.graph if node.op_type in ("Softmax", "GlobalAveragePool"))
    dequantize = node.inputs[0].producer()
    node.replace_input_with(0, dequantize.inputs[0].producer().inputs[0])
    assert node.name in left_in_float(loaded)


def test_activations_have_16_bits_and_weights_8_with_a_scale_per_channel(made) -> None:
    _, whole, _ = made
    loaded = g.load(whole.only.path)
    for node in g.nodes(loaded.graph, "QuantizeLinear"):
        assert g.constant(node.inputs[2]).dtype == np.uint16
    weights = [n.inputs[1].producer() for n in g.nodes(loaded.graph, "MatMul", "Gemm", "Conv")]
    held = [n for n in weights if g.constant(n.inputs[0]) is not None]
    assert held
    for node in held:
        assert node.inputs[0].dtype == ir.DataType.INT8
        assert g.constant(node.inputs[1]).ndim == 1
        assert not g.constant(node.inputs[2]).any(), "symmetric"


def test_outputs_stay_close_to_those_of_the_float_graph(made) -> None:
    model, whole, data = made
    before, after = open_session(model.only.path), open_session(whole.only.path)
    for batch in data:
        expected, found = before.run(None, batch)[0], after.run(None, batch)[0]
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert 0 < error < 0.02


def test_excluded_nodes_are_refused(block, tmp_path) -> None:
    ids = [{"ids": np.arange(8).reshape(1, 8)}]
    calibration = calibrate(block, ids, every_tensor=True)
    options = QuantizeOptions(exclude=("MatMul_2",))
    with pytest.raises(RecipeError, match="runs the whole graph in integers"):
        quantize(block, calibration, PROFILE, options, tmp_path / "q.onnx")
