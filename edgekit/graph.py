"""Small helpers over `onnx_ir` that the rooms which edit graphs share.

Editing is always done on a freshly loaded model and saved to a new file: a stage never edits a file that
it was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgekit.errors import ModelError
from edgekit.graph_file import read_model, write_model
from edgekit.model import Graph, Signature, TensorSpec
from edgekit.store import writing

# Protobuf refuses messages of 2 GiB; keep a margin for the graph itself.
# Source: protobuf encoding documentation, "size limits".
_MAX_INLINE_BYTES = 2**31 - 2**26


def load(path: Path) -> ir.Model:
    """Return the model in a file, which has to stay as it is: large weights are read when they are asked for.

    Raises:
        ModelError: The file is not an ONNX model.
    """
    try:
        return read_model(path)
    except Exception as error:  # protobuf, onnx_ir and the file system each raise their own
        raise ModelError(f"{path} is not an ONNX model: {error}") from None


def save(model: ir.Model, path: Path) -> None:
    """Write a model in one step; the same model always makes the same bytes.

    Weights go inside the file up to protobuf's 2 GiB, else into `<name>.data` beside it.
    """
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if size > _MAX_INLINE_BYTES:
        ir.save(model, path, external_data=f"{path.name}.data")
        return
    with writing(path) as aside, aside.open("wb") as file:
        write_model(model, file)


def signature(model: ir.Model) -> Signature:
    """Return the names, types and shapes of a graph's inputs and outputs."""

    def spec(value: ir.Value) -> TensorSpec:
        dims = value.shape if value.shape is not None else ()
        shape = tuple(d if isinstance(d, int) else str(getattr(d, "value", None) or "?") for d in dims)
        dtype = value.dtype.numpy() if value.dtype is not None else np.dtype("float32")
        return TensorSpec(value.name or "", str(np.dtype(dtype)), shape)

    return Signature(tuple(map(spec, model.graph.inputs)), tuple(map(spec, model.graph.outputs)))


def saved(model: ir.Model, path: Path, name: str = "model") -> Graph:
    """Save a model and return the `Graph` that names the file."""
    save(model, path)
    return Graph(name, path, signature(model))


def release(model: ir.Model) -> None:
    """Let go of a saved model's weights, which would stay: graphs refer to their nodes and back."""
    for value in model.graph.initializers.values():
        value.const_value = None


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return the array of an initializer or a `Constant` node's output, or None for anything else."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    node = value.producer()
    if node is not None and node.op_type == "Constant" and "value" in node.attributes:
        return node.attributes["value"].as_tensor().numpy()
    return None


def add_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Add an initializer, not copied, under a name that is not taken yet, and return its value."""
    unique, number = name, 1
    while unique in graph.initializers:
        number += 1
        unique = f"{name}_{number}"
    tensor = ir.tensor(np.asarray(array, order="C"), name=unique)
    value = ir.Value(
        name=unique, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype)
    )
    graph.register_initializer(value)
    return value


def consumers(value: ir.Value) -> list[ir.Node]:
    """Return the nodes that read a value, each once, in the order of use."""
    return list(dict.fromkeys(use.node for use in value.uses()))


def nodes(graph: ir.Graph, *op_types: str) -> Iterator[ir.Node]:
    """Yield the graph's nodes of some op types (all where none is given), safe against edits on the way."""
    for node in list(graph):
        if not op_types or node.op_type in op_types:
            yield node


def replace_node(graph: ir.Graph, old: ir.Node, new: list[ir.Node]) -> None:
    """Put `new` in the place of a one-output node; the last new node's output takes the old one's name."""
    old_output, new_output = old.outputs[0], new[-1].outputs[0]
    new_output.name, new_output.shape, new_output.type = old_output.name, old_output.shape, old_output.type
    graph.insert_before(old, new)
    old_output.replace_all_uses_with(new_output, replace_graph_outputs=True)
    graph.remove(old, safe=True)


def forget_inner_shapes(model: ir.Model) -> None:
    """Drop the shapes of values that are neither input nor output; the runtime infers its own."""
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
                value.type = None


def remove_unused(model: ir.Model) -> None:
    """Drop nodes and initializers that no output needs."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
