"""Means over an image become pools, and give the same."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit.optimize.mean_to_pool import mean_to_pool
from edgekit.runtime import open_session

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\nnet (float[batch, 3, 4, 6] x) => (float[{shape}] y)\n'
X = np.random.default_rng(0).normal(size=(2, 3, 4, 6)).astype(np.float32)


def model_of(body, shape):
    proto = onnx.parser.parse_model(
        HEAD.format(shape=shape) + "{\n axes = Constant <value = int64[2] {-1, 2}> ()\n" + body + "\n}"
    )
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))


def run(model):
    return open_session(ir.serde.serialize_model(model).SerializeToString()).run(None, {"x": X})[0]


@pytest.mark.parametrize(
    ("body", "shape", "ops"),
    [
        ("y = ReduceMean (x, axes)", "batch, 3, 1, 1", ["GlobalAveragePool"]),
        ("y = ReduceMean <keepdims = 0> (x, axes)", "batch, 3", ["GlobalAveragePool", "Flatten"]),
        ("y = AveragePool <kernel_shape = [4, 6]> (x)", "batch, 3, 1, 1", ["GlobalAveragePool"]),
        (
            "y = AveragePool <kernel_shape = [64, 64], strides = [64, 64], ceil_mode = 1> (x)",
            "batch, 3, 1, 1",
            ["GlobalAveragePool"],
        ),
    ],
    ids=["mean", "mean that drops the axes", "window as large as the image", "larger window"],
)
def test_a_mean_over_the_whole_image_becomes_a_pool(body, shape, ops):
    before, model = run(model_of(body, shape)), model_of(body, shape)
    assert mean_to_pool(model) == 1
    assert [node.op_type for node in model.graph if node.op_type != "Constant"] == ops
    after = run(model)
    assert after.shape == before.shape
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    assert model.graph.outputs[0].name == "y"


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("a = Constant <value = int64[1] {1}> ()\n y = ReduceMean (x, a)", "batch, 1, 4, 6"),
        ("y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)", "batch, 3, 2, 3"),
        (
            "y = AveragePool <kernel_shape = [4, 6], pads = [1, 1, 1, 1], strides = [4, 6]> (x)",
            "batch, 3, 1, 1",
        ),
    ],
    ids=["mean over the channels", "small window", "padded window"],
)
def test_other_means_stay(body, shape):
    assert mean_to_pool(model_of(body, shape)) == 0
