"""Readable, repeatable names: nodes after their module, weights after their parameter, axes by meaning."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir
import torch

from edgekit.errors import ExportError

_SCOPES = "pkg.torch.onnx.name_scopes"
_NO_SCOPE = "_empty_nn_module_stack_from_metadata_hook"  # torch's word for "outside of every module"
# Wrappers keep the user's module in an attribute `model`, twice on the plain road.
_WRAPPER = re.compile(r"^(?:model(?:\.|$)){1,2}")
_SYMBOL = re.compile(r"[A-Za-z_]\w*")


def name_axes(model: ir.Model, axes: Mapping[str, Mapping[int, str]]) -> None:
    """Give the dynamic axes of the inputs their names, everywhere where they occur.

    Args:
        model: Its inputs have their final names.
        axes: Input name -> axis -> axis name.

    Raises:
        ExportError: An axis that has to vary is fixed in the graph, or two axes of different names turned
            out to be one.
    """
    names: dict[str, str] = {}
    for value in model.graph.inputs:
        for axis, name in axes.get(value.name or "", {}).items():
            dim = value.shape[axis] if value.shape is not None else None
            where = f"axis {axis} ('{name}') of input '{value.name}'"
            if isinstance(dim, int) or dim is None or dim.value is None:
                raise ExportError(
                    f"{where} has to vary, but the exported graph fixes it to {dim}",
                    "Look for a reshape, a comparison or a Python number that takes the size literally.",
                )
            if names.setdefault(dim.value, name) != name:
                raise ExportError(
                    f"{where} always equals the axis '{names[dim.value]}' here; they cannot vary apart",
                    "Give both the same name in the factory's dynamic axes.",
                )
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(dim, names) for dim in value.shape])


def _renamed(dim: int | ir.SymbolicDim, names: dict[str, str]) -> int | str | None:
    if isinstance(dim, int) or dim.value is None:
        return dim if isinstance(dim, int) else None
    if any(symbol not in names for symbol in _SYMBOL.findall(dim.value)):
        return None  # a size that only the run knows
    return _SYMBOL.sub(lambda found: names[found[0]], dim.value)


def name_weights(model: ir.Model, module: torch.nn.Module) -> None:
    """Name the initializers after the parameters they are; other constants are numbered by first use.

    The exporter transposes the weight of a linear layer and forgets its name: the module that the node came
    from says which it is, and the values prove it.
    """
    tensors = (
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    )
    parameters = {_WRAPPER.sub("", name): tensor for name, tensor in tensors}
    names: dict[ir.Value, str] = {}
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is not None and value.is_initializer() and value not in names:
                name = _parameter_name(value, node, parameters)
                names[value] = name if name and name not in names.values() else ""
    for index, value in enumerate(names):
        value.name = f"\0{index}"  # out of the way of the final names
    constants = 0
    for value, name in names.items():
        if not name:
            name, constants = f"constant_{constants}", constants + 1
        value.name = name
    order_weights(model)


def path_in_graph(path: str) -> str:
    """Return the name that a part of a loaded model has in its graph: its path without edgekit's wrappers."""
    return _WRAPPER.sub("", path)


def order_weights(model: ir.Model) -> None:
    """Put the initializers in the order of their first use."""
    used = [
        v for node in model.graph.all_nodes() for v in node.inputs if v is not None and v.is_initializer()
    ]
    ordered = list(dict.fromkeys(used))
    model.graph.initializers.clear()
    for value in ordered:
        model.graph.initializers[str(value.name)] = value


def _parameter_name(value: ir.Value, node: ir.Node, parameters: Mapping[str, torch.Tensor]) -> str:
    name = _WRAPPER.sub("", value.name or "")
    if name in parameters:
        return name
    scope = scope_of(node)
    guess = f"{scope}.weight" if scope else "weight"
    if guess not in parameters or value.const_value is None:
        return ""
    array, wanted = value.const_value.numpy(), parameters[guess].detach().numpy()
    same = array.shape in (wanted.shape, wanted.T.shape) and (
        np.array_equal(array, wanted.T) or np.array_equal(array, wanted)
    )
    return guess if same else ""


def name_nodes(model: ir.Model) -> None:
    """Name nodes `module.path/Op` and their outputs after them; graph inputs and outputs keep their names."""
    fixed = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    taken = Counter(value.name for value in _values(model) if id(value) in fixed or value.is_initializer())
    inner = [value for value in _values(model) if id(value) not in fixed and not value.is_initializer()]
    for index, value in enumerate(inner):
        value.name = f"\0{index}"
    used: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        base = f"{scope_of(node)}/{node.op_type}".removeprefix("/")
        used[base] += 1
        node.name = base if used[base] == 1 else f"{base}_{used[base]}"
        for index, value in enumerate(node.outputs):
            if id(value) in fixed or not value.name:
                continue
            name = f"{node.name}_output" if index == 0 else f"{node.name}_output_{index}"
            while taken[name]:
                name += "_"
            taken[name] += 1
            value.name = name


def scope_of(node: ir.Node) -> str:
    """Return the path of the module that a node came from, without edgekit's wrappers; empty if unknown."""
    try:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError):
        return ""
    paths = [scope for scope in scopes[:-1] if isinstance(scope, str) and scope and scope != _NO_SCOPE]
    return _WRAPPER.sub("", paths[-1]) if paths else ""


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """Yield every value once: inputs, initializers, and what nodes compute, subgraphs included."""
    yield from model.graph.inputs
    yield from (value for value in model.graph.initializers.values() if value not in model.graph.inputs)
    for node in model.graph.all_nodes():
        yield from node.outputs
        for attribute in node.attributes.values():
            for graph in _graphs(attribute):
                yield from graph.inputs
                yield from graph.initializers.values()


def _graphs(attribute: ir.Attr) -> Iterator[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        yield attribute.value
    elif attribute.type == ir.AttributeType.GRAPHS:
        yield from attribute.value
