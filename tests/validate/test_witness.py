"""Integer sums, held against the exact ones where they are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from edgekit import graph as g
from edgekit.errors import ModelError
from edgekit.model import Graph, OnnxModel
from edgekit.profile import load_profile
from edgekit.quantize import calibrate, quantize
from edgekit.recipe import QuantizeOptions
from edgekit.record import Level
from edgekit.runners import Job, Result, State
from edgekit.runners.native import Native
from edgekit.runners.x86.tiers import TIERS, MaskedX86
from edgekit.validate.matrix import difference
from edgekit.validate.witness import (
    SAFE_PAIR_SUM,
    IntegerLayer,
    LayerWitness,
    exact_sums_check,
    integer_layers,
    witness,
)

EXACT, SATURATING = "x86-sse", "x86-avx2"
INNER, COLUMNS = 48, 20


@pytest.fixture
def tier(x86_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], MaskedX86]:
    """Returns a tier that this CPU can play, by name."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(x86_cache))

    def named(name: str) -> MaskedX86:
        chosen = next(tier for tier in TIERS if tier.name == name)
        if not chosen.state().ready:
            pytest.skip(chosen.state().missing)
        return chosen

    return named


@pytest.fixture(scope="module")
def reference() -> dict[str, Result]:
    """Results of the tier that is always exact, by op, so that each is computed once."""
    return {}


def codes(bound: int, shape: tuple[int, ...] = (INNER, COLUMNS)) -> np.ndarray:
    """Random int8 weights with at least one at each bound."""
    drawn = np.random.default_rng(0).integers(-bound, bound + 1, shape)
    drawn.flat[:2], drawn.flat[-2:] = bound, -bound
    return drawn.astype(np.int8)


def save(
    path: Path, op: str, weight: np.ndarray, *, zero: int = 100, dtype: str = "uint8", **attributes: int
) -> Path:
    """Write Q, DQ, one op with a dequantized weight: float in, float out."""
    constants = {
        "scale": np.float32(0.02),
        "zero": np.array(zero, dtype),
        "w": weight,
        "w_scale": np.float32(0.01),
        "w_zero": np.zeros((), weight.dtype),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["b"]),
        helper.make_node(op, ["a", "b"], ["y"], name="layer", **attributes),
    ]
    if op == "Conv":  # an int8 kernel is made of a convolution whose output is codes too
        nodes[-1].output[0] = "c"
        nodes.append(helper.make_node("QuantizeLinear", ["c", "scale", "zero"], ["c_q"]))
        nodes.append(helper.make_node("DequantizeLinear", ["c_q", "scale", "zero"], ["y"]))
    return write(
        path,
        nodes,
        constants,
        [1, weight.shape[1] * attributes.get("group", 1), 6, 6] if op == "Conv" else ["n", INNER],
    )


def write(path: Path, nodes: list[Any], constants: dict[str, Any], shape: list[Any]) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph,
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)],
    )
    path.write_bytes(model.SerializeToString())
    return path


@dataclass(frozen=True)
class Spoiled:
    """Runs here, then changes outputs: a runner with kernels that are wrong in a known way."""

    change: Callable[[dict[str, np.ndarray]], None]
    name: str = "spoiled"
    title: str = "a runner whose results are changed"
    level: Level = "native"
    kit: None = None

    def state(self) -> State:
        return State()

    def run(self, job: Job) -> Result:
        result = Native().run(job)
        outputs = {name: value.copy() for name, value in result.outputs[0].items()}
        self.change(outputs)
        return replace(result, outputs=(outputs,))


class TestOnTiers:
    @pytest.mark.parametrize(
        ("op", "shape", "attributes"),
        [
            ("MatMul", (INNER, COLUMNS), {}),
            ("Gemm", (COLUMNS, INNER), {"transB": 1}),
            ("Conv", (8, 6, 3, 3), {}),
            ("Conv", (8, 32, 1, 1), {}),
            ("Conv", (8, 6, 3, 3), {"group": 2}),
        ],
        ids=["product", "transposed product", "convolution", "pointwise convolution", "grouped convolution"],
    )
    def test_full_range_weights_are_caught_where_the_hardware_saturates(
        self, tier: Any, tmp_path: Path, op: str, shape: tuple[int, ...], attributes: dict[str, int]
    ) -> None:
        model = save(tmp_path / "m.onnx", op, codes(127, shape), **attributes)
        (exact,), (cut,) = witness(model, tier(EXACT)), witness(model, tier(SATURATING))
        assert exact.wrong == 0
        assert cut.wrong > cut.sums // 20
        assert not cut.certified

    def test_a_depthwise_convolution_does_not_saturate_since_its_kernel_adds_in_32_bits(
        self, tier: Any, tmp_path: Path
    ) -> None:
        model = save(tmp_path / "m.onnx", "Conv", codes(127, (16, 1, 3, 3)), group=16)
        (found,) = witness(model, tier(SATURATING))
        assert (found.wrong, found.certified) == (0, False)

    @pytest.mark.parametrize("name", [tier.name for tier in TIERS])
    @pytest.mark.parametrize(("op", "shape"), [("MatMul", (INNER, COLUMNS)), ("Conv", (8, 6, 3, 3))])
    def test_weights_of_reduced_range_are_exact_everywhere_and_give_the_same_bytes(
        self,
        tier: Any,
        tmp_path: Path,
        name: str,
        op: str,
        shape: tuple[int, ...],
        reference: dict[str, Result],
    ) -> None:
        model = save(tmp_path / "m.onnx", op, codes(64, shape))
        (found,) = witness(model, tier(name))
        assert (found.wrong, found.certified) == (0, True)
        x = np.random.default_rng(1).normal(size=(1, 6, 6, 6) if op == "Conv" else (9, INNER))
        job = Job(model, ({"x": x.astype(np.float32)},), ("y",))
        if op not in reference:
            reference[op] = tier(EXACT).run(job)
        assert difference(tier(name).run(job).outputs, reference[op].outputs) == (1.0, 0.0)

    def test_a_wrong_zero_point_changes_the_outputs_and_no_sum(self, tier: Any, tmp_path: Path) -> None:
        right = save(tmp_path / "right.onnx", "MatMul", codes(64), zero=100)
        planted = save(tmp_path / "planted.onnx", "MatMul", codes(64), zero=250)
        x = np.random.default_rng(1).normal(size=(9, INNER)).astype(np.float32)
        results = [tier(EXACT).run(Job(path, ({"x": x},), ("y",))) for path in (right, planted)]
        same, largest = difference(*(result.outputs for result in results))
        assert same == 0
        assert largest > 1
        assert witness(planted, tier(EXACT))[0].wrong == 0


class TestCounting:
    def test_each_sum_that_is_off_by_one_is_counted_in_its_layer(self, tmp_path: Path) -> None:
        def change(outputs: dict[str, np.ndarray]) -> None:
            next(iter(outputs.values()))[0, :3] += 1

        model = save(tmp_path / "m.onnx", "MatMul", codes(64))
        (found,) = witness(model, Spoiled(change))
        assert (found.name, found.op, found.wrong) == ("layer", "MatMul", 3)
        assert found.sums == (2 * COLUMNS + 16) * COLUMNS

    def test_every_channel_of_a_convolution_is_compared_for_every_image(self, tmp_path: Path) -> None:
        def change(outputs: dict[str, np.ndarray]) -> None:
            for value in outputs.values():
                value += 1

        (found,) = witness(save(tmp_path / "m.onnx", "Conv", codes(64, (8, 6, 3, 3))), Spoiled(change))
        assert found.wrong == found.sums == 5 * 8

    def test_a_graph_without_int8_layers_has_nothing_to_run(self, tmp_path: Path) -> None:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
        model = write(tmp_path / "m.onnx", nodes, {"w": np.ones((INNER, 4), np.float32)}, ["n", INNER])
        assert witness(model, Spoiled(lambda outputs: pytest.fail("it was run"))) == ()


class TestLayers:
    def test_a_transposed_weight_is_turned_so_that_pairs_are_along_k(self, tmp_path: Path) -> None:
        weight = codes(127, (COLUMNS, INNER))
        (layer,) = integer_layers(save(tmp_path / "m.onnx", "Gemm", weight, transB=1))
        assert np.array_equal(layer.codes, weight.T)

    def test_the_type_of_the_activations_is_that_of_their_zero_point(self, tmp_path: Path) -> None:
        path = save(tmp_path / "m.onnx", "MatMul", codes(127), zero=0, dtype="int8")
        assert integer_layers(path)[0].activation == "int8"

    def test_a_weight_whose_activations_stay_float_is_no_int8_layer(self, tmp_path: Path) -> None:
        nodes = [
            helper.make_node("DequantizeLinear", ["w", "s"], ["b"]),
            helper.make_node("MatMul", ["x", "b"], ["y"]),
        ]
        constants = {"w": codes(127), "s": np.float32(1)}
        assert integer_layers(write(tmp_path / "m.onnx", nodes, constants, ["n", INNER])) == ()

    def test_products_on_codes_are_found_too(self, tmp_path: Path) -> None:
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
            helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"], name="integers"),
            helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
        ]
        (layer,) = integer_layers(write(tmp_path / "m.onnx", nodes, {"w": codes(127)}, ["n", INNER]))
        assert (layer.name, layer.op, layer.activation) == ("integers", "MatMul", "uint8")
        assert np.array_equal(layer.codes, codes(127))

    @pytest.mark.parametrize(("target", "safe"), [("cpu-x86", False), ("cpu-x86-portable", True)])
    def test_every_layer_that_edgekit_quantizes_is_found_with_the_certificate_that_it_recorded(
        self, tmp_path: Path, target: str, safe: bool
    ) -> None:
        rng = np.random.default_rng(0)
        nodes = [
            helper.make_node("Gemm", ["x", "w1", "bias"], ["h"], name="first", transB=1),
            helper.make_node("Relu", ["h"], ["r"], name="relu"),
            helper.make_node("MatMul", ["r", "w2"], ["y"], name="second"),
        ]
        weights = {
            "w1": rng.normal(size=(160, INNER)),
            "bias": rng.normal(size=160),
            "w2": rng.normal(size=(160, 8)),
        }
        constants = {name: value.astype(np.float32) for name, value in weights.items()}
        path = write(tmp_path / "float.onnx", nodes, constants, ["n", INNER])
        model = OnnxModel((Graph("model", path, g.signature(g.load(path))),), 13, 8)
        samples = [{"x": rng.normal(size=(4, INNER)).astype(np.float32)} for _ in range(4)]
        made = quantize(
            model, calibrate(model, samples), load_profile(target), QuantizeOptions(), tmp_path / "q.onnx"
        )
        recorded = {
            name: entry["largest_pair_sum"]
            for record in made.history
            for entry in record.facts.get("layers", [])
            for name in entry["nodes"]
        }
        assert len(recorded) == 2
        found = integer_layers(made.only.path)
        assert {layer.name: layer.largest_pair_sum for layer in found} == recorded
        assert all((layer.largest_pair_sum <= SAFE_PAIR_SUM) == safe for layer in found)

    def test_a_file_that_is_no_model_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "bad.onnx").write_bytes(b"nonsense")
        with pytest.raises(ModelError, match=r"bad\.onnx is not an ONNX model"):
            integer_layers(tmp_path / "bad.onnx")


small_weights = hnp.arrays(
    np.int8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(-127, 127)
)


@given(small_weights)
def test_a_product_is_certified_just_when_no_activations_overflow_16_bits(weight: np.ndarray) -> None:
    padded = np.pad(weight.astype(np.int64), ((0, len(weight) % 2), (0, 0)))
    # A pair is largest where one sign of its codes meets 255 and the other meets 0.
    pairs = [255 * (part[0::2] + part[1::2]) for part in (np.maximum(padded, 0), np.minimum(padded, 0))]
    overflows = max(int(np.abs(pair).max()) for pair in pairs) > 32767
    assert (IntegerLayer("l", "MatMul", weight, "uint8").largest_pair_sum > SAFE_PAIR_SUM) == overflows


def test_a_convolutions_certificate_holds_for_any_order_of_its_codes() -> None:
    weight = np.zeros((2, 3, 3, 3), np.int8)
    weight[0, 0, 0, 0], weight[0, 2, 2, 2] = 70, 60
    weight[1, :, 1, 1] = (-90, -30, 127)
    assert IntegerLayer("l", "Conv", weight, "uint8").largest_pair_sum == 130


class TestCheck:
    FOUND = (LayerWitness("good", "MatMul", 100, 0, 128), LayerWitness("bad", "Conv", 50, 7, 254))

    def test_gates_where_the_targets_weights_promise_exact_sums(self) -> None:
        check = exact_sums_check(self.FOUND, load_profile("cpu-x86-portable"))
        assert (check.state, check.measured, check.budget) == ("fail", 7, 0)
        assert "1 of 2 layers" in check.why
        assert "worst is bad, 7 of 50" in check.why

    def test_is_shown_where_they_do_not(self) -> None:
        assert exact_sums_check(self.FOUND, load_profile("cpu-x86")).state == "info"

    def test_passes_when_every_sum_is_exact(self) -> None:
        assert exact_sums_check(self.FOUND[:1], load_profile("cpu-x86-avx2")).state == "pass"
