"""How many multiply-adds a kernel does, from the shapes that it really saw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Shape = tuple[int, ...]

MATRIX_PRODUCTS = frozenset(
    {
        *("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulNBits", "GemmFloat8"),
        *("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm"),
    }
)
CONVOLUTIONS = frozenset({"Conv", "FusedConv", "ConvInteger", "QLinearConv", "NhwcFusedConv"})
ATTENTIONS = frozenset({"Attention", "QAttention"})
RECURRENT = frozenset({"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"})
PRODUCTS = MATRIX_PRODUCTS | CONVOLUTIONS | ATTENTIONS | RECURRENT | {"ConvTranspose", "MultiHeadAttention"}
"""Op types that do nearly all arithmetic of a network.

Source: onnxruntime docs/ContribOperators.md and the ONNX operator specification.
"""

INT8_PRODUCTS = frozenset(
    {
        *("QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
        *("QLinearConv", "ConvInteger", "QAttention", "DynamicQuantizeLSTM"),
    }
)
"""Of these, those that multiply 8-bit integers and add them in int32."""

_WEIGHT_AT_3 = ("QGemm", "QLinearMatMul", "QLinearConv")


def weight_index(op: str) -> int:
    """Return which input of a product is its weight; the activation is input 0."""
    return 3 if op in _WEIGHT_AT_3 else 1


def multiply_adds(
    op: str, attributes: Mapping[str, Any], inputs: Sequence[Shape], output: Shape
) -> tuple[int, int]:
    """Return (multiply-adds with the second operand, multiply-adds inside an attention).

    Args:
        op: Op type.
        attributes: The node's, by name.
        inputs: Shapes of the inputs that are there, in order.
        output: Shape of the first output.

    Returns:
        Channels that a kernel pads to its block size count, as it computes them too.
        Both 0 for an op that is no product, or whose shapes are not known.
    """
    if op not in PRODUCTS or not inputs:
        return 0, 0
    first = inputs[0]
    size = math.prod(output)
    weight = inputs[weight_index(op)] if len(inputs) > weight_index(op) else ()
    if op in MATRIX_PRODUCTS:
        return size * _inner(attributes, first), 0
    if op in CONVOLUTIONS:
        return size * math.prod(weight[1:]), 0
    if op == "ConvTranspose":
        return math.prod(first) * math.prod(weight[1:]), 0
    if op in ATTENTIONS and len(first) == 3:
        rows, length = first[0] * first[1], first[1]
        # Scores and their product with the values: each rows x length x hidden.
        return rows * math.prod(weight), 2 * rows * length * output[-1]
    if op == "MultiHeadAttention" and len(first) == 3 and len(weight) == 3:
        return 0, first[0] * first[1] * weight[1] * (first[2] + output[-1])
    if op in RECURRENT and len(inputs) > 2:
        return first[0] * first[1] * (math.prod(weight) + math.prod(inputs[2])), 0
    return 0, 0


def _inner(attributes: Mapping[str, Any], first: Shape) -> int:
    """Return the length of the sums of a matrix product whose first operand has a shape."""
    if not attributes.get("transA") or len(first) < 2:
        return first[-1] if first else 0
    return first[0] if attributes.get("transBatchA") else first[-2]
