"""Rewrites are judged by what they gain, in the quantized form."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit import graph as g
from edgekit.golden import Golden, GoldenBatch
from edgekit.model import OnnxModel
from edgekit.profile import load_profile
from edgekit.tuning import PAYS, Ratio, measure_rewrites, thread_times

NET = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, sequence, 16] x) => (float[batch, sequence, 16] y)
{
   m = MatMul (x, w)
   h = Relu (m)
   y = MatMul (h, v)
}
"""


def slower(model, shapes):
    """Compute sines of sines and add nothing of them to the input of the last product."""
    last = next(node for node in model.graph if node.outputs[0].is_graph_output())
    value = last.inputs[0]
    for index in range(12):
        spelled = ir.node("Sin", [value], name=f"waste_{index}")
        spelled.outputs[0].name = f"waste_{index}_output"
        model.graph.insert_before(last, spelled)
        value = spelled.outputs[0]
    zero = g.add_constant(model.graph, "nothing", np.zeros(1, np.float32))
    none = ir.node("Mul", [value, zero], name="waste_none")
    total = ir.node("Add", [last.inputs[0], none.outputs[0]], name="waste_total")
    none.outputs[0].name, total.outputs[0].name = "waste_none_output", "waste_total_output"
    model.graph.insert_before(last, [none, total])
    last.replace_input_with(0, total.outputs[0])
    return 1


def nothing(model, shapes):
    return 0


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Return what a rewrite of the plan that wastes time gains, and one that never applies."""
    folder = tmp_path_factory.mktemp("tuning")
    proto = onnx.parser.parse_model(NET)
    rng = np.random.default_rng(0)
    for name in ("w", "v"):
        array = rng.normal(size=(16, 16)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    model = OnnxModel((g.saved(ir.serde.deserialize_model(proto), folder / "float.onnx"),), 20, 10)
    batches = [{"x": rng.normal(size=(1, 8, 16)).astype(np.float32)} for _ in range(4)]
    golden = Golden("generic", tuple(GoldenBatch(batch, {"y": batch["x"]}, None) for batch in batches))
    profile = load_profile("cpu-x86")
    points = profile.runtime.model_copy(update={"points": ((64, 128),)})
    wastes = profile.optimize.model_copy(update={"rewrites": ("rows",)})
    gains = measure_rewrites(
        model,
        batches,
        golden,
        profile.model_copy(update={"runtime": points, "optimize": wastes}),
        folder,
        rewrites={"rows": slower, "tanh-gelu": nothing},
        runs=15,
        max_length=128,
    )
    return {gain.rewrite: gain for gain in gains}


def test_a_rewrite_that_costs_time_does_not_pay(measured) -> None:
    gain = measured["rows"]
    assert gain.sites == 1
    assert list(gain.shapes) == ["64x128"]
    assert gain.overall.high < 1
    assert gain.pays is False


def test_a_rewrite_that_does_not_apply_is_not_judged(measured) -> None:
    gain = measured["tanh-gelu"]
    assert (gain.sites, gain.shapes, gain.overall, gain.pays) == (0, {}, None, None)


def test_a_gain_is_json(measured) -> None:
    found = measured["rows"].to_json()
    assert found["overall"]["low"] <= found["overall"]["gain"] <= found["overall"]["high"]


def test_equal_times_gain_nothing_and_half_the_time_gains_two() -> None:
    times = np.linspace(1, 2, 20)
    assert Ratio.of(times, times) == Ratio(1, 1, 1)
    assert Ratio.of(times, times / 2).low == pytest.approx(2)
    assert PAYS > 1


def test_every_graph_runs_as_often(tmp_path) -> None:
    proto = onnx.parser.parse_model(
        NET.replace("MatMul (x, w)", "Abs (x)").replace("MatMul (h, v)", "Abs (h)")
    )
    onnx.save(proto, tmp_path / "net.onnx")
    x = np.zeros((1, 4, 16), np.float32)
    golden = Golden("generic", (GoldenBatch({"x": x}, {"y": x}, None),))
    files = {"a": tmp_path / "net.onnx", "b": tmp_path / "net.onnx"}
    found = thread_times(files, golden, ((1, 8),), {}, runs=7, max_length=8)
    assert {name: len(times) for name, times in found["1x8"].items()} == {"a": 7, "b": 7}
