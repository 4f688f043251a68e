"""Small float graphs that the quantizer's tests share."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit import graph as g
from edgekit.model import OnnxModel

BLOCK = """
<ir_version: 10, opset_import: ["" : 20]>
block (int64[batch, sequence] ids) => (float[batch, sequence, 16] y)
{
   e = Gather (table, ids)
   n = LayerNormalization <axis = -1> (e, gamma, beta)
   qm = MatMul (n, wq)
   q = Add (qm, bq)
   km = MatMul (n, wk)
   k = Add (km, bk)
   vm = MatMul (n, wv)
   v = Add (vm, bv)
   kt = Transpose <perm = [0, 2, 1]> (k)
   s = MatMul (q, kt)
   p = Softmax <axis = -1> (s)
   c = MatMul (p, v)
   om = MatMul (c, wo)
   o = Add (om, bo)
   y = Add (o, e)
}
"""


def build(text: str, path, **constants) -> OnnxModel:
    """Parse an ONNX text, add constants as initializers, and save it."""
    proto = onnx.parser.parse_model(text)
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(v, name) for name, v in constants.items())
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))
    return OnnxModel((g.saved(model, path),), 20, 10)


@pytest.fixture
def make_graph(tmp_path):
    """Return a function that saves the float graph of an ONNX text and its constants."""
    return lambda text, **constants: build(text, tmp_path / "float.onnx", **constants)


@pytest.fixture
def block(tmp_path) -> OnnxModel:
    """One attention block with an embedding; two channels of its activations are outliers."""
    rng = np.random.default_rng(0)

    def normal(*shape, scale=0.25):
        return (rng.normal(size=shape) * scale).astype(np.float32)

    gamma = np.ones(16, np.float32)
    gamma[[2, 9]] = 40
    weights = {name: normal(16, 16) for name in ("wq", "wk", "wv", "wo")}
    for name in ("wq", "wk", "wv"):
        weights[name][[2, 9]] *= 0.03
    biases = {name: normal(16) for name in ("bq", "bk", "bv", "bo")}
    table = normal(512, 16, scale=1.0)
    return build(
        BLOCK, tmp_path / "float.onnx", gamma=gamma, beta=normal(16), table=table, **weights, **biases
    )


@pytest.fixture
def batches() -> list[dict[str, np.ndarray]]:
    """Sequences of different lengths."""
    rng = np.random.default_rng(1)
    return [{"ids": rng.integers(0, 512, (1, int(n))).astype(np.int64)} for n in rng.integers(3, 40, 48)]


HEADS = """
<ir_version: 10, opset_import: ["" : 20]>
heads (float[batch, sequence, 16] x) => (float[rows, 16] y)
{
   r = Reshape (x, rows_shape)
   qkv = Gemm (r, wqkv, bqkv)
   q, k, v = Split <axis = 1> (qkv, sizes)
   lead = Shape <start = 0, end = 2> (x)
   target = Concat <axis = 0> (lead, two_by_eight)
   q4 = Reshape (q, target)
   k4 = Reshape (k, target)
   v4 = Reshape (v, target)
   qt = Transpose <perm = [0, 2, 1, 3]> (q4)
   kt = Transpose <perm = [0, 2, 3, 1]> (k4)
   vt = Transpose <perm = [0, 2, 1, 3]> (v4)
   s = MatMul (qt, kt)
   p = Softmax <axis = -1> (s)
   c = MatMul (p, vt)
   ct = Transpose <perm = [0, 2, 1, 3]> (c)
   cr = Reshape (ct, rows_shape)
   y = Gemm (cr, wo, bo)
}
"""


@pytest.fixture
def heads(tmp_path) -> OnnxModel:
    """Attention with two heads on rows and packed projections; two of the values' channels are outliers."""
    rng = np.random.default_rng(3)
    wqkv = (rng.normal(size=(16, 48)) / 4).astype(np.float32)
    wqkv[:, [34, 41]] *= 30
    wo = (rng.normal(size=(16, 16)) / 4).astype(np.float32)
    wo[[2, 9]] *= 0.05
    return build(
        HEADS,
        tmp_path / "heads.onnx",
        rows_shape=np.array([-1, 16]),
        sizes=np.array([16, 16, 16]),
        two_by_eight=np.array([2, 8]),
        wqkv=wqkv,
        bqkv=rng.normal(size=48).astype(np.float32),
        wo=wo,
        bo=rng.normal(size=16).astype(np.float32),
    )
