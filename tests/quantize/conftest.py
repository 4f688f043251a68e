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
