"""Batch norms go into the convolution before them, and the graph gives the same."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit.optimize.fold_batch_norm import fold_batch_norm
from edgekit.runtime import open_session

HEAD = (
    '<ir_version: 10, opset_import: ["" : 20]>\nnet (float[batch, 3, 5, 5] x) => (float[batch, 4, 3, 3] y)\n'
)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 5, 5)).astype(np.float32)
CONSTANTS = {
    "w": RNG.normal(size=(4, 3, 3, 3)), "b": RNG.normal(size=4), "gamma": RNG.uniform(0.5, 2, 4),
    "beta": RNG.normal(size=4), "mean": RNG.normal(size=4), "var": RNG.uniform(0.1, 3, 4),
}  # fmt: skip
NORM = "y = BatchNormalization <epsilon = 0.01> (c, gamma, beta, mean, var)"


def model_of(*lines, inputs=""):
    proto = onnx.parser.parse_model(HEAD.replace(" x)", f" x{inputs})") + "{\n" + "\n".join(lines) + "\n}")
    given = {value.name for value in proto.graph.input}
    used = {name for node in proto.graph.node for name in node.input} - given
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(v.astype(np.float32), k) for k, v in CONSTANTS.items() if k in used
    )
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))


def run(model):
    return open_session(ir.serde.serialize_model(model).SerializeToString(), optimize=False).run(
        None, {"x": X}
    )[0]


@pytest.mark.parametrize("conv", ["Conv (x, w)", "Conv (x, w, b)"], ids=["without a bias", "with a bias"])
def test_folding_keeps_the_function(conv):
    before, model = run(model_of(f"c = {conv}", NORM)), model_of(f"c = {conv}", NORM)
    assert fold_batch_norm(model) == (1, [])
    assert [node.op_type for node in model.graph] == ["Conv"]
    np.testing.assert_allclose(run(model), before, rtol=1e-4, atol=1e-5)


def test_a_convolution_that_something_else_reads_keeps_its_norm():
    model = model_of("c = Conv (x, w)", NORM.replace("y =", "n ="), "y = Add (c, n)")
    folded, skipped = fold_batch_norm(model)
    assert folded == 0
    assert [skip.why for skip in skipped] == ["something else reads the convolution"]


def test_a_convolution_that_is_a_graph_output_keeps_its_norm():
    model = model_of("c = Conv (x, w)", NORM)
    model.graph.outputs.append(next(iter(model.graph)).outputs[0])
    folded, skipped = fold_batch_norm(model)
    assert folded == 0
    assert [skip.why for skip in skipped] == ["something else reads the convolution"]


def test_a_norm_behind_another_op_stays_and_says_so():
    model = model_of("c0 = Conv (x, w)", "c = Relu (c0)", NORM)
    folded, skipped = fold_batch_norm(model)
    assert folded == 0
    assert [skip.why for skip in skipped] == ["no convolution comes before it"]


def test_a_weight_that_is_no_constant_keeps_the_norm():
    model = model_of("c = Conv (x, w)", NORM, inputs=", float[4, 3, 3, 3] w")
    folded, skipped = fold_batch_norm(model)
    assert folded == 0
    assert [skip.why for skip in skipped] == ["a weight or statistic is not constant"]


def test_norms_that_pytorch_exports_are_gone_whoever_folded_them(tmp_path):
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4)).eval()
    net[1].running_mean.uniform_(-1, 1)
    net[1].running_var.uniform_(0.5, 2)
    program = torch.onnx.export(net, (torch.from_numpy(X),), dynamo=True, verbose=False)
    model = program.model
    fold_batch_norm(model)
    assert "BatchNormalization" not in [node.op_type for node in model.graph]
    expected = net(torch.from_numpy(X)).detach().numpy()
    found = open_session(ir.serde.serialize_model(model).SerializeToString())
    np.testing.assert_allclose(
        found.run(None, {found.get_inputs()[0].name: X})[0], expected, rtol=1e-4, atol=1e-5
    )
