"""What a phone's execution provider would take, predicted from the runtime's own lists."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgekit.cli import cli
from edgekit.errors import ModelError
from edgekit.validate.coverage import PROVIDERS, Coverage, Provider, predict_coverage


def _conv(path: Path, activation: int | None, *, free: bool = False) -> Path:
    """Save Conv + Relu + CumSum over an image, the convolution on codes of a type, or in float."""
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes, constants = [], [numpy_helper.from_array(np.array(1, np.int64), "axis")]
    if activation is None:
        constants.append(numpy_helper.from_array(weight, "w"))
        source, kernel = "x", "w"
    else:
        dtype = np.uint8 if activation == TensorProto.UINT8 else np.int8
        constants += [
            numpy_helper.from_array(np.array(0.1, np.float32), "s"),
            numpy_helper.from_array(np.array(0, dtype), "z"),
            numpy_helper.from_array(np.array(0, np.int8), "wz"),
            numpy_helper.from_array(np.rint(weight * 10).astype(np.int8), "wq"),
        ]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
            helper.make_node("DequantizeLinear", ["wq", "s", "wz"], ["wd"]),
        ]
        source, kernel = "xd", "wd"
    nodes += [
        helper.make_node("Conv", [source, kernel], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("CumSum", ["r", "axis"], ["y"], name="sum"),
    ]
    shape = ["batch", 3, "height", "width"] if free else [1, 3, 8, 8]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def _why(coverage: Coverage, op: str) -> str:
    return next((group.why for group in coverage.left if group.op == op), "")


@pytest.mark.parametrize("provider", list(PROVIDERS))
def test_an_operator_that_no_list_has_stays_on_the_cpu(tmp_path: Path, provider: Provider) -> None:
    coverage = predict_coverage(_conv(tmp_path / "m.onnx", None), provider)
    assert _why(coverage, "CumSum") == "the operator is not in the provider's list"
    assert not _why(coverage, "Conv"), "a float convolution of fixed shape is taken by all three"
    assert coverage.nodes == 3
    assert coverage.taken == coverage.nodes - sum(len(group.nodes) for group in coverage.left)


@pytest.mark.parametrize(
    ("provider", "activation", "why"),
    [
        ("xnnpack", TensorProto.UINT8, "uint8 activations with int8 weights are refused"),
        ("xnnpack", TensorProto.INT8, ""),
        ("nnapi", TensorProto.INT8, "int8 activations are refused, only uint8 ones are taken"),
        ("nnapi", TensorProto.UINT8, ""),
        ("coreml", TensorProto.INT8, "its inputs are dequantized, and the provider has no"),
    ],
)
def test_the_types_of_the_codes_decide(tmp_path: Path, provider: Provider, activation: int, why: str) -> None:
    found = _why(predict_coverage(_conv(tmp_path / "m.onnx", activation), provider), "Conv")
    assert found.startswith(why) if why else not found


@pytest.mark.parametrize(
    ("provider", "why"),
    [
        ("xnnpack", "channels, height and width have to be fixed"),
        ("nnapi", "every dimension has to be fixed"),
        ("coreml", ""),
    ],
)
def test_free_dimensions_decide(tmp_path: Path, provider: Provider, why: str) -> None:
    coverage = predict_coverage(_conv(tmp_path / "m.onnx", None, free=True), provider)
    assert _why(coverage, "Conv") == why


def test_changes_between_provider_and_cpu_are_counted(tmp_path: Path) -> None:
    assert predict_coverage(_conv(tmp_path / "m.onnx", None), "nnapi").switches == 1
    assert predict_coverage(_conv(tmp_path / "m.onnx", TensorProto.INT8), "coreml").switches == 2


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no")
    with pytest.raises(ModelError, match="is not an ONNX model"):
        predict_coverage(tmp_path / "m.onnx", "nnapi")


def test_the_command_line_says_that_it_is_a_prediction(tmp_path: Path) -> None:
    path = str(_conv(tmp_path / "m.onnx", TensorProto.UINT8))
    told = CliRunner().invoke(cli, ["inspect", path, "--provider", "xnnpack"])
    assert told.exit_code == 0
    assert "predicted, not run" in told.output
    assert "uint8 activations with int8 weights are refused" in told.output
    found = json.loads(CliRunner().invoke(cli, ["inspect", path, "--provider", "nnapi", "--json"]).output)
    assert found["status"] == "predicted"
