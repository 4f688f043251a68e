"""One form for every exported graph: readable names, no trace of the machine, the same bytes always."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

import edgekit
from edgekit.errors import ExportError
from edgekit.model import TorchModel
from edgekit.to_onnx.naming import name_axes, name_nodes, name_weights, order_weights

GRAPH_NAME = "model"


def canonicalize(model: ir.Model, source: TorchModel, *, opset: int, ir_version: int) -> None:
    """Bring a freshly exported graph into canonical form, in place.

    Inputs and outputs are those of `source`, in its order; functions are inlined; nodes, weights and axes
    have readable names; metadata, doc strings and unused parts are gone; shapes are what ONNX infers.

    Args:
        model: What an exporter made of `source`.
        source: Gives the names and the axes.
        opset: Version of the default operator set.
        ir_version: Version of the file format.

    Raises:
        ExportError: Inputs or outputs are missing, the operator set is another, or an axis is fixed.
    """
    _inline(model)
    _order_inputs(model, source)
    _order_outputs(model, source)
    _set_versions(model, opset, ir_version)
    _remove_unused(model)
    name_axes(model, source.dynamic_axes)
    name_weights(model, source.module)
    name_nodes(model)
    _strip(model)
    _infer_shapes(model)
    model.producer_name, model.producer_version = "edgekit", edgekit.__version__
    model.domain = model.doc_string = None
    model.graph.name = GRAPH_NAME


def _inline(model: ir.Model) -> None:
    common.InlinePass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.LiftSubgraphInitializersToMainGraphPass()(model)


def _order_inputs(model: ir.Model, source: TorchModel) -> None:
    by_name = {value.name: value for value in model.graph.inputs}
    missing = [name for name in source.input_names if name not in by_name]
    if missing or len(by_name) != len(source.input_names):
        raise ExportError(
            f"the exported graph has the inputs {', '.join(map(str, by_name))}; "
            f"the model takes {', '.join(source.input_names)}"
        )
    model.graph.inputs[:] = [by_name[name] for name in source.input_names]


def _order_outputs(model: ir.Model, source: TorchModel) -> None:
    outputs = list(model.graph.outputs)
    if len(outputs) != len(source.output_names):
        raise ExportError(
            f"the exported graph has {len(outputs)} outputs; the model gives {', '.join(source.output_names)}"
        )
    by_name = {value.name: value for value in outputs}
    if set(by_name) == set(source.output_names):
        outputs = [by_name[name] for name in source.output_names]
    for index, (value, name) in enumerate(zip(outputs, source.output_names, strict=True)):
        if value.is_graph_input() or value.is_initializer() or value in outputs[:index]:
            # An output needs a name of its own, which this value cannot have.
            node = ir.node("Identity", [value])
            node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
            model.graph.append(node)
            outputs[index] = node.outputs[0]
        outputs[index].name = name if name not in source.input_names else f"{name}_output"
    model.graph.outputs[:] = outputs


def _set_versions(model: ir.Model, opset: int, ir_version: int) -> None:
    made = model.opset_imports.get("")
    if made != opset:
        raise ExportError(
            f"the exporter made operator set {made} where the target asks for {opset}",
            "Choose a target with another opset, or install the torch and onnxscript that support it.",
        )
    model.ir_version = ir_version


def _remove_unused(model: ir.Model) -> None:
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)


def _strip(model: ir.Model) -> None:
    common.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values(), *model.graph.outputs):
        value.metadata_props.clear()
        value.doc_string = None
    for node in model.graph.all_nodes():
        node.doc_string = None
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
            value.doc_string = None


def _infer_shapes(model: ir.Model) -> None:
    """Replace the exporter's shapes of inner values, which can contradict ONNX's own, by what ONNX infers."""
    ends = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if id(value) not in ends:
                value.shape = None
    common.ShapeInferencePass()(model)
    order_weights(model)  # the pass takes large ones out and puts them back at the end
