"""Projections on rows: the same function, in Gemms."""

from collections import Counter
from typing import get_args

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit import graph as g
from edgekit.model import OnnxModel
from edgekit.optimize import EVERY_REWRITE, REWRITES, optimize
from edgekit.optimize.flatten_tokens import flatten_tokens
from edgekit.optimize.pack_projections import pack_projections
from edgekit.optimize.probe_shapes import probe_shapes
from edgekit.profile import Rewrite, SpeedRewrite
from edgekit.runtime import open_session

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'

ENCODER = """
encoder (float[batch, sequence, 8] x) => (float[batch, sequence, 8] hidden, float[batch, 8] pooled)
{
   qm = MatMul (x, wq)
   q = Add (qm, b8)
   km = MatMul (x, wk)
   k = Add (b8, km)
   heads = Constant <value_ints = [2, 4]> ()
   lead = Shape <start = 0, end = 2> (x)
   split = Concat <axis = 0> (lead, heads)
   q4 = Reshape (q, split)
   k4 = Reshape (k, split)
   qt = Transpose <perm = [0, 2, 1, 3]> (q4)
   kt = Transpose <perm = [0, 2, 3, 1]> (k4)
   s = MatMul (qt, kt)
   p = Softmax <axis = -1> (s)
   c = MatMul (p, qt)
   ct = Transpose <perm = [0, 2, 1, 3]> (c)
   width = Constant <value_ints = [8]> ()
   join = Concat <axis = 0> (lead, width)
   c3 = Reshape (ct, join)
   om = MatMul (c3, wo)
   o = Add (om, b8)
   r = Add (o, x)
   n = LayerNormalization <axis = -1> (r, gamma, b8)
   fm = MatMul (n, w1)
   f = Add (fm, b16)
   a = Gelu (f)
   dm = MatMul (a, w2)
   d = Add (dm, b8)
   hidden = Add (d, n)
   axes = Constant <value_ints = [1]> ()
   pooled = ReduceMean <keepdims = 0> (hidden, axes)
}
"""

BROADCAST = """
net (float[batch, sequence, 8] x, float[one, sequence, 8] positions) => (float[batch, sequence, 8] y)
{
   m = MatMul (x, wq)
   h = Add (m, b8)
   y = Add (h, positions)
}
"""


def saved(text, path):
    proto = onnx.parser.parse_model(HEAD + text)
    rng = np.random.default_rng(0)
    shapes = {"wq": (8, 8), "wk": (8, 8), "wo": (8, 8), "w1": (8, 16), "w2": (16, 8)}
    shapes |= {"b8": (8,), "b16": (16,), "gamma": (8,)}
    used = {name for node in proto.graph.node for name in node.input}
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array((rng.normal(size=shape) / 3).astype(np.float32), name)
        for name, shape in shapes.items()
        if name in used
    )
    return OnnxModel((g.saved(ir.serde.deserialize_model(proto), path),), 20, 10)


@pytest.fixture
def encoder(tmp_path):
    return saved(ENCODER, tmp_path / "float.onnx")


def outputs(path, **inputs):
    return open_session(path, optimize=False).run(None, inputs)


def rewritten(model, path):
    loaded = g.load(model.only.path)
    count = flatten_tokens(loaded, probe_shapes(model.only.path, model.only.signature))
    g.save(loaded, path)
    return count, loaded


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 5), (4, 1)], ids=lambda s: "x".join(map(str, s)))
def test_the_rewritten_graph_gives_the_same_outputs_at_any_shape(encoder, tmp_path, shape):
    optimized = optimize(encoder, tmp_path / "optimized.onnx")
    x = np.random.default_rng(1).normal(size=(*shape, 8)).astype(np.float32)
    for before, after in zip(outputs(encoder.only.path, x=x), outputs(optimized.only.path, x=x), strict=True):
        np.testing.assert_allclose(after, before, atol=2e-6)


def test_every_biased_product_becomes_a_gemm_on_rows(encoder, tmp_path):
    count, model = rewritten(encoder, tmp_path / "rows.onnx")
    counts = Counter(node.op_type for node in model.graph)
    assert count == counts["Gemm"] == 5
    assert counts["MatMul"] == 2  # the two of attention, which have no constant


def test_names_and_shapes_of_the_graph_s_outputs_stay(encoder, tmp_path):
    rewritten(encoder, tmp_path / "rows.onnx")
    assert g.signature(g.load(tmp_path / "rows.onnx")) == encoder.only.signature


def test_heads_are_split_off_the_rows_without_a_reshape_in_between(encoder, tmp_path):
    _, model = rewritten(encoder, tmp_path / "rows.onnx")
    sources = [
        n.inputs[0].producer().op_type for n in g.nodes(model.graph, "Reshape") if n.name == "Reshape_7"
    ]
    assert sources == ["Gemm"]


def test_an_add_that_broadcasts_over_the_batch_is_left_alone(tmp_path):
    model = saved(BROADCAST, tmp_path / "float.onnx")
    optimized = optimize(model, tmp_path / "optimized.onnx")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 8)).astype(np.float32)
    positions = rng.normal(size=(1, 4, 8)).astype(np.float32)
    before, after = (outputs(m.only.path, x=x, positions=positions)[0] for m in (model, optimized))
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_projections_of_one_activation_are_packed(encoder, tmp_path):
    _, model = rewritten(encoder, tmp_path / "rows.onnx")
    assert pack_projections(model) == 1
    packed = next(n for n in g.nodes(model.graph, "Gemm") if "+" in (n.name or ""))
    assert g.constant(packed.inputs[1]).shape == (8, 16)


def test_the_record_says_what_was_done(encoder, tmp_path):
    facts = optimize(encoder, tmp_path / "optimized.onnx").history[-1].facts
    assert facts["rewrites"]["rows"] == 5
    assert facts["rewrites"]["packed-projections"] == 1


def test_shapes_are_those_of_two_runs_with_different_sizes(encoder):
    shapes = probe_shapes(encoder.only.path, encoder.only.signature)
    assert shapes["hidden"] == ((2, 4, 8), (3, 5, 8))
    assert shapes["s"] == ((2, 2, 4, 4), (3, 2, 5, 5))


EMBEDDINGS = """
net (float[batch, sequence, 8] words, float[batch, sequence, 8] places) => (float[batch, sequence, 8] y)
{
   sum = Add (words, places)
   n = LayerNormalization <axis = -1> (sum, gamma, b8)
   m = MatMul (n, wq)
   y = Add (m, b8)
}
"""


def test_the_norm_of_a_sum_goes_to_rows_so_that_the_runtime_does_not_fuse_the_two(tmp_path) -> None:
    model = saved(EMBEDDINGS, tmp_path / "float.onnx")
    rows = optimize(model, tmp_path / "rows.onnx").only.path
    fused = {}
    for path in (model.only.path, rows):
        open_session(path, optimized_path=tmp_path / "optimized.onnx")
        fused[path] = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert fused[model.only.path]["SkipLayerNormalization"] == 1
    assert fused[rows]["SkipLayerNormalization"] == 0
    words, places = np.random.default_rng(0).normal(size=(2, 2, 3, 8)).astype(np.float32)
    before, after = (outputs(path, words=words, places=places) for path in (model.only.path, rows))
    np.testing.assert_allclose(after[0], before[0], atol=1e-5)


def test_projections_without_biases_are_packed_too(tmp_path) -> None:
    text = ENCODER.replace("q = Add (qm, b8)", "q = Identity (qm)").replace(
        "k = Add (b8, km)", "k = Relu (km)"
    )
    model = saved(text, tmp_path / "float.onnx")
    made = optimize(model, tmp_path / "optimized.onnx")
    assert made.history[-1].facts["rewrites"]["packed-projections"] == 1
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    before, after = (outputs(path, x=x) for path in (model.only.path, made.only.path))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_only_the_chosen_rewrites_are_done(encoder, tmp_path) -> None:
    made = optimize(encoder, tmp_path / "optimized.onnx", ("tanh-gelu",))
    assert made.history[-1].facts["rewrites"] == {"tanh-gelu": 0}
    assert not [node for node in g.load(made.only.path).graph if node.op_type == "Gemm"]


def test_a_profile_can_name_every_rewrite_and_no_other() -> None:
    assert get_args(Rewrite) == tuple(EVERY_REWRITE)
    assert get_args(SpeedRewrite) == tuple(REWRITES)
