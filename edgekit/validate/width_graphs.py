"""Parts of a transformer's layer as small quantized graphs, in the form that edgekit's own graphs have.

Weights are random: the time of a dense product does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.errors import ModelError
from edgekit.latency_table import TableRequest
from edgekit.profile import TargetProfile
from edgekit.quantize.insert import dequantized_weight, int32_bias, quantize_dequantize
from edgekit.quantize.schemes import ActivationScheme, quantize_product_weight

INPUT, OUTPUT = "x", "y"

_TANH = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu")
_RANGE = 4.0
"""Activations are held in codes from minus to plus this."""

_MASKED = -10_000.0


class Builder:
    """A graph in the making, its products quantized by a profile.

    Args:
        profile: The target: types, ranges, versions, rewrites.
        batch: Samples at once.
        sequence: Tokens of each.
        width: Columns of the input [batch * sequence, width].
    """

    def __init__(self, profile: TargetProfile, batch: int, sequence: int, width: int) -> None:
        self.profile, self.batch, self.sequence = profile, batch, sequence
        rules = profile.quantization
        self.scheme = ActivationScheme(rules.activation_type, rules.activation_symmetric)
        self.affine = self.scheme.affine(-_RANGE, _RANGE)
        self.input = ir.Value(
            name=INPUT, shape=ir.Shape([batch * sequence, width]), type=ir.TensorType(ir.DataType.FLOAT)
        )
        versions = {"": profile.onnx.opset}
        self.graph = ir.Graph([self.input], [], nodes=[], name="part", opset_imports=versions)
        self.rng = np.random.default_rng(0)
        self.made = 0

    def add(self, op: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        """Append a node and return its output."""
        self.made += 1
        node = ir.node(op, inputs, attributes or None, name=f"{op}_{self.made}")
        node.outputs[0].name = f"{op}_{self.made}_output"
        self.graph.append(node)
        return node.outputs[0]

    def constant(self, values: object, dtype: type = np.float32) -> ir.Value:
        """Add a constant."""
        return g.add_constant(self.graph, "constant", np.array(values, dtype))

    def held(self, value: ir.Value, low: float = -_RANGE) -> ir.Value:
        """Hold a value in 8 bits."""
        self.made += 1
        affine = self.scheme.affine(low, low + 2 * _RANGE)  # of the same scale, which biases are told in
        pair = quantize_dequantize(self.graph, value, affine, f"held_{self.made}")
        self.graph.extend(pair)
        return pair[-1].outputs[0]

    def product(self, held: ir.Value, inputs: int, outputs: int, *, bias: bool = True) -> ir.Value:
        """Multiply what is held in 8 bits, [rows, inputs], with a weight: float [rows, outputs]."""
        rules, self.made = self.profile.quantization, self.made + 1
        weight = self.rng.normal(0, inputs**-0.5, (inputs, outputs)).astype(np.float32)
        codes, scale = quantize_product_weight(
            weight, per_channel=rules.per_channel, saturation_safe=rules.reduce_range
        )
        # The bias is set below; until then its place is taken.
        operands = [held, held, held] if bias else [held, held]
        node = ir.node("Gemm", operands, name=f"Gemm_{self.made}")
        node.outputs[0].name = f"Gemm_{self.made}_output"
        self.graph.append(node)
        name = f"weight_{self.made}"
        node.replace_input_with(1, dequantized_weight(self.graph, node, codes, scale, 1, name))
        if bias:
            zeros = np.zeros(outputs, np.float32)
            int32_bias(self.graph, node, zeros, self.affine.scale, scale, f"bias_{self.made}")
        return node.outputs[0]

    def products(self, held: ir.Value, inputs: int, outputs: tuple[int, ...]) -> list[ir.Value]:
        """Multiply the same values with several weights, as one product where the profile packs them."""
        if len(outputs) == 1 or "packed-projections" not in self.profile.optimize.rewrites:
            return [self.product(held, inputs, count) for count in outputs]
        together = self.product(held, inputs, sum(outputs))
        self.made += 1
        node = ir.node(
            "Split", [together, self.constant(outputs, np.int64)], {"axis": 1}, num_outputs=len(outputs)
        )
        for index, value in enumerate(node.outputs):
            value.name = f"Split_{self.made}_{index}"
        self.graph.append(node)
        return list(node.outputs)

    def shaped(self, value: ir.Value, *shape: int) -> ir.Value:
        """Reshape a value."""
        return self.add("Reshape", value, self.constant(shape, np.int64))

    def finished(self, output: ir.Value) -> bytes:
        """Return the model with `output` as its result."""
        output.name = OUTPUT
        output.type = ir.TensorType(ir.DataType.FLOAT)
        self.graph.outputs.append(output)
        model = ir.Model(self.graph, ir_version=self.profile.onnx.ir_version)
        return ir.serde.serialize_model(model).SerializeToString()


Make = Callable[[Builder], ir.Value]
"""Adds a part to a graph and returns its output."""


def feed_forward(request: TableRequest, neurons: int) -> Make:
    """Return a feed-forward block of so many neurons: both products, activation and gate."""

    def make(builder: Builder) -> ir.Value:
        widths = (neurons, neurons) if request.gated else (neurons,)
        first, *gated = builder.products(builder.held(builder.input), request.hidden, widths)
        lifted = activation(builder, first, request.activation)
        for other in gated:
            lifted = builder.add("Mul", lifted, other)
        # As calibration finds it: codes that begin at 0 make the Relu a part of the product before.
        low = 0.0 if request.activation == "relu" and not gated else -_RANGE
        return builder.product(builder.held(lifted, low), neurons, request.hidden)

    return make


def attention(request: TableRequest, heads: int) -> Make:
    """Return attention with so many heads: projections, scores, softmax, context and output projection."""

    def make(builder: Builder) -> ir.Value:
        batch, length, dim = builder.batch, builder.sequence, request.head_dim
        shared = heads // request.kv_share
        wide, narrow = heads * dim, shared * dim
        held = builder.held(builder.input)
        query, key, value = builder.products(held, request.hidden, (wide, narrow, narrow))

        def by_head(rows: ir.Value, count: int) -> ir.Value:
            split = builder.add(
                "Transpose", builder.shaped(rows, batch, length, count, dim), perm=[0, 2, 1, 3]
            )
            if count == heads:
                return split
            apart = builder.shaped(split, batch, count, 1, length, dim)
            target = builder.constant([batch, count, request.kv_share, length, dim], np.int64)
            return builder.shaped(builder.add("Expand", apart, target), batch, heads, length, dim)

        turned = builder.add("Transpose", by_head(key, shared), perm=[0, 1, 3, 2])
        scores = builder.add("MatMul", by_head(query, heads), turned)
        scaled = builder.add("Mul", scores, builder.constant(dim**-0.5))
        # Zeros alone would be taken away, so the last token is padding.
        mask = builder.constant([[[[0.0] * (length - 1) + [_MASKED]]]])
        chances = builder.add("Softmax", builder.add("Add", scaled, mask), axis=-1)
        context = builder.add("MatMul", chances, by_head(value, shared))
        rows = builder.shaped(builder.add("Transpose", context, perm=[0, 2, 1, 3]), batch * length, wide)
        return builder.product(builder.held(rows), wide, request.hidden)

    return make


def pair(inputs: int, rank: int, outputs: int) -> Make:
    """Return a matrix product as two of a rank, or, with rank 0, as the one whole product."""

    def make(builder: Builder) -> ir.Value:
        held = builder.held(builder.input)
        if not rank:
            return builder.product(held, inputs, outputs)
        narrow = builder.product(held, inputs, rank, bias=False)
        return builder.product(builder.held(narrow), rank, outputs)

    return make


def activation(builder: Builder, value: ir.Value, name: str) -> ir.Value:
    """Append an activation by the name that transformers gives it.

    Raises:
        ModelError: It is not known here.
    """
    if name in ("silu", "swish"):
        return builder.add("Mul", value, builder.add("Sigmoid", value))
    if name in ("relu", "tanh", "sigmoid"):
        return builder.add(name.capitalize(), value)
    if name not in ("gelu", *_TANH):
        raise ModelError(
            f"the activation {name!r} cannot be timed",
            f"Known are: gelu, relu, sigmoid, silu, swish, tanh, {', '.join(_TANH)}.",
        )
    if builder.profile.onnx.opset >= 20:
        return builder.add("Gelu", value, approximate="tanh" if name in _TANH else "none")
    error = builder.add("Erf", builder.add("Mul", value, builder.constant(2**-0.5)))
    whole = builder.add("Add", error, builder.constant(1.0))
    return builder.add("Mul", builder.add("Mul", value, builder.constant(0.5)), whole)
