"""Whether a place adds int8 products exactly, layer by layer: the sums themselves, held against int64.

Some CPUs add pairs of products in 16 bits and cut what does not fit. A score like cosine cannot tell that
from rounding, since int8 graphs amplify any last digit. So each weight is multiplied, where it will
run, with the activations that are worst for it, and every sum is compared as an integer.

A product runs as MatMulInteger, whose output is the sums. A convolution runs as QLinearConv, since the
runtime has kernels of its own for it; its sums never come out, so the exact ones are taken off as a bias, and
whatever is not zero then was wrong.

Source: ONNX operators MatMulInteger and QLinearConv; Intel intrinsics guide, VPMADDUBSW.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import ModelProto, helper, numpy_helper

from edgekit import graph as g
from edgekit.profile import TargetProfile
from edgekit.quantize.plan import transposed
from edgekit.quantize.schemes import pair_sums
from edgekit.record import Check
from edgekit.runners import Job, Runner
from edgekit.store import workspace

SAFE_PAIR_SUM = 128
"""The largest sum of two neighbouring codes of one sign that no uint8 activations push over 16 bits."""

_WORST_COLUMNS, _WORST_CHANNELS, _RANDOM_ROWS = 32, 2, 16
_OPSET, _IR_VERSION = 13, 7  # the oldest that every runtime reads and that has all of this

_QUANTIZED = ("MatMul", "Gemm", "Conv")
"""Ops that multiply codes where both factors come from DequantizeLinear."""

_ON_CODES = {
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
    "QLinearMatMul": 3,
    "QLinearConv": 3,
}
"""Ops that multiply codes -> which input is the weight."""


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """One product or convolution whose weight and activations are 8-bit codes.

    Attributes:
        name: Name of the node, or of its output where it has none.
        op: `MatMul` or `Conv`.
        codes: [K, N] of a product, [M, C / groups, ...] of a convolution; int8 or uint8.
        activation: `uint8` or `int8`.
        groups: Groups of a convolution.
    """

    name: str
    op: str
    codes: np.ndarray
    activation: str
    groups: int = 1

    @property
    def largest_pair_sum(self) -> int:
        """The most that two codes of one sign add up to where a kernel may pair them.

        A product's are neighbours along K. Kernels of convolutions order them in several ways, so there it is
        the two largest of each channel.
        """
        if self.op == "MatMul":
            return int(pair_sums(self.codes).max(initial=0))
        ordered = np.sort(self.codes.reshape(len(self.codes), -1).astype(np.int64), axis=1)
        high, low = np.maximum(ordered[:, -2:], 0).sum(axis=1), np.minimum(ordered[:, :2], 0).sum(axis=1)
        return int(np.maximum(high, -low).max(initial=0))


@dataclass(frozen=True)
class LayerWitness:
    """What a place made of one layer's sums.

    Attributes:
        name: Name of the node.
        op: `MatMul` or `Conv`.
        sums: Integers that were compared.
        wrong: How many of them are not the exact ones.
        largest_pair_sum: What the weights alone say; up to 128 none can be wrong.
    """

    name: str
    op: str
    sums: int
    wrong: int
    largest_pair_sum: int

    @property
    def certified(self) -> bool:
        """Whether the weights alone prove that no kernel saturates."""
        return self.largest_pair_sum <= SAFE_PAIR_SUM


def integer_layers(model: Path) -> tuple[IntegerLayer, ...]:
    """Return the layers of a graph that multiply 8-bit activations with 8-bit weights, in graph order.

    Found are MatMul, Gemm and Conv behind DequantizeLinear, and the integer products and convolutions of ONNX
    and of ONNX Runtime, but not ConvInteger, which only the dynamic form has.

    Raises:
        ModelError: The file is not an ONNX model.
    """
    return tuple(layer for node in g.nodes(g.load(model).graph) for layer in _layer(node))


def witness(
    model: Path, runner: Runner, *, threads: int = 1, timeout_s: float = 300.0, seed: int = 0
) -> tuple[LayerWitness, ...]:
    """Compute each layer's sums on a runner and compare them with the exact ones.

    For the columns whose pairs weigh most the activations are the highest code where the weight is positive
    and the lowest elsewhere, and the converse; random rows come on top. All columns of each row are compared.

    Args:
        model: A quantized graph.
        runner: Where to compute.
        threads: Intra-op threads.
        timeout_s: Seconds after which the run counts as hung.
        seed: Of the random rows.

    Returns:
        One entry per layer; empty where the graph has none, and then nothing is run.

    Raises:
        ModelError: The file is not an ONNX model.
        RunnerMissingError: The runner is not installed.
        RunnerFailedError: It fails, crashes or hangs.
    """
    layers, rng = integer_layers(model), np.random.default_rng(seed)
    if not layers:
        return ()
    questions = [_question(index, layer, rng) for index, layer in enumerate(layers)]
    with workspace() as folder:
        path = folder / "witness.onnx"
        path.write_bytes(_model(questions).SerializeToString())
        job = Job(
            model=path,
            batches=({name: value for question in questions for name, value in question.feeds.items()},),
            outputs=tuple(name for question in questions for name in question.expected),
            repeats=1,
            threads=threads,
            timeout_s=timeout_s,
        )
        outputs = runner.run(job).outputs[0]
    return tuple(_judged(layer, question, outputs) for layer, question in zip(layers, questions, strict=True))


def exact_sums_check(found: Sequence[LayerWitness], profile: TargetProfile) -> Check:
    """Return the check that no sum was wrong, which gates where the target's weights promise it."""
    promised = profile.hardware.saturates or profile.quantization.reduce_range
    wrong = [layer for layer in found if layer.wrong]
    worst = max(wrong, key=lambda layer: layer.wrong / layer.sums, default=None)
    named = f"; worst is {worst.name}, {worst.wrong} of {worst.sums}" if worst is not None else ""
    return Check(
        "int8_sums_wrong",
        "Int8 sums that differ from the exact integers",
        float(sum(layer.wrong for layer in found)),
        "",
        "<=",
        0.0 if promised else None,
        f"{len(wrong)} of {len(found)} layers add wrongly what is worst for them{named}",
    )


@dataclass(frozen=True, eq=False)
class _Question:
    """The nodes that compute one layer's sums, what they are fed, and what has to come out."""

    nodes: list[Any]
    constants: list[Any]
    feeds: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]


def _layer(node: ir.Node) -> Iterator[IntegerLayer]:
    weight, zero = _weight_and_zero(node)
    codes, held = g.constant(weight), g.constant(zero)
    if codes is None or codes.dtype not in (np.int8, np.uint8) or codes.ndim < 2:
        return
    # No zero point means uint8, in DequantizeLinear and behind DynamicQuantizeLinear.
    activation = str(held.dtype) if held is not None else "uint8"
    if activation not in ("uint8", "int8"):
        return
    name = node.name or node.outputs[0].name or node.op_type
    if node.op_type in ("Conv", "QLinearConv"):
        yield IntegerLayer(name, "Conv", codes, activation, node.attributes.get_int("group", 1))
        return
    matrix = codes.T if transposed(node) else codes
    stacked = np.concatenate(list(matrix.reshape(-1, *matrix.shape[-2:])), axis=1)
    yield IntegerLayer(name, "MatMul", np.ascontiguousarray(stacked), activation)


def _weight_and_zero(node: ir.Node) -> tuple[ir.Value | None, ir.Value | None]:
    """Return the codes of a node's weight and the zero point of its activation, as far as it has them."""
    if node.op_type in _QUANTIZED:
        activation, weight = (_dequantized(value) for value in node.inputs[:2])
        if activation is None or weight is None:
            return None, None
        return weight.inputs[0], activation.inputs[2] if len(activation.inputs) > 2 else None
    if node.op_type in _ON_CODES:
        at = _ON_CODES[node.op_type]
        return node.inputs[at], node.inputs[2] if at == 3 else None
    return None, None


def _dequantized(value: ir.Value | None) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _question(index: int, layer: IntegerLayer, rng: np.random.Generator) -> _Question:
    if layer.op == "MatMul":
        return _product_question(f"l{index}", layer, rng)
    return _convolution_question(f"l{index}", layer, rng)


def _product_question(name: str, layer: IntegerLayer, rng: np.random.Generator) -> _Question:
    limits = np.iinfo(layer.activation)
    columns = np.argsort(-pair_sums(layer.codes), kind="stable")[:_WORST_COLUMNS]
    positive = layer.codes.T[columns].astype(np.int16) > 0
    random = rng.integers(limits.min, limits.max, (_RANDOM_ROWS, len(layer.codes)), endpoint=True)
    rows = np.concatenate(
        [np.where(positive, limits.max, limits.min), np.where(positive, limits.min, limits.max), random]
    ).astype(layer.activation)
    # Exact in float64, which has a fast product: every partial sum is an integer far below 2**53.
    exact = rows.astype(np.float64) @ layer.codes.astype(np.float64)
    node = helper.make_node("MatMulInteger", [f"{name}_x", f"{name}_w"], [f"{name}_y"])
    weight = numpy_helper.from_array(layer.codes, f"{name}_w")
    return _Question([node], [weight], {f"{name}_x": rows}, {f"{name}_y": exact.astype(np.int32)})


def _convolution_question(name: str, layer: IntegerLayer, rng: np.random.Generator) -> _Question:
    """Return one QLinearConv per image; each image is as large as the kernel, so each channel is one sum."""
    limits, codes = np.iinfo(layer.activation), layer.codes
    kernels, channels = codes.reshape(len(codes), -1).astype(np.float64), len(codes) // layer.groups
    worst = np.argsort(-np.abs(kernels).sum(axis=1), kind="stable")[:_WORST_CHANNELS]
    shape = (layer.groups, kernels.shape[1])
    images = [rng.integers(limits.min, limits.max, shape, endpoint=True)]
    for channel in worst:
        positive = np.broadcast_to(kernels[channel] > 0, shape)
        images += [np.where(positive, limits.max, limits.min), np.where(positive, limits.min, limits.max)]
    zero, one = np.array(128 if layer.activation == "uint8" else 0, layer.activation), np.float32(1)
    constants = {"w": codes, "one": one, "x_zero": np.zeros((), layer.activation), "y_zero": zero}
    constants["w_zero"] = np.zeros((), codes.dtype)
    nodes, feeds, expected = [], {}, {}
    for number, image in enumerate(images):
        exact = np.einsum("gk,gmk->gm", image, kernels.reshape(layer.groups, channels, -1)).reshape(-1)
        constants[f"b{number}"] = -exact.astype(np.int32)
        held = [f"{name}_{part}" for part in ("one", "x_zero", "w", "one", "w_zero", "one", "y_zero")]
        x, y = f"{name}_x{number}", f"{name}_y{number}"
        nodes.append(
            helper.make_node("QLinearConv", [x, *held, f"{name}_b{number}"], [y], group=layer.groups)
        )
        feeds[x] = image.astype(layer.activation).reshape(1, layer.groups * codes.shape[1], *codes.shape[2:])
        expected[y] = np.full((1, len(codes), *(1 for _ in codes.shape[2:])), zero)
    return _Question(
        nodes,
        [numpy_helper.from_array(value, f"{name}_{key}") for key, value in constants.items()],
        feeds,
        expected,
    )


def _model(questions: Sequence[_Question]) -> ModelProto:
    def described(arrays: dict[str, np.ndarray]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in arrays.items()
        ]

    graph = helper.make_graph(
        [node for question in questions for node in question.nodes],
        "witness",
        [info for question in questions for info in described(question.feeds)],
        [info for question in questions for info in described(question.expected)],
        [constant for question in questions for constant in question.constants],
    )
    return helper.make_model(graph, ir_version=_IR_VERSION, opset_imports=[helper.make_opsetid("", _OPSET)])


def _judged(layer: IntegerLayer, question: _Question, outputs: Any) -> LayerWitness:
    pairs = [(outputs[name], exact) for name, exact in question.expected.items()]
    wrong = sum(int(np.count_nonzero(found != exact)) for found, exact in pairs)
    sums = sum(exact.size for _, exact in pairs)
    return LayerWitness(layer.name, layer.op, sums, wrong, layer.largest_pair_sum)
