"""Static int8 of convolutional graphs: what the plan holds in 8 bits, and what ONNX Runtime makes of it."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit import graph as g
from edgekit.model import OnnxModel
from edgekit.profile import load_profile
from edgekit.quantize import calibrate, quantize
from edgekit.quantize.plan import make_plan
from edgekit.recipe import QuantizeOptions
from edgekit.runtime import open_session

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
RESIDUAL = """
net (float[batch, 4, 8, 8] x) => (float[batch, 5] y)
{
   a0 = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
   a = Relu (a0)
   b0_ = Conv <pads = [1, 1, 1, 1], group = 8> (a, w1, b1)
   b = Clip (b0_, zero, six)
   c = Conv <pads = [1, 1, 1, 1]> (b, w2, b2)
   d0 = Add (a, c)
   d = Relu (d0)
   e = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (d)
   s = Sigmoid (e)
   m = Mul (e, s)
   p = GlobalAveragePool (m)
   f = Flatten (p)
   y = Gemm <transB = 1> (f, w3, b3)
}
"""
# The stem gives a float tensor (Tanh has no int8 kernel) that a convolution and a float path read.
BRANCHES = """
net (float[batch, 4, 8, 8] x) => (float[batch, 4, 8, 8] y)
{
   t = Tanh (x)
   c = Conv <pads = [1, 1, 1, 1]> (t, w0, b0)
   u = Tanh (c)
   y = Add (t, u)
}
"""
QDQ = {"QuantizeLinear", "DequantizeLinear"}


def constants(**shapes):
    rng = np.random.default_rng(0)
    made = {name: (rng.normal(size=shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}
    return {**made, "zero": np.float32(0), "six": np.float32(6)}


RESIDUAL_WEIGHTS = constants(
    w0=(8, 4, 3, 3), b0=8, w1=(8, 1, 3, 3), b1=8, w2=(8, 8, 3, 3), b2=8, w3=(5, 8), b3=5
)
BRANCH_WEIGHTS = constants(w0=(4, 4, 3, 3), b0=4)


def build(text, path, weights):
    proto = onnx.parser.parse_model(HEAD + text)
    for node in proto.graph.node:
        node.name = node.output[0]
    used = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items() if k in used
    )
    return OnnxModel(
        (g.saved(ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto)), path),), 20, 10
    )


def batches(channels, count=32):
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(1, channels, 8, 8)).astype(np.float32)} for _ in range(count)]


@pytest.fixture
def residual(tmp_path):
    return build(RESIDUAL, tmp_path / "float.onnx", RESIDUAL_WEIGHTS)


@pytest.fixture
def branches(tmp_path):
    return build(BRANCHES, tmp_path / "float.onnx", BRANCH_WEIGHTS)


def quantized(model, path, target="cpu-x86", **options):
    channels = model.only.signature.inputs[0].shape[1]
    calibration = calibrate(model, batches(channels))
    return quantize(model, calibration, load_profile(target), QuantizeOptions(**options), path)


def as_run(path, tmp_path, **session_options):
    """Return how many nodes of each type ONNX Runtime makes of a file, and those with an 8-bit form."""
    optimized = tmp_path / "optimized.onnx"
    open_session(path, optimized_path=optimized, session_options=session_options)
    return Counter(node.op_type for node in onnx.load(optimized).graph.node)


def sqnr_db(model, other):
    sessions = open_session(model.only.path), open_session(other.only.path)
    channels = model.only.signature.inputs[0].shape[1]
    a, b = (np.concatenate([s.run(None, x)[0] for x in batches(channels)]) for s in sessions)
    return 10 * np.log10(np.mean(a**2) / np.mean((a - b) ** 2))


def skips(model):
    every = [skip for record in model.history for skip in record.skipped]
    forms = ("cross-layer", "equalization behind", "bias correction")
    return {skip.what: skip.why for skip in every if not skip.what.startswith(forms)}


@pytest.mark.parametrize(
    ("target", "option"),
    [("cpu-x86", "0"), ("arm64", "1")],
    ids=["as x86 runs it", "as ARM runs it"],
)
def test_a_residual_network_runs_in_8_bits_from_input_to_output(residual, tmp_path, target, option):
    shipped = quantized(residual, tmp_path / "q.onnx", target)
    ops = as_run(shipped.only.path, tmp_path, **{"session.qdqisint8allowed": option})
    assert ops.pop("QuantizeLinear") == 1  # the last product gives float by itself
    assert not set(ops) & {"DequantizeLinear", "Conv", "Add", "Mul", "Relu", "Clip", "Gemm", "MaxPool"}
    assert ops["QLinearConv"] == 3
    assert {"QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearGlobalAveragePool", "QGemm"} <= set(ops)
    assert sqnr_db(residual, shipped) > 25


def test_the_runtime_gives_with_int8_kernels_what_the_graph_says(residual, tmp_path):
    shipped = quantized(residual, tmp_path / "q.onnx")
    x = batches(4, 1)[0]
    plain, fused = (open_session(shipped.only.path, optimize=o).run(None, x)[0] for o in (False, True))
    assert np.abs(plain - fused).max() < 0.05 * np.abs(plain).max()


def test_convolution_weights_have_a_scale_per_output_channel_and_int32_biases(residual, tmp_path):
    shipped = quantized(residual, tmp_path / "q.onnx")
    values = {k: v.const_value.numpy() for k, v in g.load(shipped.only.path).graph.initializers.items()}
    assert values["w0_quantized"].dtype == np.int8
    assert values["w0_scale"].shape == (8,)
    assert values["b0_quantized"].dtype == np.int32
    np.testing.assert_allclose(values["b0_scale"], values["x_scale"] * values["w0_scale"], rtol=1e-6)
    real = values["b0_quantized"] * values["b0_scale"]
    np.testing.assert_allclose(real, RESIDUAL_WEIGHTS["b0"], atol=values["b0_scale"].max())


def test_a_saturating_target_keeps_convolution_weights_in_seven_bits(residual, tmp_path):
    shipped = quantized(residual, tmp_path / "q.onnx", "cpu-x86-avx2")
    values = {k: v.const_value.numpy() for k, v in g.load(shipped.only.path).graph.initializers.items()}
    assert max(np.abs(values[f"w{i}_quantized"]).max() for i in range(4)) == 64


def test_a_float_tensor_that_a_convolution_reads_stays_float_for_others(branches, tmp_path):
    shipped = quantized(branches, tmp_path / "q.onnx")
    nodes = {node.name: node for node in g.load(shipped.only.path).graph}
    assert nodes["y"].inputs[0].name == "t"
    assert nodes["c"].inputs[0].producer().op_type == "DequantizeLinear"


def test_a_float_graph_output_that_a_convolution_reads_stays_float(tmp_path):
    text = BRANCHES.replace("8, 8] y)", "8, 8] y, float[batch, 4, 8, 8] t)")
    model = build(text, tmp_path / "float.onnx", BRANCH_WEIGHTS)
    shipped = quantized(model, tmp_path / "q.onnx")
    outputs = {value.name: value.producer().op_type for value in g.load(shipped.only.path).graph.outputs}
    assert outputs == {"y": "Add", "t": "Tanh"}


def test_an_op_that_stays_float_beside_8_bit_values_says_why(tmp_path):
    text = BRANCHES.replace("Add (t, u)", "Add (c, u)")
    shipped = quantized(build(text, tmp_path / "float.onnx", BRANCH_WEIGHTS), tmp_path / "q.onnx")
    assert skips(shipped)["Add y"] == "its input 'u' is float"


def test_an_average_pool_that_the_int8_kernel_gets_wrong_stays_float(tmp_path):
    text = RESIDUAL.replace(
        "GlobalAveragePool", "AveragePool <kernel_shape = [9, 9], strides = [9, 9], ceil_mode = 1>"
    )
    model = build(text, tmp_path / "float.onnx", RESIDUAL_WEIGHTS)
    shipped = quantized(model, tmp_path / "q.onnx")
    assert skips(shipped)["AveragePool p"] == "the int8 kernel ignores ceil_mode and dilations"
    assert sqnr_db(model, shipped) > 25


def test_an_excluded_convolution_stays_float_and_is_in_the_record(residual, tmp_path):
    shipped = quantized(residual, tmp_path / "q.onnx", exclude=("c",))
    assert skips(shipped)["Conv c"] == "excluded by the request"
    assert as_run(shipped.only.path, tmp_path)["QLinearConv"] == 2


def test_values_that_keep_their_range_share_its_scale(residual):
    plan = make_plan(
        g.load(residual.only.path),
        matmul_ops=("Gemm",),
        conv_ops=("Conv", "Add", "MaxPool"),
        embeddings=False,
    )
    shared = {value.name: source.name for value, source in plan.tensors.items()}
    assert shared == {"x": "x", "a": "a", "b": "b", "c": "c", "d": "d", "e": "d"}
    assert {value.name for value in plan.entries} == {"x"}


@pytest.mark.parametrize("target", ["cpu-x86", "arm64"])
def test_an_excluded_convolution_between_codes_computes_with_its_float_weight(residual, tmp_path, target):
    shipped = quantized(residual, tmp_path / "q.onnx", target, exclude=("b0_", "y"))
    optimized = tmp_path / "optimized.onnx"
    open_session(
        shipped.only.path, optimized_path=optimized, session_options={"session.qdqisint8allowed": "1"}
    )
    model = g.load(optimized)
    floats = [n for n in model.graph if n.op_type in ("Conv", "FusedConv", "Gemm")]
    assert {n.op_type for n in floats} & {"Conv", "FusedConv"}
    assert "Gemm" in {n.op_type for n in floats}
    for node in floats:  # the runtime may pad and reorder a weight, but neither round nor dequantize it
        own = RESIDUAL_WEIGHTS["w3" if node.op_type == "Gemm" else "w1"]
        assert np.isin(own, g.constant(node.inputs[1])).all()
    assert sqnr_db(residual, shipped) > 25


def test_symmetric_codes_do_not_leave_a_convolution_before_a_relu_in_float(residual, tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "arm64"\n[quantization]\nactivation_symmetric = true\n')
    shipped = quantized(residual, tmp_path / "q.onnx", str(tmp_path / "mine.toml"))
    values = g.load(shipped.only.path).graph.initializers.items()
    assert not any(v.const_value.numpy().any() for name, v in values if name.endswith("zero_point"))
    ops = as_run(shipped.only.path, tmp_path, **{"session.qdqisint8allowed": "1"})
    assert not set(ops) & {"DequantizeLinear", "Conv", "FusedConv", "Add", "Relu", "Clip", "LeakyRelu"}
    assert ops["QLinearConv"] == 3
    assert sqnr_db(residual, shipped) > 25


def test_a_stem_and_a_depthwise_convolution_on_float_values_stay_float_where_that_is_faster(tmp_path):
    text = """
    net (float[batch, 3, 8, 8] x) => (float[batch, 8, 8, 8] y)
    {
       a0 = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
       a = Relu (a0)
       b0_ = Conv <pads = [1, 1, 1, 1], group = 8> (a, w1, b1)
       b = Relu (b0_)
       c = Conv <pads = [1, 1, 1, 1]> (b, w2, b2)
       d = Conv <pads = [1, 1, 1, 1], group = 8> (c, w1, b1)
       y = Conv <pads = [1, 1, 1, 1]> (d, w2, b2)
    }
    """
    weights = constants(w0=(8, 3, 3, 3), b0=8, w1=(8, 1, 3, 3), b1=8, w2=(8, 8, 3, 3), b2=8)
    model = build(text, tmp_path / "float.onnx", weights)
    made = quantized(model, tmp_path / "x86.onnx")
    assert skips(made) == {
        "Conv a0": "it reads float values and adds up 27 products: the float kernel is faster",
        "Conv b0_": "it reads float values, and a depthwise convolution gains nothing there from int8",
    }
    assert as_run(made.only.path, tmp_path)["QLinearConv"] == 3
    assert not skips(quantized(model, tmp_path / "arm.onnx", "arm64"))  # measured on x86 alone
    assert sqnr_db(model, made) > 25


def test_a_depthwise_convolution_beside_a_residual_sum_goes_to_int8_with_it(residual, tmp_path):
    text = RESIDUAL.replace("a0 = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)\n   a = Relu (a0)", "a = Tanh (x)")
    text = text.replace("[batch, 4, 8, 8] x", "[batch, 8, 8, 8] x")
    shipped = quantized(build(text, tmp_path / "t.onnx", RESIDUAL_WEIGHTS), tmp_path / "q.onnx")
    assert not skips(shipped)
    assert as_run(shipped.only.path, tmp_path)["QLinearAdd"] == 1


BIASED = """
net (float[batch, 4, 8, 8] x) => (float[batch, 4, 8, 8] y)
{
   a = Relu (x)
   y = Conv <pads = [1, 1, 1, 1]> (a, w0)
}
"""


def test_a_mean_error_goes_into_a_bias_that_is_added_for_it(tmp_path):
    # One weight far above the others: those are rounded coarsely, and what a Relu gives has a mean.
    weights = constants(w0=(4, 4, 3, 3))
    weights["w0"][:, 0, 0, 0] = 60.0
    model = build(BIASED, tmp_path / "float.onnx", weights)
    calibration = calibrate(model, batches(4, 64))
    made = {}
    for correct in (False, True):
        options = QuantizeOptions(smoothing=False, bias_correction=correct)
        path = tmp_path / f"{correct}.onnx"
        made[correct] = quantize(model, calibration, load_profile("cpu-x86"), options, path)
    (record,) = (record for record in made[True].history if record.step == "conv")
    (layer,) = record.facts["layers"]
    assert layer["bias_corrected"]
    assert layer["output_error"] < layer["output_error_plain"]
    plain, corrected = record.facts["forms_tried"]
    assert corrected["output_error"] < plain["output_error"]
    assert as_run(made[True].only.path, tmp_path)["QLinearConv"] == 1
    (conv,) = g.nodes(g.load(made[True].only.path).graph, "Conv")
    assert g.constant(conv.inputs[2].producer().inputs[0]).dtype == np.int32
    assert sqnr_db(model, made[True]) > sqnr_db(model, made[False])


def test_a_form_that_does_not_help_the_outputs_is_not_kept_and_the_record_says_so(residual, tmp_path):
    shipped = quantized(residual, tmp_path / "q.onnx")
    (record,) = (record for record in shipped.history if record.step == "conv")
    plain, *tried = record.facts["forms_tried"]
    assert (plain["equalized"], plain["corrected"]) == (False, False)
    assert len(tried) == 2
    left = {skip.what for skip in record.skipped}
    kept = plain["output_error"]
    for trial, name in zip(tried, ("cross-layer equalization", "bias correction"), strict=True):
        helped = f"{name} of convolutions" not in left
        assert not helped or trial["output_error"] < kept
        kept = trial["output_error"] if helped else kept
    assert bool(record.facts["biases_corrected"]) == ("bias correction of convolutions" not in left)


def test_a_product_on_codes_stays_int8_where_its_relu_is_read_in_float(make_graph, tmp_path):
    text = """
net (float[batch, 4, 8, 8] x) => (float[batch, 16] y)
{
   c = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
   f = Flatten (c)
   h = Gemm (f, w1, b1)
   r = Relu (h)
   y = Softmax (r)
}
"""
    model = make_graph(HEAD + text, **constants(w0=(4, 4, 3, 3), b0=4, w1=(256, 16), b1=16))
    inputs = [{"x": np.random.default_rng(s).normal(size=(2, 4, 8, 8)).astype(np.float32)} for s in range(8)]
    calibration = calibrate(model, inputs)
    made = quantize(model, calibration, load_profile("arm64"), QuantizeOptions(), tmp_path / "int8.onnx")
    open_session(made.only.path, optimized_path=tmp_path / "run.onnx")
    counts = Counter(node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node)
    assert counts["QGemm"] == 1
    assert not counts["FusedGemm"] + counts["Gemm"]
