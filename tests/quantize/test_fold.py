"""Smoothing that costs nothing: into norms, and through attention into the value projection."""

import numpy as np
import pytest

from edgekit import graph as g
from edgekit.profile import load_profile
from edgekit.quantize import calibrate, quantize
from edgekit.quantize.fold import find_fold
from edgekit.quantize.plan import make_plan
from edgekit.recipe import QuantizeOptions
from edgekit.runtime import open_session


def groups(model):
    loaded = g.load(model.only.path)
    plan = make_plan(loaded, matmul_ops=("MatMul", "Gemm"), conv_ops=(), embeddings=False)
    return loaded, {group.activation.name: group for group in plan.linear}


@pytest.fixture
def inputs():
    rng = np.random.default_rng(5)
    return [{"x": rng.normal(size=(1, int(n), 16)).astype(np.float32)} for n in rng.integers(2, 30, 40)]


def test_the_values_of_attention_take_the_smoothing_exactly(heads, inputs, tmp_path):
    loaded, found = groups(heads)
    fold = find_fold(found["cr"])
    assert fold.into == "value projection"
    smoothing = np.random.default_rng(0).uniform(0.5, 2, 16).astype(np.float32)
    fold.apply(loaded.graph, smoothing)
    final = found["cr"].nodes[0]
    weight = g.constant(final.inputs[1])
    final.replace_input_with(1, g.add_constant(loaded.graph, "wo_scaled", weight * smoothing[:, None]))
    g.save(loaded, tmp_path / "folded.onnx")
    before, after = (open_session(p, optimize=False) for p in (heads.only.path, tmp_path / "folded.onnx"))
    for batch in inputs[:5]:
        np.testing.assert_allclose(
            after.run(None, batch)[0], before.run(None, batch)[0], rtol=1e-4, atol=1e-5
        )


def test_only_the_value_s_channels_of_a_packed_projection_are_divided(heads):
    loaded, found = groups(heads)
    before = g.constant(found["r"].nodes[0].inputs[1])
    find_fold(found["cr"]).apply(loaded.graph, np.full(16, 2, np.float32))
    after = g.constant(found["r"].nodes[0].inputs[1])
    np.testing.assert_array_equal(after[:, :32], before[:, :32])
    np.testing.assert_array_equal(after[:, 32:], before[:, 32:] / 2)


def test_the_quantized_graph_has_no_mul_for_it_and_is_closer(heads, inputs, tmp_path):
    calibration = calibrate(heads, inputs)
    errors = {}
    for smoothing in (True, False):
        options = QuantizeOptions(smoothing=smoothing)
        made = quantize(heads, calibration, load_profile("cpu-x86"), options, tmp_path / f"{smoothing}.onnx")
        assert "Mul" not in {node.op_type for node in g.load(made.only.path).graph}
        runs = [open_session(p) for p in (heads.only.path, made.only.path)]
        pairs = [[run.run(None, batch)[0] for run in runs] for batch in inputs]
        errors[smoothing] = np.mean([np.mean((a - b) ** 2) for a, b in pairs])
    assert errors[True] < 0.7 * errors[False]


def test_a_norm_that_something_else_reads_takes_no_smoothing(block):
    loaded, found = groups(block)
    norm = found["n"].activation
    assert find_fold(found["n"]).into == "LayerNormalization"
    loaded.graph.outputs.append(norm)
    assert find_fold(found["n"]) is None


def test_values_that_something_else_reads_take_no_smoothing(heads):
    loaded, found = groups(heads)
    values = next(v for node in loaded.graph for v in node.outputs if v.name == "vt")
    loaded.graph.outputs.append(values)
    assert find_fold(found["cr"]) is None


def test_nodes_that_share_a_bias_get_names_of_their_own(block, batches, tmp_path):
    """torch merges equal constants, e.g. biases that are all zero."""
    loaded = g.load(block.only.path)
    shared = loaded.graph.initializers["bq"]
    for node in g.nodes(loaded.graph, "Add"):
        for index, value in enumerate(node.inputs):
            if value is not None and value.name in ("bk", "bv"):
                node.replace_input_with(index, shared)
    g.save(loaded, block.only.path)
    from edgekit.optimize import optimize

    optimized = optimize(block, tmp_path / "optimized.onnx")
    calibration = calibrate(optimized, batches)
    made = quantize(optimized, calibration, load_profile("cpu-x86"), QuantizeOptions(), tmp_path / "q.onnx")
    names = [node.name for node in g.load(made.only.path).graph]
    assert len(names) == len(set(names))


SCALED = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, sequence, 16] x) => (float[batch, sequence, 16] y)
{
   t = Tanh (x)
   s = Mul (gamma, t)
   y = MatMul (s, w)
}
"""


def test_a_scale_that_only_the_products_read_takes_the_smoothing_exactly(make_graph, inputs, tmp_path):
    """The last node of an RMSNorm in primitive nodes."""
    rng = np.random.default_rng(1)
    gamma, weight = (rng.normal(size=shape).astype(np.float32) for shape in ((16,), (16, 16)))
    model = make_graph(SCALED, gamma=gamma, w=weight)
    loaded, found = groups(model)
    smoothing = rng.uniform(0.5, 2, 16).astype(np.float32)
    find_fold(found["s"]).apply(loaded.graph, smoothing)
    product = found["s"].nodes[0]
    product.replace_input_with(1, g.add_constant(loaded.graph, "scaled", weight * smoothing[:, None]))
    g.save(loaded, tmp_path / "folded.onnx")
    before, after = (open_session(p, optimize=False) for p in (model.only.path, tmp_path / "folded.onnx"))
    np.testing.assert_allclose(
        after.run(None, inputs[0])[0], before.run(None, inputs[0])[0], rtol=1e-5, atol=1e-5
    )


def test_a_product_of_two_activations_takes_no_smoothing(make_graph):
    text = SCALED.replace("Mul (gamma, t)", "Mul (x, t)")
    weight = np.eye(16, dtype=np.float32)
    _, found = groups(make_graph(text, w=weight))
    assert find_fold(found["s"]) is None


RECTIFIED = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[rows, 16] x) => (float[rows, 8] y)
{
   h = Gemm (x, w1, b1)
   a = Relu (h)
   k = Gemm (a, w2, b2)
   c = Relu (k)
   y = Gemm (c, w3, b3)
}
"""


def rectified(make_graph, **others):
    rng = np.random.default_rng(2)
    shapes = {"w1": (16, 24), "b1": (24,), "w2": (24, 16), "b2": (16,), "w3": (16, 8), "b3": (8,)}
    constants = {name: rng.normal(size=shape).astype(np.float32) / 2 for name, shape in shapes.items()}
    constants["w1"][:, [3, 17]] *= 30
    constants["w2"][[3, 17]] *= 0.05
    return make_graph(RECTIFIED, **(constants | others))


def test_the_product_before_a_relu_takes_the_smoothing_exactly(make_graph, tmp_path):
    model = rectified(make_graph)
    loaded, found = groups(model)
    fold = find_fold(found["a"])
    assert fold.into == "product before it"
    smoothing = np.random.default_rng(0).uniform(0.5, 2, 24).astype(np.float32)
    fold.apply(loaded.graph, smoothing)
    (product,) = found["a"].nodes
    scaled = g.constant(product.inputs[1]) * smoothing[:, None]
    product.replace_input_with(1, g.add_constant(loaded.graph, "scaled", scaled))
    g.save(loaded, tmp_path / "folded.onnx")
    before, after = (open_session(p, optimize=False) for p in (model.only.path, tmp_path / "folded.onnx"))
    batch = {"x": np.random.default_rng(1).normal(size=(9, 16)).astype(np.float32)}
    np.testing.assert_allclose(after.run(None, batch)[0], before.run(None, batch)[0], rtol=1e-4, atol=1e-4)


def test_products_between_two_relus_are_smoothed_on_both_sides_and_closer_for_it(make_graph, tmp_path):
    model = rectified(make_graph)
    rng = np.random.default_rng(4)
    inputs = [{"x": rng.normal(size=(8, 16)).astype(np.float32)} for _ in range(32)]
    calibration, errors = calibrate(model, inputs), {}
    for smoothing in (True, False):
        options = QuantizeOptions(smoothing=smoothing)
        made = quantize(model, calibration, load_profile("cpu-x86"), options, tmp_path / f"{smoothing}.onnx")
        assert "Mul" not in {node.op_type for node in g.load(made.only.path).graph}
        runs = [open_session(p) for p in (model.only.path, made.only.path)]
        pairs = [[run.run(None, batch)[0] for run in runs] for batch in inputs]
        errors[smoothing] = np.mean([np.mean((a - b) ** 2) for a, b in pairs])
    assert errors[True] < 0.7 * errors[False]


def test_one_bias_for_all_channels_takes_no_smoothing(make_graph):
    _, found = groups(rectified(make_graph, b1=np.ones(1, np.float32)))
    assert find_fold(found["a"]) is None
    assert find_fold(found["c"]) is not None
