"""A quantized graph that stores nothing twice."""

from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit import graph as g
from edgekit.profile import load_profile
from edgekit.quantize import calibrate, quantize
from edgekit.quantize.compact import compact as compacted
from edgekit.quantize.schemes import short_scale
from edgekit.recipe import QuantizeOptions
from edgekit.runtime import open_session

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'

LAYER = """
net (int64[batch] ids) => (float[batch, 256] y)
{
   x = Gather (table, ids)
   h = Gemm (x, w1, b1)
   a = Gelu (h)
   y = Gemm (a, w2, b2)
}
"""


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def layer(make_graph):
    weights = {"table": normal(300, 192), "w1": normal(192, 256), "w2": normal(256, 256, seed=1)}
    return make_graph(HEAD + LAYER, **weights, b1=normal(256, seed=2), b2=normal(256, seed=3))


@pytest.fixture
def both(layer, tmp_path, monkeypatch):
    """The quantized graph with and without the pass."""
    batches = [{"ids": np.arange(start, start + 8)} for start in range(0, 200, 8)]
    calibration = calibrate(layer, batches)
    profile, options = load_profile("cpu-x86"), QuantizeOptions()
    small = quantize(layer, calibration, profile, options, tmp_path / "small.onnx")
    monkeypatch.setattr("edgekit.quantize.static.compact", lambda graph: 0)
    return small, quantize(layer, calibration, profile, options, tmp_path / "plain.onnx")


def kernels(model, folder):
    open_session(model.only.path, optimized_path=folder / "run.onnx")
    return Counter(node.op_type for node in onnx.load(folder / "run.onnx").graph.node)


def test_every_bit_of_the_outputs_stays(both):
    ids = {"ids": np.arange(250)}
    for optimize in (True, False):
        small, plain = (open_session(m.only.path, optimize=optimize).run(None, ids)[0] for m in both)
        np.testing.assert_array_equal(small, plain)


def test_the_runtime_makes_the_same_kernels(both, tmp_path):
    small, plain = both
    assert kernels(small, tmp_path) == kernels(plain, tmp_path)
    assert kernels(small, tmp_path)["QGemm"] == 2


def test_scales_take_two_bytes_and_those_of_biases_none(both):
    small, plain = both
    # Of the table's 300 rows and of 2 x 256 columns half of four bytes; of as many biases all four. What the
    # nodes that make them take is less.
    assert plain.file_bytes - small.file_bytes > 2 * (300 + 512)
    constants = g.load(small.only.path).graph.initializers
    assert not [name for name in constants if name.startswith("b") and name.endswith("_scale")]
    assert {constants[f"{name}_scale_half"].const_value.numpy().dtype for name in ("table", "w1", "w2")} == {
        np.dtype(np.float16)
    }


def test_a_second_pass_finds_nothing(both):
    model = g.load(both[0].only.path)
    assert compacted(model.graph) == 0


def test_what_float16_cannot_hold_stays_as_it_is(both):
    model = g.load(both[1].only.path)
    scale = model.graph.initializers["w1_scale"]
    scale.const_value = g.ir.tensor(np.full(256, np.float32(1.0009), np.float32), name="w1_scale")
    compacted(model.graph)
    assert "w1_scale_half" not in model.graph.initializers
    assert "w2_scale_half" in model.graph.initializers


@given(hnp.arrays(np.float32, st.integers(1, 8), elements=st.floats(2.0**-126, 2.0**100, width=32)))
def test_short_scales_are_next_above_and_float16_holds_them(scale):
    short = short_scale(scale)
    inside = (scale >= 2.0**-14) & (scale <= 65504)
    with np.errstate(over="ignore"):
        half = short.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(half[inside], short[inside])
    assert (short >= scale).all()
    assert (short <= scale * (1 + 2.0**-10)).all()
    np.testing.assert_array_equal(short_scale(short), short)
