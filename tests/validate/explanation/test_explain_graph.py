"""What runs, what it costs and why: on graphs where the answer is known."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from edgekit.errors import ModelError
from edgekit.golden import Golden, GoldenBatch
from edgekit.machine import read_machine
from edgekit.profile import load_profile
from edgekit.record import Skip
from edgekit.validate.explanation import explain
from edgekit.validate.explanation.kernels import ACTIVATIONS_ONLY, FLOAT_GRAPH, UNASKED, explained
from edgekit.validate.explanation.trace import Kernel
from edgekit.validate.explanation.wiring import Wiring

HOLD_X = "xq = QuantizeLinear (x, s, z) xd = DequantizeLinear (xq, s, z)"
WEIGHT = "wd = DequantizeLinear <axis = 1> (w, ws, wz)"
GEMM = f"{HOLD_X} {WEIGHT} bd = DequantizeLinear <axis = 0> (b, bs, bz) y = Gemm (xd, wd, bd)"
MATMUL = f"{HOLD_X} {WEIGHT} y = MatMul (xd, wd)"
CONVS = """
xq = QuantizeLinear (x, s, z) xd = DequantizeLinear (xq, s, z)
k1 = DequantizeLinear (c1, cs, cz) o1 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (xd, k1)
q1 = QuantizeLinear (o1, s, z) d1 = DequantizeLinear (q1, s, z)
k2 = DequantizeLinear (c2, cs, cz) o2 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (d1, k2)
q2 = QuantizeLinear (o2, s, z) y = DequantizeLinear (q2, s, z)
"""
CONV_CONSTANTS = {
    "c1": np.random.default_rng(1).integers(-90, 90, (8, 3, 3, 3)).astype(np.int8),
    "c2": np.random.default_rng(2).integers(-90, 90, (8, 8, 3, 3)).astype(np.int8),
    "cs": np.array(0.01, np.float32),
    "cz": np.array(0, np.int8),
}


def only(explanation):
    (point,) = explanation.points
    return point


def by_role(point, role):
    return [node for node in point.nodes if node.role == role]


@pytest.mark.parametrize(("graph", "op"), [(GEMM, "QGemm"), (MATMUL, "MatMulIntegerToFloat")])
def test_a_fused_product_is_int8_and_so_are_all_multiply_adds(explain_graph, graph, op):
    point = only(explain_graph(graph))
    (product,) = by_role(point, "int8 product")
    assert product.op == op
    assert product.shape == "2x32 · 32x48"
    assert (point.macs, point.int8_share, point.int8_weight_share) == (2 * 32 * 48, 1.0, 1.0)


def test_a_quantize_that_an_int8_kernel_reads_is_needed(explain_graph):
    (group,) = only(explain_graph(GEMM)).conversions()
    assert (group.op, group.needed, group.why) == ("QuantizeLinear", True, "makes codes for QGemm")


def test_a_pair_that_only_rounds_is_left_over(explain_graph):
    groups = only(explain_graph(f"{HOLD_X} y = Erf (xd)")).conversions()
    assert {group.op: group.needed for group in groups} == {
        "QuantizeLinear": False,
        "DequantizeLinear": False,
    }
    assert all("left over" in group.why and "Erf" in group.why for group in groups)


def test_a_step_from_codes_to_float_is_needed(explain_graph):
    point = only(explain_graph(CONVS, x=(2, 3, 8, 8), constants=CONV_CONSTANTS))
    found = {group.op: (group.needed, group.why) for group in point.conversions()}
    assert found["DequantizeLinear"] == (True, "leads from 8-bit QLinearConv to float output")
    assert found["QuantizeLinear"] == (True, "makes codes for QLinearConv")


def test_convolutions_are_counted_and_predicted_with_what_surrounds_them(explain_graph, here):
    point = only(explain_graph(CONVS, x=(2, 3, 8, 8), constants=CONV_CONSTANTS, profile=here))
    assert point.macs == 2 * 8 * 8 * (8 * 3 * 9 + 8 * 8 * 9)
    assert point.int8_share == 1.0
    assert len(point.predictions) == 2
    assert all(prediction.float_ms > 0 for prediction in point.predictions)


def test_a_float_bias_is_named_as_what_keeps_a_gemm_float(explain_graph):
    point = only(explain_graph(f"{HOLD_X} {WEIGHT} y = Gemm (xd, wd, float_bias)"))
    (product,) = by_role(point, "float product")
    assert "its bias is float, and the int8 kernel adds an int32 bias" in product.why
    weight = next(n for n in point.nodes if n.role == "dequantize" and n.shape == "32x48")
    assert weight.needed is False
    assert "a stored weight is made float on every run" in weight.why
    assert point.int8_share == 0.0


def test_a_weight_alone_in_8_bits_is_named(explain_graph):
    graph = f"{WEIGHT} m = MatMul (x, wd) mq = QuantizeLinear (m, s, z) y = DequantizeLinear (mq, s, z)"
    (product,) = by_role(only(explain_graph(graph)), "float product")
    assert product.why == "its weight is in 8 bits, but its activation is not quantized"


def test_an_activation_alone_in_8_bits_is_named(explain_graph):
    (product,) = by_role(only(explain_graph(f"{HOLD_X} y = MatMul (xd, float_weight)")), "float product")
    assert product.why == "its activation is in 8 bits, but its weight is float"


def test_products_of_activations_are_told_apart_from_those_with_weights(explain_graph):
    point = only(explain_graph(f"{MATMUL.replace('y =', 'm =')} t = Transpose (m) y = MatMul (m, t)"))
    (product,) = by_role(point, "float product")
    assert product.why == ACTIVATIONS_ONLY
    assert (product.weight_macs, product.activation_macs) == (0, 2 * 2 * 48)
    assert point.weight_macs == 2 * 32 * 48
    assert point.int8_weight_share == 1.0
    assert point.int8_share == pytest.approx(2 * 32 * 48 / (2 * 32 * 48 + 2 * 2 * 48))


def test_the_reason_that_quantization_recorded_is_given_for_the_very_node(explain_graph):
    graph = f"{HOLD_X} e = Erf (xd) m = MatMul (e, float_weight) t = Transpose (m) y = MatMul (m, t)"
    skips = (Skip("MatMul MatMul_3", "excluded by the request"), Skip("MatMul MatMul_5", "too sensitive"))
    found = {
        n.name.split("/")[0]: n.why for n in by_role(only(explain_graph(graph, skips=skips)), "float product")
    }
    assert found["MatMul_3"] == "excluded by the request"
    assert "too sensitive" in found.values() or ACTIVATIONS_ONLY in found.values()


def test_a_recorded_name_does_not_stand_for_a_longer_one(explain_graph):
    skips = (Skip("MatMul MatMul_", "another node"), Skip("MatMul Mat", "another node"))
    (product,) = by_role(only(explain_graph("y = MatMul (x, float_weight)", skips=skips)), "float product")
    assert product.why == FLOAT_GRAPH


def test_the_reason_is_found_where_the_runtime_renamed_the_convolution(explain_graph):
    graph = """
    o = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, float_filter) r = Relu (o)
    q = QuantizeLinear (r, s, z) y = DequantizeLinear (q, s, z)
    """
    filters = {"float_filter": np.full((16, 16, 3, 3), 0.1, np.float32)}
    skips = (Skip("Conv Conv_0", "excluded by the request"),)
    point = only(explain_graph(graph, x=(2, 16, 8, 8), constants=filters, skips=skips))
    (product,) = by_role(point, "float product")
    assert product.why == "excluded by the request"
    assert product.macs == 2 * 8 * 8 * 16 * 16 * 9


def test_a_product_that_the_runtime_quantizes_against_the_record_is_called_out(explain_graph):
    float_weight = CONVS.replace("k2 = DequantizeLinear (c2, cs, cz)", "").replace(
        "(d1, k2)", "(d1, float_filter)"
    )
    filters = {"float_filter": np.full((8, 8, 3, 3), 0.1, np.float32)}
    skips = (Skip("Conv Conv_6", "excluded by the request"),)
    point = only(
        explain_graph(float_weight, x=(2, 3, 8, 8), constants={**CONV_CONSTANTS, **filters}, skips=skips)
    )
    told = [node.why for node in by_role(point, "int8 product") if node.why]
    stayed = [node.why for node in by_role(point, "float product")]
    # Older runtimes leave it float; those that do not are caught at it.
    assert told + stayed in (
        [UNASKED.format("excluded by the request")],
        ["excluded by the request"],
    )


def test_a_float_graph_is_said_to_be_one(explain_graph):
    point = only(explain_graph("m = MatMul (x, float_weight) y = Erf (m)"))
    assert {group.why for group in point.stayed_float()} == {FLOAT_GRAPH}
    assert point.int8_share == 0.0


def test_a_graph_without_products_has_no_share(explain_graph):
    point = only(explain_graph("y = Erf (x)"))
    assert (point.int8_share, point.int8_weight_share, point.macs) == (None, None, 0)


def test_a_mul_is_smoothing_only_where_quantization_named_it_so():
    wiring = Wiring.of(onnx.GraphProto())
    tensors = (("float", (2, 32)),)
    roles = {
        name: explained(Kernel(name, "Mul", tensors, tensors, 0.1, None), wiring, {}).role
        for name in ("x_smooth", "smooth_x", "Mul_3")
    }
    assert roles == {"x_smooth": "smoothing", "smooth_x": "float op", "Mul_3": "float op"}


def test_nodes_without_names_are_found_by_their_order(explain_graph):
    graph = f"""
    {HOLD_X} {WEIGHT} m = MatMul (xd, wd) bd = DequantizeLinear <axis = 0> (b, bs, bz)
    ud = DequantizeLinear <axis = 1> (u, ws, wz) n = Gemm (xd, ud, bd) y = Concat <axis = 0> (m, n)
    """
    point = only(explain_graph(graph, named=False))
    assert {node.op for node in by_role(point, "int8 product")} == {"MatMulIntegerToFloat", "QGemm"}
    assert [group.needed for group in point.conversions()] == [True]
    assert point.weight_macs == point.macs == 2 * 2 * 32 * 48


def test_nodes_inside_a_branch_are_shown_too(explain_graph):
    graph = """
    total = ReduceSum <keepdims = 0> (x) zero = Constant <value_float = 0.0> () sure = Less (total, zero)
    xq = QuantizeLinear (x, s, z) xd = DequantizeLinear (xq, s, z) e = Erf (xd) t = Transpose (e)
    y = If (sure) <then_branch = yes () => (float[n, n] a) { a = MatMul (e, t) },
                   else_branch = no () => (float[n, n] b) { b = MatMul (e, t) }>
    """
    (product,) = by_role(only(explain_graph(graph)), "float product")
    assert product.why == "it is in a subgraph, which quantization leaves alone"
    assert product.macs == 2 * 2 * 32


class TestTimes:
    def test_every_node_has_a_time_and_the_roofline_is_there(self, explain_graph, here):
        explanation = explain_graph(MATMUL, points=((2, 8), (64, 8)), profile=here)
        assert explanation.timed
        assert explanation.roofline.int8_gmacs_per_s > 0
        assert [point.shape for point in explanation.points] == ["2", "64"]
        for point in explanation.points:
            assert all(node.ms is not None for node in point.nodes)
            assert point.runs >= 5
            assert point.kernels_ms == pytest.approx(sum(node.ms for node in point.nodes))
            assert point.rate("int8 product") > 0

    def test_larger_inputs_have_more_multiply_adds_and_their_bound_grows_with_them(self, explain_graph, here):
        explanation = explain_graph(MATMUL, points=((2, 8), (64, 8)), profile=here, predict=False)
        small, large = explanation.points
        assert large.macs == 32 * small.macs
        assert large.bound_ms(explanation.roofline) == pytest.approx(
            32 * small.bound_ms(explanation.roofline)
        )

    def test_a_product_is_charged_with_its_share_of_the_quantize_before_it(self, explain_graph, here):
        both = """
        ud = DequantizeLinear <axis = 1> (u, ws, wz) m = MatMul (xd, wd) n = MatMul (xd, ud)
        y = Concat <axis = 0> (m, n)
        """
        point = only(explain_graph(f"{HOLD_X} {WEIGHT} {both}", profile=here))
        (quantize,) = by_role(point, "quantize")
        times = {node.name: node.ms for node in by_role(point, "int8 product")}
        assert len(point.predictions) == 2
        for prediction in point.predictions:
            assert prediction.int8_ms == pytest.approx(times[prediction.node] + quantize.ms / 2)
            assert prediction.gain_ms == pytest.approx(prediction.int8_ms - prediction.float_ms)

    def test_elsewhere_the_kernels_are_shown_without_a_single_time(self, explain_graph):
        explanation = explain_graph(GEMM)
        point = only(explanation)
        assert not explanation.timed
        assert "the target is wasm32 and this machine is" in explanation.note
        assert point.int8_share == 1.0
        assert [node.ms for node in point.nodes] == [None] * len(point.nodes)
        assert (point.run_ms, point.kernels_ms, point.predictions) == (None, None, ())

    def test_on_arm_codes_stay_signed(self, explain_graph):
        signed = {"z": np.array(0, np.int8)}
        types = {
            name: by_role(
                only(explain_graph(MATMUL, profile=load_profile(name), constants=signed)), "int8 product"
            )
            for name in ("arm64", "web-wasm")
        }
        assert [node.types for node in types["arm64"]] == ["int8 · int8"]
        if read_machine().isa == "x86_64":  # where ONNX Runtime makes unsigned codes of them
            assert [node.types for node in types["web-wasm"]] == ["uint8 · int8"]


class TestJson:
    def test_it_is_strict_and_holds_every_node(self, explain_graph, here):
        explanation = explain_graph(GEMM, profile=here)
        document = json.loads(json.dumps(explanation.to_json(), allow_nan=False))
        (point,) = document["points"]
        assert [node["name"] for node in point["nodes"]] == [node.name for node in only(explanation).nodes]
        assert point["op_kinds"][0]["count"] == len(point["op_kinds"][0]["nodes"])
        assert point["predicted"][0]["gain_ms"] == pytest.approx(
            point["predicted"][0]["int8_ms"] - point["predicted"][0]["float_ms"], rel=1e-2, abs=1e-4
        )

    def test_a_report_keeps_the_products_and_the_slowest(self, explain_graph, here):
        chain = " ".join(f"e{n + 1} = Erf (e{n})" for n in range(60))
        graph = f"{GEMM.replace('y =', 'e0 =')} {chain} y = Identity (e60)"
        explanation = explain_graph(graph, profile=here, predict=False)
        (brief,), (full,) = (explanation.to_json(every_node=every)["points"] for every in (False, True))
        assert len(brief["nodes"]) < len(full["nodes"])
        assert [node["op"] for node in brief["nodes"] if node["weight_macs"]] == ["QGemm"]
        assert brief["int8_share"] == full["int8_share"] == 1.0


class TestRefused:
    def test_a_golden_of_another_model(self, explain_graph, tmp_path, here):
        explain_graph(GEMM, predict=False)
        other = GoldenBatch({"z": np.zeros((1, 32), np.float32)}, {"y": np.zeros((1, 1), np.float32)})
        Golden("generic", (other,)).save(tmp_path / "other.npz")
        with pytest.raises(ModelError, match="wants the input 'x', which the golden does not have"):
            explain(tmp_path / "model.onnx", tmp_path / "other.npz", here)

    def test_inputs_that_the_graph_cannot_take(self, explain_graph, tmp_path, here):
        explain_graph(GEMM, predict=False)
        other = GoldenBatch({"x": np.zeros((1, 31), np.float32)}, {"y": np.zeros((1, 1), np.float32)})
        Golden("generic", (other,)).save(tmp_path / "other.npz")
        with pytest.raises(ModelError, match="fails on inputs of shape"):
            explain(tmp_path / "model.onnx", tmp_path / "other.npz", here)

    def test_a_file_that_is_no_model(self, explain_graph, tmp_path, here):
        explain_graph(GEMM, predict=False)
        (tmp_path / "none.onnx").write_text("no")
        with pytest.raises(ModelError, match="cannot open"):
            explain(tmp_path / "none.onnx", tmp_path / "golden.npz", here)
