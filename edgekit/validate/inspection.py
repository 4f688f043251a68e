"""What is in an ONNX file: signature, operators, how much of it is quantized, sizes.

Nothing is run and no weight outside the file is read; a file that points outside its folder is refused.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from edgekit.errors import ModelError
from edgekit.model import Signature, TensorSpec
from edgekit.store import deflated_bytes
from edgekit.validate.external_data import external_files

_WEIGHT_INPUT = {"MatMul": 1, "Gemm": 1, "Conv": 1, "ConvTranspose": 1}
"""Ops that have a weight, and the input that it is."""

_QUANTIZED_WEIGHT_INPUT = {
    "ConvInteger": 1,
    "DynamicQuantizeMatMul": 1,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "MatMulNBits": 1,
    "QGemm": 3,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
}
"""Ops whose weight is integers by definition.

Source: onnxruntime docs/ContribOperators.md and the ONNX operator specification.
"""

_VIEWS = {"Transpose", "Reshape", "Cast", "Identity", "Squeeze", "Unsqueeze"}
"""Ops that a weight may pass on its way and is still the same constant."""

_INTEGER_WEIGHTS = {"int8", "uint8", "int4", "uint4"}
_FLOAT_WEIGHTS = {"float32", "float16", "bfloat16", "float64"}


@dataclass(frozen=True)
class Inspection:
    """What is in an ONNX file.

    Attributes:
        path: The file.
        signature: Inputs and outputs of the graph.
        ir_version: Version of the file format.
        opsets: Operator set -> version; the default one is called `ai.onnx`.
        producer: Name and version of what wrote the file; empty where it does not say.
        ops: Op type -> count, most frequent first, those in subgraphs and functions
            included; `domain.Op` outside `ai.onnx`.
        weighted_layers: Op type -> (layers whose weight is 8-bit or smaller, layers with constant weights).
        parameters: Elements of all weights (floats and 4- or 8-bit integers; no shapes or indices); a byte
            with two codes of an embedding table is two.
        quantized_parameters: Elements stored as 4- or 8-bit integers.
        bytes_by_dtype: Type name -> bytes of constants of that type, largest first.
        external_files: Names of the files beside it that hold weights.
        file_bytes: Size on disk, external files included.
        compressed_bytes: Size as deflated archive members, what a download weighs.
    """

    path: Path
    signature: Signature
    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    ops: Mapping[str, int]
    weighted_layers: Mapping[str, tuple[int, int]]
    parameters: int
    quantized_parameters: int
    bytes_by_dtype: Mapping[str, int]
    external_files: tuple[str, ...]
    file_bytes: int
    compressed_bytes: int

    @property
    def quantized_layer_share(self) -> float | None:
        """Share of the layers with constant weights that hold them as integers; None where there are none."""
        total = sum(count for _, count in self.weighted_layers.values())
        return sum(count for count, _ in self.weighted_layers.values()) / total if total else None

    @property
    def quantized_parameter_share(self) -> float | None:
        """Share of the weights' elements stored as integers; None where there are no weights."""
        return self.quantized_parameters / self.parameters if self.parameters else None

    def to_json(self) -> dict[str, Any]:
        """Return the inspection as JSON values."""
        out = asdict(self)
        out["path"] = str(self.path)
        out["signature"] = self.signature.to_json()
        out["weighted_layers"] = {
            op: {"quantized": quantized, "total": total}
            for op, (quantized, total) in self.weighted_layers.items()
        }
        out["external_files"] = list(self.external_files)
        out["quantized_layer_share"] = self.quantized_layer_share
        out["quantized_parameter_share"] = self.quantized_parameter_share
        return out


def inspect_file(path: Path) -> Inspection:
    """Return what is in an ONNX file.

    Raises:
        ModelError: The file is missing, not ONNX, cut off, or keeps weights outside its folder.
    """
    return inspection_from_model(_read(path), path)


def inspection_from_model(model: onnx.ModelProto, path: Path) -> Inspection:
    """Return what is in a parsed model.

    Args:
        model: Parsed without loading external data.
        path: Its file, for sizes and external weights.

    Raises:
        ModelError: A weight is cut off, or kept outside the file's folder.
    """
    functions = (onnx.GraphProto(node=function.node) for function in model.functions)
    graphs = [inner for graph in (model.graph, *functions) for inner in _graphs(graph)]
    tensors = [tensor for graph in graphs for tensor in _tensors(graph)]
    external = external_files(tensors, path)
    elements: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    packed = {name for graph in graphs for name in _packed_tables(graph)}
    for tensor in tensors:
        name = _dtype_name(tensor.data_type)
        count = math.prod(max(size, 0) for size in tensor.dims)
        elements[name] += 2 * count if tensor.name in packed else count
        sizes[name] += _tensor_bytes(tensor, count, path)
    integer = sum(elements[name] for name in _INTEGER_WEIGHTS)
    files = (path, *(path.parent / name for name in external))
    return Inspection(
        path=path,
        signature=_signature(model.graph),
        ir_version=model.ir_version,
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        ops=dict(Counter(_op_name(node) for graph in graphs for node in graph.node).most_common()),
        weighted_layers=_weighted_layers(graphs),
        parameters=integer + sum(elements[name] for name in _FLOAT_WEIGHTS),
        quantized_parameters=integer,
        bytes_by_dtype=dict(sizes.most_common()),
        external_files=external,
        file_bytes=sum(file.stat().st_size for file in files),
        compressed_bytes=sum(deflated_bytes(file) for file in files),
    )


def _read(path: Path) -> onnx.ModelProto:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    if content[4:8] == b"ORTM":  # Source: onnxruntime core/flatbuffers/schema/ort.fbs, file_identifier
        raise ModelError(
            f"{path} is in the ORT format, which only the runtime reads",
            "Inspect the .onnx file it was made from.",
        )
    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # the parser of protobuf has errors of its own
        raise ModelError(f"{path} is not an ONNX file, or is cut off") from None
    if not model.ir_version or not model.graph.output:
        raise ModelError(f"{path} is not an ONNX file, or is cut off: it holds no graph with outputs")
    return model


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and every graph inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _packed_tables(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the constants that hold two 4-bit codes in each byte: their rows are read and then shifted."""
    shifted = {node.input[0] for node in graph.node if node.op_type == "BitShift"}
    for node in graph.node:
        if node.op_type == "Gather" and node.output[0] in shifted:
            yield node.input[0]


def _tensor_bytes(tensor: onnx.TensorProto, count: int, path: Path) -> int:
    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(len(item) for item in tensor.string_data)
    bits = _bits(tensor.data_type)
    size = (count * bits + 7) // 8
    inline = tensor.HasField("raw_data") and tensor.data_location != onnx.TensorProto.EXTERNAL
    if inline and bits and len(tensor.raw_data) != size:
        raise ModelError(
            f"{path}: weight '{tensor.name}' holds {len(tensor.raw_data)} bytes, its shape asks for {size}",
            "The file is damaged; get it again.",
        )
    return size


def _bits(data_type: int) -> int:
    name = _dtype_name(data_type)
    if name in ("int4", "uint4", "float4e2m1"):
        return 4
    if name in ("int2", "uint2"):
        return 2
    try:
        return 8 * onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize
    except (KeyError, TypeError):
        return 0


def _dtype_name(data_type: int) -> str:
    names = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.DOUBLE: "float64"}
    try:
        return names.get(data_type) or onnx.TensorProto.DataType.Name(data_type).lower()
    except ValueError:
        return f"type {data_type}"


def _op_name(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _signature(graph: onnx.GraphProto) -> Signature:
    constants = {tensor.name for tensor in graph.initializer}  # IR 3 lists them among the inputs

    def spec(value: onnx.ValueInfoProto) -> TensorSpec:
        kind = value.type.tensor_type
        dims = (
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim
        )
        return TensorSpec(value.name, _dtype_name(kind.elem_type), tuple(dims))

    return Signature(
        tuple(spec(value) for value in graph.input if value.name not in constants),
        tuple(spec(value) for value in graph.output),
    )


def _weighted_layers(graphs: list[onnx.GraphProto]) -> dict[str, tuple[int, int]]:
    """Count, per op type, the layers with constant weights and those of them that hold integers."""
    constants = {tensor.name for graph in graphs for tensor in graph.initializer}
    producers = {name: node for graph in graphs for node in graph.node for name in node.output}
    found: dict[str, list[int]] = {}
    for graph in graphs:
        for node in graph.node:
            index = _WEIGHT_INPUT.get(node.op_type, _QUANTIZED_WEIGHT_INPUT.get(node.op_type))
            if index is None or index >= len(node.input):
                continue
            origin = _weight_origin(node.input[index], constants, producers)
            if origin is None:
                continue
            counts = found.setdefault(_op_name(node), [0, 0])
            counts[0] += origin == "quantized" or node.op_type in _QUANTIZED_WEIGHT_INPUT
            counts[1] += 1
    return {op: (quantized, total) for op, (quantized, total) in sorted(found.items())}


def _weight_origin(name: str, constants: set[str], producers: Mapping[str, onnx.NodeProto]) -> str | None:
    """Return `quantized` or `float` for a constant weight, None for one that is computed."""
    origin = "float"
    for _ in range(len(producers) + 1):  # a damaged file may hold a circle
        if name in constants:
            return origin
        node = producers.get(name)
        if node is None:
            return None
        if node.op_type == "Constant":
            return origin
        if node.op_type == "DequantizeLinear":
            origin = "quantized"
        elif node.op_type == "QuantizeLinear":  # a float weight that is only quantized when it is loaded
            origin = "float"
        elif node.op_type not in _VIEWS:
            return None
        if not node.input:
            return None
        name = node.input[0]
    return None
