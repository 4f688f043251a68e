"""Static int8 within a budget: as few layers as needed stay float."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit import graph as g
from edgekit.mixed import layer_losses, output_error, quantize_within, record_tuning_golden
from edgekit.model import OnnxModel
from edgekit.profile import load_profile
from edgekit.quantize import calibrate
from edgekit.recipe import QuantizeOptions

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 24] x) => (float[batch, 24] output)
{
   a = Gemm (x, w0, b)
   ar = Tanh (a)
   c = Gemm (ar, w1, b)
   cr = Tanh (c)
   d = Gemm (cr, w2, b)
   dr = Tanh (d)
   scaled = Mul (dr, outliers)
   output = Gemm (scaled, w3, b)
}
"""
OPTIONS = QuantizeOptions(smoothing=False, range_method="minmax")


@pytest.fixture
def model(tmp_path):
    """Four layers; the last one's activation has one channel 300 times the others, and a weight to match."""
    rng = np.random.default_rng(0)
    weights = {f"w{i}": (rng.normal(size=(24, 24)) / 5).astype(np.float32) for i in range(4)}
    weights["w3"][5] /= 300
    weights["outliers"] = np.where(np.arange(24) == 5, 300, 1).astype(np.float32)
    weights["b"] = np.zeros(24, np.float32)
    proto = onnx.parser.parse_model(TEXT)
    for index, node in enumerate(proto.graph.node):
        node.name = f"layer[{index}]"
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in weights.items())
    return OnnxModel((g.saved(ir.serde.deserialize_model(proto), tmp_path / "float.onnx"),), 20, 10)


@pytest.fixture
def batches():
    rng = np.random.default_rng(1)
    return [({"x": rng.normal(size=(8, 24)).astype(np.float32)}, None) for _ in range(8)]


@pytest.fixture
def calibration(model, batches):
    return calibrate(model, [inputs for inputs, _ in batches])


@pytest.fixture
def tuning(model, batches):
    return record_tuning_golden(model, "generic", batches)


def within(model, calibration, tuning, path, **gates):
    profile = load_profile("cpu-x86")
    full, mixed = quantize_within(model, calibration, profile, OPTIONS, path, tuning=tuning, gates=gates)
    assert float_layers(full) == []
    return mixed or full


def float_layers(made):
    return [
        n.name for n in g.nodes(g.load(made.only.path).graph, "Gemm") if g.constant(n.inputs[1]) is not None
    ]


def test_a_budget_that_holds_leaves_every_layer_quantized(model, calibration, tuning, tmp_path):
    made = within(model, calibration, tuning, tmp_path / "q.onnx", sqnr_db=-100.0)
    assert float_layers(made) == []
    assert "mixed" not in {record.step for record in made.history}


def test_the_layer_that_loses_most_is_found(model, calibration, tuning, tmp_path):
    losses = layer_losses(model, calibration, load_profile("cpu-x86"), OPTIONS, tmp_path / "t.onnx", tuning)
    assert len(losses) == 4
    assert max(losses, key=lambda loss: loss.gain).nodes == ("layer[7]",)
    assert {loss.multiply_adds for loss in losses} == {24 * 24}
    assert not (tmp_path / "t.onnx").exists()


def test_as_few_layers_as_needed_go_back_to_float(model, calibration, tuning, tmp_path):
    everything = within(model, calibration, tuning, tmp_path / "all.onnx", sqnr_db=-100.0)
    full = -10 * np.log10(output_error(everything.only.path, tuning))
    made = within(model, calibration, tuning, tmp_path / "q.onnx", sqnr_db=full + 3)
    assert float_layers(made) == ["layer[7]"]
    assert -10 * np.log10(output_error(made.only.path, tuning)) > full
    record = made.history[-1]
    assert record.facts["reverted"] == ["layer[7]"]
    assert len(record.facts["losses"]) == 4


def test_a_budget_out_of_reach_keeps_all_layers_and_says_so(model, calibration, tuning, tmp_path):
    made = within(model, calibration, tuning, tmp_path / "q.onnx", sqnr_db=200.0)
    assert float_layers(made) == []
    assert "no count" in made.history[-1].did


def test_layers_with_equal_weights_cost_what_their_positions_cost(tmp_path):
    """A convolution on a large image does more multiply-adds than the same one behind a pool."""
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[batch, 4, 16, 16] x) => (float[batch, 4, 4, 4] output)
    {
       a = Conv <pads = [1, 1, 1, 1]> (x, w0, b)
       pooled = MaxPool <kernel_shape = [4, 4], strides = [4, 4]> (a)
       output = Conv <pads = [1, 1, 1, 1]> (pooled, w1, b)
    }
    """
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(text)
    for index, node in enumerate(proto.graph.node):
        node.name = f"layer{index}"
    weights = {f"w{i}": (rng.normal(size=(4, 4, 3, 3)) / 6).astype(np.float32) for i in range(2)}
    weights["b"] = np.zeros(4, np.float32)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in weights.items())
    net = OnnxModel((g.saved(ir.serde.deserialize_model(proto), tmp_path / "net.onnx"),), 20, 10)
    images = [{"x": rng.normal(size=(1, 4, 16, 16)).astype(np.float32)} for _ in range(4)]
    recorded = record_tuning_golden(net, "generic", [(image, None) for image in images])
    profile = load_profile("arm64")
    losses = layer_losses(net, calibrate(net, images), profile, OPTIONS, tmp_path / "t.onnx", recorded)
    assert {loss.nodes[0]: loss.multiply_adds for loss in losses} == {
        "layer0": 16 * 16 * 4 * 4 * 9,
        "layer2": 4 * 4 * 4 * 4 * 9,
    }
