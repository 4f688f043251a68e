"""Which nodes an execution provider of a phone would take: predicted from the runtime's own lists, not run.

XNNPACK, NNAPI and CoreML do not run here. Their lists of operators, and the rules in their sources that
decide about quantized nodes, say which nodes they would leave to the CPU; each such node comes with its
reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import TensorProto

from edgekit.errors import MachineError, ModelError
from edgekit.runtime import import_onnxruntime

Provider = Literal["xnnpack", "nnapi", "coreml"]

PROVIDERS: dict[Provider, str] = {
    "xnnpack": "XNNPACK: float and int8 kernels for the CPU, Android and iOS",
    "nnapi": "NNAPI: Android's accelerators; deprecated by Android 15",
    "coreml": "CoreML (ML Program): Apple's GPU and Neural Engine, 16-bit float inside",
}

_XNNPACK: dict[str, str] = {
    "AveragePool": "Only 2D Pool is supported.",
    "Conv": "Only 2D Conv is supported. Weights and bias should be constant.",
    "ConvTranspose": "Only 2D ConvTranspose is supported. Weights and bias should be constant.",
    "MaxPool": "Only 2D Pool is supported.",
    "Softmax": "Only the last axis.",
    "Resize": "Only 2D/4D in bilinear mode.",
    "Gemm": "Only 2D.",
    "MatMul": "Only 2D.",
}
"""The wheel has no list of these.

Source: onnxruntime docs/execution-providers/Xnnpack-ExecutionProvider.md, Supported ops.
"""

_LISTS: dict[Provider, str] = {
    "nnapi": "nnapi_supported_ops.md",
    "coreml": "coreml_supported_mlprogram_ops.md",
}
"""Files of `onnxruntime.tools.mobile_helpers`: the lists of the installed release."""

_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
_NO_WORK = ("Constant",)


@dataclass(frozen=True)
class LeftToCpu:
    """Nodes that a provider would leave to the CPU, for one reason.

    Attributes:
        op: Operator.
        why: The reason.
        nodes: Their names.
    """

    op: str
    why: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Coverage:
    """What a provider would take of a graph; predicted, not verified.

    Attributes:
        provider: `xnnpack`, `nnapi` or `coreml`.
        nodes: Nodes of the graph that do work; Q/DQ pairs around a node count with it, not by themselves.
        taken: How many of them the provider would take.
        switches: How often a run would change between provider and CPU, in the order of the nodes.
        left: The others, by reason, the commonest first.
    """

    provider: Provider
    nodes: int
    taken: int
    switches: int
    left: tuple[LeftToCpu, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as JSON values."""
        return {**asdict(self), "status": "predicted"}


def predict_coverage(path: Path, provider: Provider) -> Coverage:
    """Predict which nodes of a graph a provider would take.

    Args:
        path: The ONNX file.
        provider: Whose rules.

    Raises:
        ModelError: The file is not an ONNX model.
        MachineError: The installed ONNX Runtime has no list for the provider.
    """
    try:
        model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
    except Exception as error:  # protobuf and onnx raise families of their own
        raise ModelError(f"{path} is not an ONNX model: {error}") from None
    listed = _XNNPACK if provider == "xnnpack" else _read_list(provider)
    reader = _Reader(model.graph)
    fates = [
        (node, _why_left(node, provider, listed, reader))
        for node in model.graph.node
        if node.op_type not in _CONVERSIONS + _NO_WORK
    ]
    groups: dict[tuple[str, str], list[str]] = {}
    for node, why in fates:
        if why:
            groups.setdefault((node.op_type, why), []).append(node.name or node.output[0])
    left = [LeftToCpu(op, why, tuple(names)) for (op, why), names in groups.items()]
    switches = sum(bool(a[1]) != bool(b[1]) for a, b in pairwise(fates))
    taken = sum(not why for _, why in fates)
    left.sort(key=lambda group: -len(group.nodes))
    return Coverage(provider, len(fates), taken, switches, tuple(left))


class _Reader:
    """What a rule asks of a graph: shapes, constants, types behind a DequantizeLinear."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {name: node for node in graph.node for name in node.output}
        values = (*graph.value_info, *graph.input, *graph.output)
        self.types: Mapping[str, onnx.TypeProto.Tensor] = {v.name: v.type.tensor_type for v in values}

    def shape(self, name: str) -> list[int | None] | None:
        """Return the dimensions, None for a free one; None where the rank is not known."""
        if name in self.constants:
            return list(self.constants[name].dims)
        found = self.types.get(name)
        if found is None or not found.HasField("shape"):
            return None
        return [d.dim_value if d.HasField("dim_value") else None for d in found.shape.dim]

    def code_type(self, name: str) -> int | None:
        """Return the element type of the codes that a tensor was dequantized from; None for a float one."""
        producer = self.producers.get(name)
        if producer is None or producer.op_type != "DequantizeLinear":
            return None
        codes = producer.input[0]
        if codes in self.constants:
            return int(self.constants[codes].data_type)
        behind = self.producers.get(codes)
        if behind is not None and behind.op_type == "QuantizeLinear" and len(behind.input) > 2:
            zero_point = self.constants.get(behind.input[2])
            return int(zero_point.data_type) if zero_point is not None else None
        return int(self.types[codes].elem_type) if codes in self.types else None

    def is_constant(self, name: str) -> bool:
        """Return whether a tensor is stored in the file, dequantized or not."""
        producer = self.producers.get(name)
        if producer is not None and producer.op_type in ("DequantizeLinear", "Constant"):
            return producer.op_type == "Constant" or producer.input[0] in self.constants
        return name in self.constants


def _why_left(node: onnx.NodeProto, provider: Provider, listed: Mapping[str, str], reader: _Reader) -> str:
    """Return why a provider leaves a node to the CPU; empty where it takes it."""
    name = {"coreml": {"ArgMax": "Argmax"}}.get(provider, {}).get(node.op_type, node.op_type)
    if node.domain not in ("", "ai.onnx") or name not in listed:
        return "the operator is not in the provider's list"
    rules = {"xnnpack": _why_not_xnnpack, "nnapi": _why_not_nnapi, "coreml": _why_not_coreml}
    return rules[provider](node, reader)


def _why_not_xnnpack(node: onnx.NodeProto, reader: _Reader) -> str:
    """Source: onnxruntime core/providers/xnnpack: nn/conv_base.cc, math/gemm.cc, math/matmul.cc."""
    shape = reader.shape(node.input[0])
    if node.op_type in ("Conv", "ConvTranspose", "AveragePool", "MaxPool", "Resize"):
        if shape is None or len(shape) != 4:
            return "only two-dimensional images are taken"
        if None in shape[1:]:
            return "channels, height and width have to be fixed"
    if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        if not all(reader.is_constant(name) for name in node.input[1:] if name):
            return "weight and bias have to be constant"
        activation, weight = reader.code_type(node.input[0]), reader.code_type(node.input[1])
        if node.op_type in ("Gemm", "MatMul") and (activation is not None or weight is not None):
            return "int8 products are not taken, only convolutions"
        if activation == TensorProto.UINT8 and weight == TensorProto.INT8:
            return "uint8 activations with int8 weights are refused"
    if node.op_type in ("Gemm", "MatMul") and (shape is None or len(shape) != 2):
        return "only two-dimensional products are taken"
    if node.op_type == "Softmax":
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
        if shape is None or axis not in (-1, len(shape) - 1):
            return "only the last axis is taken"
    return ""


def _why_not_nnapi(node: onnx.NodeProto, reader: _Reader) -> str:
    """Source: onnxruntime core/providers/nnapi/nnapi_builtin/builders/helper.cc, base_op_builder.cc."""
    for name in (*node.input, *node.output):
        shape = reader.shape(name) if name else []
        if shape is None or None in shape:
            return "every dimension has to be fixed"
    if reader.code_type(node.input[0]) == TensorProto.INT8:
        return "int8 activations are refused, only uint8 ones are taken"
    if node.op_type == "Conv" and len(reader.shape(node.input[0]) or ()) != 4:
        return "only two-dimensional convolutions are taken"
    if node.op_type == "Gather" and _is_int64(node.input[1], reader):
        return "indices have to be constant or int32"
    return ""


def _why_not_coreml(node: onnx.NodeProto, reader: _Reader) -> str:
    """Source: onnxruntime tools/mobile_helpers/coreml_supported_mlprogram_ops.md: there is no Q/DQ in it."""
    if any(reader.code_type(name) is not None for name in node.input if name):
        return "its inputs are dequantized, and the provider has no QuantizeLinear or DequantizeLinear"
    if node.op_type in ("Gemm", "Conv", "ConvTranspose") and not reader.is_constant(node.input[1]):
        return "the weight has to be constant"
    return ""


def _is_int64(name: str, reader: _Reader) -> bool:
    return not reader.is_constant(name) and reader.types[name].elem_type == TensorProto.INT64


def _read_list(provider: Provider) -> dict[str, str]:
    """Return operator -> note of a list that comes with the installed runtime."""
    ort = import_onnxruntime()
    path = Path(ort.__file__).parent / "tools" / "mobile_helpers" / _LISTS[provider]
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        raise MachineError(
            f"the installed ONNX Runtime {ort.__version__} has no list of the operators of {provider}",
            "Install the onnxruntime package from PyPI; other builds may leave it out.",
        ) from None
    rows = re.findall(r"^\|ai\.onnx:(\w+)\|(.*?)\|", text, re.MULTILINE)
    return {op: note.replace("<br/>", " ") for op, note in rows}
