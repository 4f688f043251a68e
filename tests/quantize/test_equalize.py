"""Cross-layer equalization: the float function stays, and the int8 one loses less."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit import graph as g
from edgekit.model import OnnxModel
from edgekit.profile import Quantization, load_profile
from edgekit.quantize import calibrate, quantize
from edgekit.quantize.equalize import regions, rescale
from edgekit.quantize.plan import make_plan
from edgekit.recipe import QuantizeOptions
from edgekit.runtime import open_session

# A chain with a depthwise convolution, and a residual sum whose three makers share their factors.
CHAIN = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 4, 8, 8] x) => (float[batch, 5] y)
{
   a0 = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
   a = ACTIVATION
   b0_ = Conv <pads = [1, 1, 1, 1], group = 8> (a, w1, b1)
   b = LeakyRelu <alpha = 0.1> (b0_)
   c = Conv (b, w2, b2)
   d = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
   e = Conv <group = 2> (d, w3)
   f0 = Add (d, e)
   f = Relu (f0)
   p = GlobalAveragePool (f)
   q = Flatten (p)
   y = Gemm <transB = 1> (q, w4, b4)
}
"""
RELU = "Relu (a0)"


def build(path, activation=RELU, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    convs = {"w0": (8, 4, 3, 3), "w1": (8, 1, 3, 3), "w2": (8, 8, 1, 1), "w3": (8, 4, 1, 1)}
    shapes = convs | {"w4": (5, 8), "b0": 8, "b1": 8, "b2": 8, "b4": 5}
    weights = {k: (rng.normal(size=shape) * 0.3).astype(np.float32) for k, shape in shapes.items()}
    # Channels of very different sizes, as batch norm leaves them.
    sizes = np.exp(rng.normal(size=8) * spread).astype(np.float32)
    weights["w0"] *= sizes[:, None, None, None]
    weights["b0"] *= sizes
    weights["w1"] /= sizes[:, None, None, None]
    weights |= {"zero": np.float32(0), "six": np.float32(6)}
    proto = onnx.parser.parse_model(CHAIN.replace("ACTIVATION", activation))
    for node in proto.graph.node:
        node.name = node.output[0]
    used = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items() if k in used
    )
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))
    return OnnxModel((g.saved(model, path),), 20, 10)


def planned(model):
    every = Quantization(activation_type="uint8", weight_type="int8")
    return make_plan(model, matmul_ops=every.matmul_ops, conv_ops=every.conv_ops, embeddings=False)


def run(path, seed=1, count=8):
    x = np.random.default_rng(seed).normal(size=(count, 4, 8, 8)).astype(np.float32)
    return open_session(path).run(None, {"x": x})[0]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 99),
    exponents=st.lists(st.lists(st.floats(-3, 3), min_size=8, max_size=8), min_size=3, max_size=3),
)
def test_factors_of_any_size_leave_the_float_function_as_it_was(tmp_path, seed, exponents):
    model = build(tmp_path / "float.onnx", seed=seed)
    loaded = g.load(model.only.path)
    found = regions(planned(loaded))
    assert [[node.name for node in region.makers] for region in found] == [["a0"], ["b0_"], ["c", "e"]]
    assert [[node.name for node in region.readers] for region in found] == [["b0_"], ["c"], ["e", "y"]]
    for region, powers in zip(found, exponents, strict=True):
        assert not region.obstacle
        rescale(loaded.graph, region, np.exp2(powers))
    g.save(loaded, tmp_path / "scaled.onnx")
    before, after = run(model.only.path), run(tmp_path / "scaled.onnx")
    np.testing.assert_allclose(after, before, atol=2e-5 * np.abs(before).max())


@pytest.mark.parametrize(
    ("activation", "why"),
    [
        ("Clip (a0, zero, six)", "a Clip cuts every channel at the same value"),
        ("Sigmoid (a0)", "a Sigmoid mixes sizes of channels"),
    ],
)
def test_what_factors_would_change_is_left_alone_and_says_why(tmp_path, activation, why):
    loaded = g.load(build(tmp_path / "float.onnx", activation).only.path)
    obstacles = {region.makers[0].name: region.obstacle for region in regions(planned(loaded))}
    assert obstacles["a0"].startswith(why)
    assert not obstacles["c"]


def record_of(model):
    return next(record for record in model.history if record.step == "conv")


def sqnr_db(real, found):
    return 10 * np.log10(np.mean(real**2) / np.mean((real - found) ** 2))


@pytest.mark.parametrize("target", ["cpu-x86", "arm64"])
def test_channels_of_unlike_sizes_are_equalized_and_lose_less(tmp_path, target):
    model = build(tmp_path / "float.onnx", spread=2.0)
    rng = np.random.default_rng(1)
    batches = [{"x": rng.normal(size=(1, 4, 8, 8)).astype(np.float32)} for _ in range(64)]
    calibration = calibrate(model, batches)
    made = {}
    for smoothing in (False, True):
        path = tmp_path / f"{smoothing}.onnx"
        options = QuantizeOptions(smoothing=smoothing, bias_correction=False)
        made[smoothing] = quantize(model, calibration, load_profile(target), options, path)
    facts = record_of(made[True]).facts
    assert "a" in {name for region in facts["equalized"] for name in region["tensors"]}
    assert all(r["output_error"] < 0.9 * r["output_error_plain"] for r in facts["equalized"])
    real = run(model.only.path, seed=7, count=64)
    plain, equalized = (run(made[s].only.path, seed=7, count=64) for s in (False, True))
    assert sqnr_db(real, equalized) > sqnr_db(real, plain) + 1


def test_without_smoothing_nothing_is_equalized(tmp_path):
    model = build(tmp_path / "float.onnx", spread=2.0)
    batches = [{"x": np.random.default_rng(n).normal(size=(1, 4, 8, 8)).astype(np.float32)} for n in range(9)]
    options = QuantizeOptions(smoothing=False, bias_correction=False)
    made = quantize(model, calibrate(model, batches), load_profile("cpu-x86"), options, tmp_path / "q.onnx")
    assert not record_of(made).facts["forms_tried"]
    assert not record_of(made).facts["equalized"]
