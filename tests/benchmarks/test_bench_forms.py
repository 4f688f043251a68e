"""Forms that are only measured still have to be the same function, or the measure says nothing."""

import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from benchmarks.attention_block import inputs, models
from benchmarks.forms import FORMS
from edgekit import graph as g
from edgekit.model import OnnxModel
from edgekit.optimize import REWRITES, optimize
from edgekit.runtime import open_session

ENCODER = """
<ir_version: 10, opset_import: ["" : 20]>
encoder (float[batch, sequence, 8] x, int64[batch, sequence] mask) => (float[batch, sequence, 8] hidden)
<int64[1] two = {2}, int64[1] four = {4}, int64[1] width = {8},
 float root = {0.5}, float zero = {0}, float least = {-10000.0},
 int64 first = {0}, int64 start = {0}, int64 step = {1}, int64[3] columns = {1, 2, 3}, int64[1] end = {-1},
 int64[3] before = {0, 1, 2}>
{
   known = Cast <to = 9> (mask)
   bs = Shape <start = 0, end = 1> (mask)
   b = Squeeze (bs)
   ss = Shape <start = 1, end = 2> (mask)
   s = Squeeze (ss)
   batches = Range (start, b, step)
   places = Range (start, s, step)
   batch4 = Unsqueeze (batches, columns)
   place4 = Unsqueeze (places, before)
   biggest = Max (batch4, place4)
   all = Shape (biggest)
   batch_all = Expand (batch4, all)
   place_all = Expand (place4, all)
   batch5 = Unsqueeze (batch_all, end)
   place5 = Unsqueeze (place_all, end)
   where = Concat <axis = -1> (batch5, place5)
   found = GatherND (known, where)
   exists = GreaterOrEqual (place4, first)
   both = And (exists, found)
   bias = Where (both, zero, least)
   qm = MatMul (x, wq)
   q = Add (qm, b8)
   km = MatMul (x, wk)
   k = Add (km, b8)
   vm = MatMul (x, wv)
   v = Add (vm, b8)
   split = Concat <axis = 0> (bs, ss, two, four)
   q4 = Reshape (q, split)
   k4 = Reshape (k, split)
   v4 = Reshape (v, split)
   qt = Transpose <perm = [0, 2, 1, 3]> (q4)
   kt = Transpose <perm = [0, 2, 3, 1]> (k4)
   vt = Transpose <perm = [0, 2, 1, 3]> (v4)
   scores = MatMul (qt, kt)
   scaled = Mul (scores, root)
   masked = Add (scaled, bias)
   p = Softmax <axis = -1> (masked)
   c = MatMul (p, vt)
   ct = Transpose <perm = [0, 2, 1, 3]> (c)
   join = Concat <axis = 0> (bs, ss, width)
   c3 = Reshape (ct, join)
   om = MatMul (c3, wo)
   o = Add (om, b8)
   r = Add (o, x)
   n = LayerNormalization <axis = -1> (r, gamma, b8)
   f = MatMul (n, wf)
   fb = Add (f, b8)
   hidden = Gelu (fb)
}
"""
TRIED = [name for name in FORMS if name not in REWRITES]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Return one layer of a BERT, as PyTorch exports it."""
    proto = onnx.parser.parse_model(ENCODER)
    rng = np.random.default_rng(0)
    shapes = dict.fromkeys(("wq", "wk", "wv", "wo", "wf"), (8, 8)) | {"b8": (8,), "gamma": (8,)}
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array((rng.normal(size=shape) / 3).astype(np.float32), name)
        for name, shape in shapes.items()
    )
    path = tmp_path_factory.mktemp("forms") / "float.onnx"
    return OnnxModel((g.saved(ir.serde.deserialize_model(proto), path),), 20, 10)


@pytest.mark.parametrize("name", TRIED)
def test_a_form_applies_and_keeps_the_function(encoder, name, tmp_path) -> None:
    made = optimize(encoder, tmp_path / "formed.onnx", (*REWRITES, name), rewrites=FORMS)
    assert made.history[-1].facts["rewrites"][name] == 1
    x = np.random.default_rng(1).normal(size=(2, 5, 8)).astype(np.float32)
    feed = {"x": x, "mask": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int64)}
    before, after = (open_session(model.only.path).run(None, feed)[0] for model in (encoder, made))
    allowed = 1e-3 if name == "tanh-approximation" else 1e-5
    np.testing.assert_allclose(after, before, atol=allowed)


def test_both_attentions_compute_the_same() -> None:
    every = inputs(2, 6)
    found = []
    for model in models().values():
        session = open_session(model)
        found.append(session.run(None, {v.name: every[v.name] for v in session.get_inputs()})[0])
    assert math.isfinite(found[0].sum())
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
