"""ONNX files weight by weight: the bytes that protobuf writes, the values that it reads."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit import graph as g
from edgekit import graph_file
from edgekit.errors import ModelError
from edgekit.runtime import open_session

DTYPES = ("float32", "float16", "float64", "int8", "uint8", "int32", "int64", "bool", "bfloat16", "int4")


def weight(dtype: str, shape: tuple[int, ...], seed: int) -> ir.TensorProtocol:
    """Return random numbers of a type."""
    numbers = np.random.default_rng(seed).integers(-8, 8, shape)
    if dtype == "int4":
        return ir.Tensor(numbers.astype(ml_dtypes.int4), ir.DataType.INT4)
    return ir.tensor(np.asarray(numbers.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)))


def model_of(weights: dict[str, ir.TensorProtocol]) -> ir.Model:
    """Return a model that hands its weights out and has some of everything else around them."""
    x = ir.Value(name="x", shape=ir.Shape(["batch", 3]), type=ir.TensorType(ir.DataType.FLOAT))
    values = [
        ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))
        for name, tensor in weights.items()
    ]
    nodes = [ir.node("Identity", [value], name=f"n_{value.name}", doc_string="why") for value in (x, *values)]
    for node in nodes:
        node.outputs[0].name = f"{node.name}_out"
        node.outputs[0].shape, node.outputs[0].type = node.inputs[0].shape, node.inputs[0].type
    graph = ir.Graph(
        [x],
        [nodes[0].outputs[0]],
        nodes=nodes,
        initializers=values,
        name="net",
        doc_string="all of it",
        opset_imports={"": 20},
        metadata_props={"key": "value"},
    )
    return ir.Model(graph, ir_version=10, producer_name="test", doc_string="m", metadata_props={"a": "b"})


def protobufs_own(model: ir.Model) -> bytes:
    """Return what protobuf writes of a model, types of constants left out."""
    proto = ir.serde.serialize_model(model)
    kept = [info for info in proto.graph.value_info if info.name not in model.graph.initializers]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    return proto.SerializeToString(deterministic=True)


shapes = st.lists(st.integers(0, 40), max_size=3).map(tuple)


@given(st.lists(st.tuples(st.sampled_from(DTYPES), shapes, st.integers(0, 99)), max_size=6))
def test_the_bytes_are_protobufs_and_the_values_come_back(tmp_path_factory, drawn) -> None:
    path = tmp_path_factory.mktemp("file") / "m.onnx"
    weights = {f"w{i}": weight(dtype, shape, seed) for i, (dtype, shape, seed) in enumerate(drawn)}
    model = model_of(weights)
    g.save(model, path)
    assert path.read_bytes() == protobufs_own(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_file, "LARGE_BYTES", 32)
        again = g.load(path)
    for name, tensor in weights.items():
        held = again.graph.initializers[name].const_value
        assert held.dtype == tensor.dtype
        assert held.shape == tensor.shape
        assert np.array_equal(held.numpy(), tensor.numpy())
        large = tensor.nbytes >= 32 and tensor.dtype not in (ir.DataType.BOOL, ir.DataType.INT4)
        assert isinstance(held, ir.LazyTensor) == large
    copy = path.with_name("copy.onnx")
    g.save(again, copy)
    assert copy.read_bytes() == path.read_bytes()


def test_protobuf_is_given_no_large_weight(tmp_path: Path) -> None:
    large = weight("float32", (256, 256), 0)
    g.save(model_of({"small": weight("float32", (8,), 0), "large": large}), tmp_path / "m.onnx")
    skeleton, places = graph_file._without_weights(tmp_path / "m.onnx")
    assert len(skeleton) < 2000
    assert places[0] is None
    offset, size = places[1]
    assert (tmp_path / "m.onnx").read_bytes()[offset : offset + size] == large.tobytes()


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    g.save(model_of({"large": weight("float32", (256, 256), 0)}), path)
    whole = path.read_bytes()
    around = [at for at in range(len(whole)) if at < 500 or at > len(whole) - 500 or at % 50_000 == 0]
    for at in around[1:]:
        path.write_bytes(whole[:at])
        try:
            found = g.load(path)
        except ModelError:
            continue
        # Protobuf takes a message that ends between two fields of the model.
        assert protobufs_own(found) == protobufs_own(ir.load(path))


def test_a_weight_whose_size_is_not_its_shapes_is_left_to_the_usual_reader(tmp_path: Path) -> None:
    proto = ir.serde.serialize_model(model_of({"large": weight("float32", (256, 256), 0)}))
    proto.graph.initializer[0].dims[0] = 255
    onnx.save(proto, tmp_path / "m.onnx")
    held = g.load(tmp_path / "m.onnx").graph.initializers["large"].const_value
    assert not isinstance(held, ir.LazyTensor)


def test_strings_and_weights_with_notes_are_kept(tmp_path: Path) -> None:
    noted = ir.tensor(np.ones((200, 200), np.float32), doc_string="a note")
    words = ir.StringTensor(np.array([b"a", b"bc"]), shape=ir.Shape([2]))
    model = model_of({"noted": noted, "words": words})
    g.save(model, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == protobufs_own(model)
    again = g.load(tmp_path / "m.onnx").graph.initializers
    assert again["noted"].const_value.doc_string == "a note"
    assert list(again["words"].const_value.string_data()) == [b"a", b"bc"]


def test_weights_in_the_branches_of_an_if_come_inside(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (bool c) => (float[300, 300] y) {
        y = If (c) <then_branch = t () => (float[300, 300] a) { a = Identity (w) },
                    else_branch = e () => (float[300, 300] b) { b = Neg (w) }>
    }
    """
    proto = onnx.parser.parse_model(text)
    for attribute in proto.graph.node[0].attribute:
        attribute.g.initializer.append(onnx.numpy_helper.from_array(table, "w"))
    (tmp_path / "large").mkdir()
    onnx.save(proto, tmp_path / "large" / "m.onnx", save_as_external_data=True, location="m.data")
    g.save(g.load(tmp_path / "large" / "m.onnx"), tmp_path / "small.onnx")
    for path in (tmp_path / "large").iterdir():
        path.unlink()
    assert np.array_equal(open_session(tmp_path / "small.onnx").run(None, {"c": np.array(False)})[0], -table)


def test_a_model_is_as_it_was_after_it_is_written(tmp_path: Path) -> None:
    model = model_of({"b": weight("float32", (4,), 0), "a": weight("int8", (3, 3), 1)})
    before = protobufs_own(model)
    held = [value.const_value for value in model.graph.initializers.values()]
    g.save(model, tmp_path / "m.onnx")
    assert list(model.graph.initializers) == ["b", "a"]
    assert [value.const_value for value in model.graph.initializers.values()] == held
    assert all(value.is_initializer() for value in model.graph.initializers.values())
    assert protobufs_own(model) == before


def test_a_released_model_holds_no_weights() -> None:
    model = model_of({"a": weight("float32", (4,), 0)})
    g.release(model)
    assert model.graph.initializers["a"].const_value is None
