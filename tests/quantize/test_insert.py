"""Q and DQ nodes where the runtime makes int8 kernels of them."""

from collections import Counter

import numpy as np
import onnx
import pytest

from edgekit import graph as g
from edgekit.profile import load_profile
from edgekit.quantize import calibrate, quantize
from edgekit.recipe import QuantizeOptions
from edgekit.runtime import open_session

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'

PROJECTED = """
net (float[batch, 8] x) => (float[batch, 16] y)
{
   h = Gemm (x, w1, b)
   f = Gemm (h, w2, b)
   y = Add (h, f)
}
"""
"""The first product's output is read by the second, which quantizes it, and by the residual Add."""

DEAD = """
net (float[batch, 3, 6, 6] x) => (float[batch, 4, 6, 6] y)
{
   y = Conv <pads = [1, 1, 1, 1]> (x, w, b)
}
"""


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def quantized(model, inputs, path, target="cpu-x86", **options):
    calibration = calibrate(model, inputs)
    return quantize(model, calibration, load_profile(target), QuantizeOptions(**options), path)


def test_a_product_that_is_quantized_and_read_again_still_becomes_an_int8_kernel(
    make_graph, tmp_path
) -> None:
    weights = {"w1": normal(8, 16), "w2": normal(16, 16, seed=1), "b": normal(16, seed=2)}
    model = make_graph(HEAD + PROJECTED, **weights)
    inputs = [{"x": normal(4, 8, seed=seed)} for seed in range(8)]
    made = quantized(model, inputs, tmp_path / "int8.onnx", smoothing=False)
    session = open_session(made.only.path, optimized_path=tmp_path / "optimized.onnx")
    ops = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert ops["QGemm"] == 2
    assert not ops["Gemm"]
    assert not ops["DequantizeLinear"]
    want = open_session(model.only.path).run(None, inputs[0])[0]
    error = session.run(None, inputs[0])[0] - want
    assert np.linalg.norm(error) < 0.03 * np.linalg.norm(want)


@pytest.mark.parametrize("target", ["cpu-x86", "arm64"])
def test_the_bias_of_a_nearly_dead_channel_survives(target, make_graph, tmp_path) -> None:
    """Its weights' steps are so small that the bias would overflow the accumulator."""
    weight = normal(4, 3, 3, 3)
    weight[1] *= 1e-12
    bias = np.array([0.5, 2.0, -1.0, 0.0], np.float32)
    model = make_graph(HEAD + DEAD, w=weight, b=bias)
    inputs = [{"x": normal(2, 3, 6, 6, seed=seed)} for seed in range(8)]
    made = quantized(model, inputs, tmp_path / "int8.onnx", target)
    got = open_session(made.only.path).run(None, inputs[0])[0]
    np.testing.assert_allclose(got[:, 1], 2.0, atol=0.1)
    codes = {v.name: g.constant(v) for v in g.load(made.only.path).graph.initializers.values()}
    assert not any(
        (array == np.iinfo(np.int32).min).any() for array in codes.values() if array.dtype == "int32"
    )


def test_the_bias_of_a_nearly_dead_column_survives_in_a_matrix_product(make_graph, tmp_path) -> None:
    weights = {"w1": normal(8, 16), "w2": normal(16, 16, seed=1), "b": np.full(16, 3, np.float32)}
    weights["w1"][:, 5] *= 1e-12
    model = make_graph(HEAD + PROJECTED, **weights)
    inputs = [{"x": normal(4, 8, seed=seed)} for seed in range(8)]
    made = quantized(model, inputs, tmp_path / "int8.onnx")
    want = open_session(model.only.path).run(None, inputs[0])[0]
    error = open_session(made.only.path).run(None, inputs[0])[0] - want
    assert np.linalg.norm(error) < 0.03 * np.linalg.norm(want)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("net (float[4, 8] x) => (float[4, 16] y) { y = Gemm (x, w, c) }", "one number per channel"),
        (
            "net (float[4, 8] x, float[4, 16] z) => (float[4, 16] y) { y = Gemm (x, w, z) }",
            "bias is not constant",
        ),
    ],
    ids=["a matrix", "an activation"],
)
def test_a_gemm_whose_bias_is_no_constant_vector_stays_float_with_the_reason(text, why, make_graph, tmp_path):
    constants = {"w": normal(8, 16), "c": normal(4, 16)}
    model = make_graph(
        HEAD + text, **{name: v for name, v in constants.items() if f" {name}" in text.split("{")[1]}
    )
    inputs = [{"x": normal(4, 8, seed=seed), "z": normal(4, 16, seed=seed)} for seed in range(8)]
    wanted = {spec.name for spec in model.only.signature.inputs}
    made = quantized(model, [{n: batch[n] for n in wanted} for batch in inputs], tmp_path / "int8.onnx")
    (skip,) = [skip for record in made.history for skip in record.skipped if skip.what == "Gemm Gemm_0"]
    assert why in skip.why


RECTIFIED = """
net (float[rows, 32] x) => (float[rows, 16] y)
{
   h = Gemm (x, w1, b1)
   r = Relu (h)
   y = Gemm (r, w2, b2)
}
"""


def rectified(make_graph, text=RECTIFIED):
    weights = {"w1": normal(32, 64) / 6, "w2": normal(64, 16, seed=1) / 8}
    model = make_graph(HEAD + text, **weights, b1=normal(64, seed=2), b2=normal(16, seed=3))
    return model, [{"x": normal(8, 32, seed=seed)} for seed in range(8)]


def ops_that_run(path, folder):
    open_session(path, optimized_path=folder / "optimized.onnx")
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


@pytest.mark.parametrize("target", ["cpu-x86", "cpu-x86-portable", "arm64", "web-wasm"])
def test_a_product_gives_the_codes_of_its_relu_straight_to_the_next(target, make_graph, tmp_path) -> None:
    model, inputs = rectified(make_graph)
    made = quantized(model, inputs, tmp_path / "int8.onnx", target)
    assert ops_that_run(made.only.path, tmp_path) == ["QuantizeLinear", "QGemm", "QGemm"]
    (record,) = [record for record in made.history if record.step == "matmul"]
    assert record.facts["eight_bit_outputs"] == 1
    session = open_session(made.only.path)
    for batch in inputs:
        want = open_session(model.only.path).run(None, batch)[0]
        assert np.linalg.norm(session.run(None, batch)[0] - want) < 0.02 * np.linalg.norm(want)


def test_a_product_without_a_bias_does_so_too(make_graph, tmp_path) -> None:
    text = RECTIFIED.replace("Gemm (x, w1, b1)", "MatMul (x, w1)")
    weights = {"w1": normal(32, 64) / 6, "w2": normal(64, 16, seed=1) / 8, "b2": normal(16, seed=3)}
    inputs = [{"x": normal(8, 32, seed=seed)} for seed in range(8)]
    made = quantized(make_graph(HEAD + text, **weights), inputs, tmp_path / "int8.onnx")
    assert ops_that_run(made.only.path, tmp_path) == ["QuantizeLinear", "QLinearMatMul", "QGemm"]


@pytest.mark.parametrize(
    "behind",
    ["y = Softmax (r)", "y = Identity (h)\n z = Exp (r)", "y = Clip (h, low, high)\n z = Exp (y)"],
    ids=["is read in float", "reads the graph's output", "is a clip that is read in float"],
)
def test_a_product_runs_in_int8_where_its_relu(behind, make_graph, tmp_path) -> None:
    outputs = "(float[rows, 64] y, float[rows, 64] z)" if "z =" in behind else "(float[rows, 64] y)"
    text = f"net (float[rows, 32] x) => {outputs} {{ h = Gemm (x, w1, b1)\n r = Relu (h)\n {behind} }}"
    bounds = {"low": np.float32(-1), "high": np.float32(2)} if "Clip" in behind else {}
    if bounds:
        text = text.replace("r = Relu (h)\n", "")
    constants = {"w1": normal(32, 64) / 6, "b1": normal(64, seed=2), **bounds}
    model = make_graph(HEAD + text, **{name: np.asarray(value) for name, value in constants.items()})
    inputs = [{"x": normal(8, 32, seed=seed)} for seed in range(8)]
    made = quantized(model, inputs, tmp_path / "int8.onnx")
    ops = ops_that_run(made.only.path, tmp_path)
    assert "QGemm" in ops
    assert not {"Gemm", "FusedGemm", "DequantizeLinear"} & set(ops)
    want = open_session(model.only.path).run(None, inputs[0])
    got = open_session(made.only.path).run(None, inputs[0])
    for expected, found in zip(want, got, strict=True):
        assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)


def test_symmetric_codes_go_on_below_a_relu_which_then_stays(make_graph, tmp_path) -> None:
    model, inputs = rectified(make_graph)
    profile = load_profile("arm64")
    rules = profile.quantization.model_copy(update={"activation_symmetric": True})
    symmetric = profile.model_copy(update={"quantization": rules})
    made = quantize(model, calibrate(model, inputs), symmetric, QuantizeOptions(), tmp_path / "int8.onnx")
    ops = ops_that_run(made.only.path, tmp_path)
    assert Counter(ops)["QGemm"] == 2
    assert "Relu" in ops
    assert not any("eight_bit_outputs" in record.facts for record in made.history)
    assert not {"FusedGemm", "DequantizeLinear"} & set(ops)
