"""What each kernel is for, and why it is float, or why it converts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from edgekit.record import Skip
from edgekit.validate.explanation.multiply_adds import (
    INT8_PRODUCTS,
    PRODUCTS,
    RECURRENT,
    multiply_adds,
    weight_index,
)
from edgekit.validate.explanation.record import ExplainedNode, Role
from edgekit.validate.explanation.trace import Kernel, Typed

_QUANTIZE = ("QuantizeLinear", "DynamicQuantizeLinear")
_FLOATS = ("float", "float16", "bfloat16", "double")
_CODES = ("uint8", "int8")

_MOVES = frozenset(
    {
        *("Reshape", "Transpose", "Split", "Concat", "Slice", "Gather", "GatherND", "GatherElements", "Tile"),
        *("Squeeze", "Unsqueeze", "Expand", "Flatten", "Identity", "Pad", "ReorderInput", "ReorderOutput"),
    }
)
_HAS_INT8_FORM = frozenset(
    {
        *("Add", "Mul", "Sigmoid", "LeakyRelu", "AveragePool", "GlobalAveragePool", "MaxPool", "Softmax"),
        *("Where", "ReduceMean", "Relu", "Clip"),
    }
)
"""Float ops that ONNX Runtime can run on codes when all their neighbours are quantized.

Source: onnxruntime docs/ContribOperators.md (QLinear*) and core/optimizer/qdq_transformer.
"""

ACTIVATIONS_ONLY = "both inputs are activations: there is no constant weight to quantize"
FLOAT_GRAPH = "the package holds the float graph: nothing in it is quantized"


@dataclass(frozen=True)
class Wiring:
    """Who makes and who reads each value of the optimized graph.

    Attributes:
        constants: Names of the values that are stored in the file.
        producers: Value -> node that makes it.
        readers: Value -> nodes that read it.
        outputs: Names of the graph's outputs.
    """

    constants: frozenset[str]
    producers: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, tuple[onnx.NodeProto, ...]]
    outputs: frozenset[str]

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> Wiring:
        """Read the wiring of a graph."""
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                readers.setdefault(name, []).append(node)
        return cls(
            frozenset(tensor.name for tensor in graph.initializer),
            {name: node for node in graph.node for name in node.output},
            {name: tuple(found) for name, found in readers.items()},
            frozenset(value.name for value in graph.output),
        )

    def is_constant(self, name: str) -> bool:
        """Return whether a value is stored in the file, as it is or as codes."""
        if name in self.constants:
            return True
        maker = self.producers.get(name)
        return maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in self.constants

    def maker(self, node: onnx.NodeProto, index: int) -> str:
        """Return the op type that makes an input, or an empty string."""
        name = node.input[index] if len(node.input) > index else ""
        return self.producers[name].op_type if name in self.producers else ""

    def origin(self, name: str) -> onnx.NodeProto | None:
        """Return the node that computes a value, past those that only move it."""
        maker = self.producers.get(name)
        while maker is not None and maker.op_type in _MOVES:
            maker = self.producers.get(maker.input[0])
        return maker

    def users(self, name: str) -> list[onnx.NodeProto]:
        """Return the nodes that compute with a value, past those that only move it."""
        found: list[onnx.NodeProto] = []
        for reader in self.readers.get(name, ()):
            found += self.users(reader.output[0]) if reader.op_type in _MOVES else [reader]
        return found

    @property
    def quantized(self) -> bool:
        """Whether anything in the graph is in 8 bits."""
        return any(n.op_type in INT8_PRODUCTS or n.op_type in _QUANTIZE for n in self.producers.values())


def explained(kernel: Kernel, wiring: Wiring, skips: Sequence[Skip]) -> ExplainedNode:
    """Return what a kernel is for and why, without its time.

    Args:
        kernel: What ran.
        wiring: Of the optimized graph.
        skips: What quantization left alone, and why.
    """
    weight_macs, activation_macs, int8_macs = _macs(kernel, wiring)
    role = _role(kernel, weight_macs + activation_macs)
    why, needed = "", None
    if role in ("quantize", "dequantize"):
        why, needed = _conversion(kernel, wiring, role)
    elif role == "smoothing":
        why = "scales the channels of an activation before it is quantized"
    elif role == "float product":
        why = _why_float_product(kernel, wiring, skips)
    elif role == "float op":
        why = _why_float_op(kernel, wiring, skips)
    return ExplainedNode(
        name=kernel.name,
        op=kernel.op,
        role=role,
        types=_types(kernel),
        shape=_shape(kernel),
        weight_macs=weight_macs,
        activation_macs=activation_macs,
        int8_macs=int8_macs,
        why=why,
        needed=needed,
    )


def attributes_of(node: onnx.NodeProto | None) -> dict[str, Any]:
    """Return a node's attributes by name."""
    return {} if node is None else {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _macs(kernel: Kernel, wiring: Wiring) -> tuple[int, int, int]:
    """Return multiply-adds with weights, between activations, and in int8."""
    if not kernel.outputs:
        return 0, 0, 0
    shapes = [shape for _, shape in kernel.inputs]
    direct, inside = multiply_adds(kernel.op, attributes_of(kernel.node), shapes, kernel.outputs[0][1])
    int8 = direct if kernel.op in INT8_PRODUCTS else 0
    operands = kernel.node.input if kernel.node is not None else ()
    at = weight_index(kernel.op)
    named = [operands[index] for index in (0, at) if index < len(operands)]
    if kernel.op in RECURRENT or any(wiring.is_constant(name) for name in named):
        return direct, inside, int8
    return 0, direct + inside, int8


def _role(kernel: Kernel, macs: int) -> Role:
    if kernel.op in _QUANTIZE:
        return "quantize"
    if kernel.op == "DequantizeLinear":
        return "dequantize"
    if macs or kernel.op in PRODUCTS:
        return "int8 product" if kernel.op in INT8_PRODUCTS else "float product"
    if kernel.op == "Mul" and kernel.name.endswith("_smooth"):  # as edgekit.quantize names them
        return "smoothing"
    kinds = [kind for kind, _ in kernel.outputs]
    if any(kind in _CODES for kind in kinds):
        return "int8 op"
    return "float op" if any(kind in _FLOATS for kind in kinds) else "index op"


def _conversion(kernel: Kernel, wiring: Wiring, role: Role) -> tuple[str, bool | None]:
    """Return what a Q or DQ is there for, and whether an int8 kernel needs it."""
    node = kernel.node
    if node is None:
        return "in a subgraph", None
    users = wiring.users(node.output[0])
    ops = sorted({user.op_type for user in users})
    if role == "quantize":
        used = [op for op in ops if op != "DequantizeLinear"]
        if used:
            return f"makes codes for {', '.join(used)}", True
        if not users:
            return "the graph's output is in 8 bits", True
        after = sorted({reader.op_type for user in users for reader in wiring.users(user.output[0])})
        return f"left over: only rounds a float value, which {_listed(after)} at once again as float", False
    maker = wiring.origin(node.input[0])
    source = maker.op_type if maker is not None else ""
    if node.input[0] in wiring.constants:
        return (
            f"left over: a stored weight is made float on every run, since {_listed(ops)} it as float",
            False,
        )
    if source in _QUANTIZE:
        return f"left over: undoes a {source}, since {_listed(ops)} it as float", False
    return f"leads from 8-bit {source or 'input'} to float {', '.join(ops) or 'output'}", True


def _listed(ops: Sequence[str]) -> str:
    return f"{', '.join(ops)} {'read' if len(ops) > 1 else 'reads'}" if ops else "the output takes"


def _why_float_product(kernel: Kernel, wiring: Wiring, skips: Sequence[Skip]) -> str:
    recorded = _recorded(kernel.name, skips)
    if recorded:
        return recorded
    if not wiring.quantized:
        return FLOAT_GRAPH
    if kernel.op == "MatMulNBits":
        return "the runtime made a weight-only kernel of it: its activation is not quantized"
    node = kernel.node
    if node is None:
        return "it is in a subgraph, which quantization leaves alone"
    at = weight_index(kernel.op)
    sources = [wiring.maker(node, 0), wiring.maker(node, at)]
    if sources == ["DequantizeLinear"] * 2:
        return _why_not_fused(kernel, node, wiring)
    if len(node.input) > at and not any(wiring.is_constant(node.input[index]) for index in (0, at)):
        return ACTIVATIONS_ONLY
    if sources[1] == "DequantizeLinear":
        return "its weight is in 8 bits, but its activation is not quantized"
    if sources[0] == "DequantizeLinear":
        return "its activation is in 8 bits, but its weight is float"
    return "its weight is float in the package, and the package does not say why"


def _why_not_fused(kernel: Kernel, node: onnx.NodeProto, wiring: Wiring) -> str:
    """Return why DequantizeLinear, product and QuantizeLinear did not become one int8 kernel.

    Source: onnxruntime core/optimizer/qdq_transformer/selectors_actions/qdq_selectors.cc.
    """
    left = "the runtime left it between DequantizeLinear nodes"
    makers = [wiring.producers[node.input[index]] for index in (0, weight_index(kernel.op))]
    shared = [m for m in makers[:1] if len(wiring.readers.get(m.output[0], ())) > 1]
    bias = kernel.op in ("Gemm", "FusedGemm", "Conv", "FusedConv") and len(node.input) > 2
    if bias and node.input[2] and wiring.maker(node, 2) != "DequantizeLinear":
        return f"{left}: its bias is float, and the int8 kernel adds an int32 bias"
    if kernel.op.startswith("Fused") and kernel.op != "FusedMatMul":
        return f"{left}: it was first fused with the activation function behind it"
    if kernel.op in ("Conv", "FusedConv"):
        return f"{left}: an int8 convolution needs a QuantizeLinear behind it"
    if shared:
        return f"{left}: other nodes read the same DequantizeLinear"
    return f"{left}: these types or attributes have no int8 kernel"


def _why_float_op(kernel: Kernel, wiring: Wiring, skips: Sequence[Skip]) -> str:
    recorded = _recorded(kernel.name, skips)
    if recorded:
        return recorded
    if not wiring.quantized:
        return FLOAT_GRAPH
    if kernel.op in _MOVES:
        return "moves float values, computes nothing"
    if kernel.op in _HAS_INT8_FORM:
        return "lies between float values: in 8 bits it would need conversions of its own"
    if kernel.op == "Cast":
        return "turns stored codes or masks into float"
    return "ONNX Runtime has no int8 kernel for it"


def _recorded(name: str, skips: Sequence[Skip]) -> str:
    """Return the recorded reason for the node whose name this is, or begins with where ops were fused."""
    best, why = "", ""
    for skip in skips:
        _, _, node = skip.what.partition(" ")
        if len(node) > len(best) and re.match(re.escape(node) + r"(/|$)", name):
            best, why = node, skip.why
    return why


def _operands(kernel: Kernel) -> list[Typed]:
    """Return the factors of a product, or the first output of another node."""
    if kernel.op not in PRODUCTS:
        return list(kernel.outputs[:1])
    places = (0, weight_index(kernel.op))
    return [kernel.inputs[at] for at in places if at < len(kernel.inputs)]


def _types(kernel: Kernel) -> str:
    return " · ".join(kind for kind, _ in _operands(kernel))


def _shape(kernel: Kernel) -> str:
    return " · ".join("x".join(map(str, shape)) for _, shape in _operands(kernel))
