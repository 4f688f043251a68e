"""What `inspect_file` says of a model is what is in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import ModelError
from edgekit.store import dump_json
from edgekit.validate.inspection import inspect_file


def _value(name: str, shape: list, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _save(path: Path, nodes: list, tensors: dict[str, np.ndarray], **options) -> Path:
    constants = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    inputs = options.pop("inputs", [_value("x", ["batch", 8])])
    graph = helper.make_graph(nodes, "g", inputs, [_value("y", ["batch", 4])], constants)
    opsets = [helper.make_opsetid("", 20), *options.pop("opsets", [])]
    model = helper.make_model(
        graph, ir_version=10, opset_imports=opsets, producer_name="maker", producer_version="1", **options
    )
    path.write_bytes(model.SerializeToString())
    return path


def _node(op: str, inputs: list[str], output: str, **options) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], **options)


@pytest.fixture
def half_quantized(tmp_path) -> Path:
    """Two constant layers, one of them int8 through a transpose, and one MatMul of activations."""
    nodes = [
        _node("DequantizeLinear", ["w8", "s", "z"], "w", axis=0),
        _node("Transpose", ["w"], "wt", perm=[1, 0]),
        _node("MatMul", ["x", "wt"], "a"),
        _node("Gemm", ["a", "f", "b"], "c"),
        _node("Transpose", ["c"], "ct"),
        _node("MatMul", ["c", "ct"], "d"),
        _node("MatMul", ["d", "c"], "y"),
    ]
    tensors = {
        "w8": np.ones((6, 8), np.int8),
        "s": np.ones(6, np.float32),
        "z": np.zeros(6, np.int8),
        "f": np.ones((6, 4), np.float32),
        "b": np.ones(4, np.float32),
        "shape": np.ones(3, np.int64),
    }
    return _save(tmp_path / "m.onnx", nodes, tensors)


def test_signature_versions_and_producer_are_read(half_quantized) -> None:
    found = inspect_file(half_quantized)
    assert [(s.name, s.dtype, s.shape) for s in found.signature.inputs] == [("x", "float32", ("batch", 8))]
    assert [(s.name, s.shape) for s in found.signature.outputs] == [("y", ("batch", 4))]
    assert (found.ir_version, found.opsets, found.producer) == (10, {"ai.onnx": 20}, "maker 1")


def test_operators_are_counted_most_frequent_first(half_quantized) -> None:
    ops = inspect_file(half_quantized).ops
    assert ops == {"MatMul": 3, "Transpose": 2, "DequantizeLinear": 1, "Gemm": 1}
    assert list(ops.values()) == sorted(ops.values(), reverse=True)


def test_a_layer_counts_only_with_a_constant_weight_and_as_quantized_only_behind_a_dequantize(
    half_quantized,
) -> None:
    found = inspect_file(half_quantized)
    assert found.weighted_layers == {"Gemm": (0, 1), "MatMul": (1, 1)}
    assert found.quantized_layer_share == 0.5


def test_parameters_and_bytes_are_counted_by_type(half_quantized) -> None:
    found = inspect_file(half_quantized)
    assert found.bytes_by_dtype == {"float32": (6 + 24 + 4) * 4, "int8": 48 + 6, "int64": 24}
    assert (found.parameters, found.quantized_parameters) == (34 + 54, 54)
    assert found.quantized_parameter_share == 54 / 88


def test_sizes_are_of_the_file_and_of_its_deflated_form(half_quantized) -> None:
    found = inspect_file(half_quantized)
    assert found.file_bytes == half_quantized.stat().st_size
    assert 0 < found.compressed_bytes < found.file_bytes


def test_the_json_form_holds_every_field_and_is_json(half_quantized) -> None:
    data = json.loads(dump_json(inspect_file(half_quantized).to_json()))
    assert data["signature"]["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 8]}]
    assert data["weighted_layers"]["MatMul"] == {"quantized": 1, "total": 1}
    assert data["quantized_layer_share"] == 0.5
    assert data["external_files"] == []


def test_a_weight_quantized_only_at_load_is_a_float_weight(tmp_path) -> None:
    nodes = [
        _node("QuantizeLinear", ["f", "s", "z"], "q"),
        _node("DequantizeLinear", ["q", "s", "z"], "w"),
        _node("MatMul", ["x", "w"], "y"),
    ]
    tensors = {"f": np.ones((8, 4), np.float32), "s": np.ones((), np.float32), "z": np.zeros((), np.int8)}
    assert inspect_file(_save(tmp_path / "m.onnx", nodes, tensors)).weighted_layers == {"MatMul": (0, 1)}


def test_integer_operators_of_the_runtime_count_as_quantized(tmp_path) -> None:
    nodes = [_node("MatMulIntegerToFloat", ["x", "w", "s", "s"], "y", domain="com.microsoft")]
    tensors = {"w": np.ones((8, 4), np.int8), "s": np.ones((), np.float32)}
    path = _save(tmp_path / "m.onnx", nodes, tensors, opsets=[helper.make_opsetid("com.microsoft", 1)])
    found = inspect_file(path)
    assert found.ops == {"com.microsoft.MatMulIntegerToFloat": 1}
    assert found.weighted_layers == {"com.microsoft.MatMulIntegerToFloat": (1, 1)}
    assert found.opsets == {"ai.onnx": 20, "com.microsoft": 1}


def test_constants_inside_nodes_and_subgraphs_are_counted(tmp_path) -> None:
    inner = helper.make_graph(
        [
            _node("Constant", [], "w", value=numpy_helper.from_array(np.ones((8, 4), np.float32))),
            _node("MatMul", ["x", "w"], "out"),
        ],
        "then",
        [],
        [_value("out", ["batch", 4])],
    )
    node = _node("If", ["yes"], "y", then_branch=inner, else_branch=inner)
    path = _save(tmp_path / "m.onnx", [node], {"yes": np.array(True)})
    found = inspect_file(path)
    assert found.ops == {"Constant": 2, "MatMul": 2, "If": 1}
    assert found.bytes_by_dtype == {"float32": 2 * 32 * 4, "bool": 1}
    assert found.weighted_layers == {"MatMul": (0, 2)}


def test_four_bit_weights_take_half_a_byte(tmp_path) -> None:
    nodes = [_node("DequantizeLinear", ["w", "s"], "f"), _node("MatMul", ["x", "f"], "y")]
    path = _save(tmp_path / "m.onnx", nodes, {"s": np.ones((), np.float32)})
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.INT4, [8, 4], bytes(16), raw=True))
    path.write_bytes(model.SerializeToString())
    found = inspect_file(path)
    assert found.bytes_by_dtype["int4"] == 16
    assert found.quantized_parameters == 32


def test_inputs_that_are_really_constants_are_left_out_of_the_signature(tmp_path) -> None:
    inputs = [_value("x", ["batch", 8]), _value("w", [8, 4])]
    path = _save(
        tmp_path / "m.onnx",
        [_node("MatMul", ["x", "w"], "y")],
        {"w": np.ones((8, 4), np.float32)},
        inputs=inputs,
    )
    assert [spec.name for spec in inspect_file(path).signature.inputs] == ["x"]


def test_a_model_without_weights_has_no_shares(tmp_path) -> None:
    found = inspect_file(_save(tmp_path / "m.onnx", [_node("Relu", ["x"], "y")], {}))
    assert found.quantized_layer_share is None
    assert found.quantized_parameter_share is None


def test_weights_in_a_file_beside_it_belong_to_the_size(tmp_path) -> None:
    weight = np.arange(32, dtype=np.float32).reshape(8, 4)
    path = _save(tmp_path / "m.onnx", [_node("MatMul", ["x", "w"], "y")], {"w": weight})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    found = inspect_file(path)
    assert found.external_files == ("m.onnx.data",)
    assert found.file_bytes == path.stat().st_size + 128
    assert found.bytes_by_dtype == {"float32": 128}


def test_a_weight_that_holds_fewer_bytes_than_its_shape_is_refused(tmp_path) -> None:
    path = _save(tmp_path / "m.onnx", [_node("MatMul", ["x", "w"], "y")], {"w": np.ones((8, 4), np.float32)})
    model = onnx.load(path)
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="'w' holds 124 bytes, its shape asks for 128"):
        inspect_file(path)


@pytest.mark.parametrize("content", [b"", b"hello world, this is no model", b"\x00" * 64, b"\x08\x0a"])
def test_a_file_that_is_not_onnx_is_refused(tmp_path, content) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx is not an ONNX file"):
        inspect_file(path)


def test_a_truncated_file_is_refused_wherever_it_was_cut(half_quantized) -> None:
    whole = half_quantized.read_bytes()
    for length in range(0, len(whole) - 8, 11):
        half_quantized.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            inspect_file(half_quantized)


def test_a_graph_that_goes_in_a_circle_is_still_described(tmp_path) -> None:
    nodes = [
        _node("Transpose", ["b"], "a"),
        _node("Transpose", ["a"], "b"),
        _node("MatMul", ["x", "a"], "y"),
    ]
    assert inspect_file(_save(tmp_path / "m.onnx", nodes, {})).weighted_layers == {}


def test_an_ort_format_file_is_named_as_what_it_is(tmp_path) -> None:
    (tmp_path / "m.ort").write_bytes(b"\x10\0\0\0ORTM" + bytes(40))
    with pytest.raises(ModelError, match="ORT format"):
        inspect_file(tmp_path / "m.ort")


def test_a_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        inspect_file(tmp_path / "gone.onnx")
