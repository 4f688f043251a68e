"""What each kernel is for, and why it is float, or why it converts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
from edgekit.validate.explanation.wiring import MOVES, QUANTIZE, Wiring

_FLOATS = ("float", "float16", "bfloat16", "double")
_CODES = ("uint8", "int8")

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
UNASKED = "was to stay float ({}), but the runtime quantizes its weight by itself"
"""ONNX Runtime does so to float weights between Q/DQ nodes.

Source: onnxruntime core/optimizer/qdq_transformer/weight_bias_quantization.h.
"""
FLOAT_GRAPH = "the package holds the float graph: nothing in it is quantized"


def explained(kernel: Kernel, wiring: Wiring, reasons: Mapping[str, str]) -> ExplainedNode:
    """Return what a kernel is for and why, without its time.

    Args:
        kernel: What ran.
        wiring: Of the optimized graph.
        reasons: Why nodes were left float, as `reasons_of` returns them.
    """
    weight_macs, activation_macs, int8_macs = _macs(kernel, wiring)
    role = _role(kernel, weight_macs + activation_macs)
    why, needed = "", None
    if role in ("quantize", "dequantize"):
        why, needed = _conversion(kernel, wiring, role)
    elif role == "smoothing":
        why = "scales the channels of an activation before it is quantized"
    elif role == "int8 product":
        recorded = _recorded(kernel, reasons)
        why = UNASKED.format(recorded) if recorded else ""
    elif role == "float product":
        why = _why_float_product(kernel, wiring, reasons)
    elif role == "float op":
        why = _why_float_op(kernel, wiring, reasons)
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
    if kernel.op in QUANTIZE:
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
    if source in QUANTIZE:
        return f"left over: undoes a {source}, since {_listed(ops)} it as float", False
    return f"leads from 8-bit {source or 'input'} to float {', '.join(ops) or 'output'}", True


def _listed(ops: Sequence[str]) -> str:
    return f"{', '.join(ops)} {'read' if len(ops) > 1 else 'reads'}" if ops else "the output takes"


def _why_float_product(kernel: Kernel, wiring: Wiring, reasons: Mapping[str, str]) -> str:
    recorded = _recorded(kernel, reasons)
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


def _why_float_op(kernel: Kernel, wiring: Wiring, reasons: Mapping[str, str]) -> str:
    if kernel.op in ("ReorderInput", "ReorderOutput"):
        return "changes the layout of float values for a float convolution"
    recorded = _recorded(kernel, reasons)
    if recorded:
        return recorded
    if not wiring.quantized:
        return FLOAT_GRAPH
    if kernel.op in MOVES:
        return "moves float values, computes nothing"
    if kernel.op in _HAS_INT8_FORM:
        return "lies between float values: in 8 bits it would need conversions of its own"
    if kernel.op == "Cast":
        return "turns stored codes or masks into float"
    return "ONNX Runtime has no int8 kernel for it"


def reasons_of(skips: Sequence[Skip], shipped: onnx.GraphProto) -> dict[str, str]:
    """Return the recorded reasons by every name that the runtime's fusions may keep of a node.

    Args:
        skips: What was left alone; `what` is an op type and a node's name.
        shipped: The graph as it is in the file, where a node and its name still stand together.
    """
    recorded = {skip.what.partition(" ")[2]: skip.why for skip in skips}
    readers = Wiring.of(shipped).readers
    found = dict(recorded)
    for node in shipped.node:
        if node.name not in recorded:
            continue
        found[node.output[0]] = recorded[node.name]
        behind = readers.get(node.output[0], ())
        if len(behind) == 1 and behind[0].op_type in ("Relu", "Clip"):  # fused into the node before it
            found[behind[0].output[0]] = recorded[node.name]
    return found


def _recorded(kernel: Kernel, reasons: Mapping[str, str]) -> str:
    """Return the recorded reason for a node, whose name fusions may have made longer."""
    outputs = kernel.node.output if kernel.node is not None else ()
    for name in (kernel.name, *outputs):
        known = re.sub(r"(_nchwc|_token_\d+)$", "", name)
        while known and known not in reasons:
            known = known.rpartition("/")[0]
        if known:
            return reasons[known]
    return ""


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
