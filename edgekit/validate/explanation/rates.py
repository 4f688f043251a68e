"""Lone operators, timed: what the machine reaches, and what an int8 product would cost in float."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.runtime import open_session
from edgekit.validate.explanation.kernels import attributes_of
from edgekit.validate.explanation.multiply_adds import CONVOLUTIONS, INT8_PRODUCTS, weight_index
from edgekit.validate.explanation.record import Roofline
from edgekit.validate.explanation.trace import Kernel
from edgekit.validate.explanation.wiring import Wiring

_SIZES = (512, 1024)
_ROOFLINE_RUNS = 12
_RUNS = 7
_OPSET, _IR_VERSION = 20, 10  # what ONNX Runtime 1.20 and newer load

# Else the runtime would turn the float op between its conversions back into the int8 op.
# Source: onnxruntime_session_options_config_keys.h, kOrtSessionOptionsDisableQuantQDQ.
_AS_IT_STANDS = {"session.disable_quant_qdq": "1"}

_MICROSOFT = "com.microsoft"
_CODES = ("uint8", "int8")
_DTYPES: dict[str, np.dtype[Any]] = {
    "float": np.dtype(np.float32),
    "uint8": np.dtype(np.uint8),
    "int8": np.dtype(np.int8),
    "int32": np.dtype(np.int32),
}
"""The profile's names of the types that int8 products take."""

_PREDICTABLE = INT8_PRODUCTS - {"QAttention", "DynamicQuantizeLSTM"}


def measure_roofline(activation_type: str, *, threads: int, session_options: Mapping[str, str]) -> Roofline:
    """Return what square products reach on this machine: int8 and float in turns, the best of all runs.

    Args:
        activation_type: `uint8` or `int8`, as the target's activations.
        threads: Intra-op threads.
        session_options: Session configuration entries.
    """
    best = [0.0, 0.0]
    for size in _SIZES:
        square, scalar = (size, size), ("float", ())
        codes = ((activation_type, square), scalar, (activation_type, ()))
        int8 = _Case("QGemm", _MICROSOFT, (), (*codes, ("int8", square), scalar, ("int8", ())))
        real = _Case("Gemm", "", (), (("float", square), ("float", square)))
        milliseconds = _time_in_turns(
            [_single(int8), _single(real)], _ROOFLINE_RUNS, threads, session_options, evict=0
        )
        rates = [size**3 / ms / 1e6 for ms in milliseconds]
        best = [max(pair) for pair in zip(best, rates, strict=True)]
    return Roofline(_SIZES, threads, *best)


def float_over_int8(
    kernels: Sequence[Kernel],
    wiring: Wiring,
    *,
    threads: int,
    session_options: Mapping[str, str],
    evict_bytes: int,
    seconds: float,
) -> dict[int, float]:
    """Return how many times longer int8 products would take in float, what surrounds them as it is.

    Each distinct case is timed as two one-op models in turns: the int8 op, and its float form with a
    DequantizeLinear where its input is 8-bit in the graph and a QuantizeLinear where its output is.

    Args:
        kernels: Int8 products; the most important first.
        wiring: Of the optimized graph.
        threads: Intra-op threads.
        session_options: Session configuration entries.
        evict_bytes: What is read between runs, so that weights come from memory as in a whole model.
        seconds: Time to stop after; cases not reached are left out.

    Returns:
        Index in `kernels` -> ratio.
    """
    started = time.perf_counter()
    ratios: dict[tuple[_Case, bool], float] = {}
    found: dict[int, float] = {}
    for index, kernel in enumerate(kernels):
        case = case_of(kernel, wiring)
        if case is None or kernel.node is None:
            continue
        maker = wiring.origin(kernel.node.input[0])
        from_codes = case.inputs[0][0] in _CODES and (maker is None or maker.op_type != "QuantizeLinear")
        key = (case, from_codes)
        if key not in ratios:
            if time.perf_counter() - started > seconds:
                continue
            to_codes = kernel.outputs[0][0] if kernel.outputs[0][0] in _CODES else None
            int8_ms, float_ms = _time_in_turns(
                [_single(case), _float_form(case, from_codes, to_codes)],
                _RUNS,
                threads,
                session_options,
                evict=evict_bytes,
            )
            ratios[key] = float_ms / int8_ms
        found[index] = ratios[key]
    return found


@dataclass(frozen=True)
class _Case:
    """One op with its attributes and the types and shapes of its inputs; all but the first are constants.

    Attributes:
        op: Op type.
        domain: Its operator set.
        attributes: Name and value, sorted.
        inputs: Those that are there.
        also_varying: A second input that is no constant, where both operands are activations.
        absent: Places of optional inputs that are not there.
    """

    op: str
    domain: str
    attributes: tuple[tuple[str, Any], ...]
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    also_varying: int | None = None
    absent: tuple[int, ...] = ()


def case_of(kernel: Kernel, wiring: Wiring) -> _Case | None:
    """Return the case of an int8 product, or None for one that has no float form here."""
    node = kernel.node
    if node is None or kernel.op not in _PREDICTABLE or any(kind not in _DTYPES for kind, _ in kernel.inputs):
        return None
    absent = tuple(index for index, name in enumerate(node.input) if not name)
    if len(node.input) - len(absent) != len(kernel.inputs):
        return None
    made = {name: tuple(v) if isinstance(v, list) else v for name, v in attributes_of(node).items()}
    at = weight_index(kernel.op)
    weight_varies = None if wiring.is_constant(node.input[at]) else at
    return _Case(kernel.op, node.domain, tuple(sorted(made.items())), kernel.inputs, weight_varies, absent)


def _single(case: _Case) -> onnx.ModelProto:
    """Return a model of one op on random constants."""
    names, constants, inputs = [], [], []
    present = iter(case.inputs)
    for index in range(len(case.inputs) + len(case.absent)):
        if index in case.absent:
            names.append("")
            continue
        kind, shape = next(present)
        name = f"input_{index}"
        names.append(name)
        if index in (0, case.also_varying):
            inputs.append(helper.make_tensor_value_info(name, _onnx_type(kind), shape))
        else:
            constants.append(numpy_helper.from_array(_values(kind, shape), name))
    node = helper.make_node(case.op, names, ["output"], domain=case.domain, **dict(case.attributes))
    return _model([node], inputs, constants)


def _float_form(case: _Case, from_codes: bool, to_codes: str | None) -> onnx.ModelProto:
    """Return the float op of the same shapes, with the conversions that it would need."""
    at = weight_index(case.op)
    kind, shape = case.inputs[0]
    weight_shape = case.inputs[at][1]
    op, attributes, bias = _float_op(case, weight_shape)
    if op == "Conv" and dict(case.attributes).get("channels_last"):
        shape = (shape[0], shape[-1], *shape[1:-1])
    inputs = [helper.make_tensor_value_info("x", _onnx_type(kind if from_codes else "float"), shape)]
    constants = [numpy_helper.from_array(_values("float", ()), "scale")]
    nodes, operands = [], ["x", "weight"]
    if from_codes:
        constants.append(numpy_helper.from_array(np.zeros((), _DTYPES[kind]), "zero_in"))
        nodes.append(helper.make_node("DequantizeLinear", ["x", "scale", "zero_in"], ["x_float"]))
        operands[0] = "x_float"
    if case.also_varying is None:
        constants.append(numpy_helper.from_array(_values("float", weight_shape), "weight"))
    else:
        inputs.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, weight_shape))
    if bias:
        constants.append(numpy_helper.from_array(_values("float", (bias,)), "bias"))
        operands.append("bias")
    last = "output" if to_codes is None else "product"
    nodes.append(helper.make_node(op, operands, [last], **attributes))
    if to_codes is not None:
        constants.append(numpy_helper.from_array(np.zeros((), _DTYPES[to_codes]), "zero_out"))
        nodes.append(helper.make_node("QuantizeLinear", ["product", "scale", "zero_out"], ["output"]))
    return _model(nodes, inputs, constants)


def _float_op(case: _Case, weight_shape: tuple[int, ...]) -> tuple[str, dict[str, Any], int]:
    """Return the float op type, its attributes, and the length of its bias (0 for none)."""
    attributes = dict(case.attributes)
    bias_at = 8 if case.op == "QLinearConv" else 6
    biased = bias_at not in case.absent and len(case.inputs) + len(case.absent) > bias_at
    if case.op in CONVOLUTIONS:
        attributes.pop("channels_last", None)
        return "Conv", attributes, weight_shape[0] if biased else 0
    if len(case.inputs[0][1]) == 2 and len(weight_shape) == 2:
        kept = {name: value for name, value in attributes.items() if name.startswith("trans")}
        columns = weight_shape[0 if kept.get("transB") else 1]
        return "Gemm", kept, columns if biased and case.op != "QLinearMatMul" else 0
    return "MatMul", {}, 0


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto],
) -> onnx.ModelProto:
    output = onnx.ValueInfoProto(name="output")
    graph = helper.make_graph(nodes, "lone", inputs, [output], constants)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
    return helper.make_model(graph, ir_version=_IR_VERSION, opset_imports=opsets)


def _onnx_type(kind: str) -> int:
    return int(helper.np_dtype_to_tensor_dtype(_DTYPES[kind]))


def _values(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return values whose products neither overflow nor become denormal, the same on every call."""
    rng = np.random.default_rng(0)
    if kind == "float":
        scalar_like = len(shape) < 2
        return np.full(shape, 0.02, np.float32) if scalar_like else rng.normal(0, 0.1, shape).astype("f4")
    if len(shape) < 2 or kind == "int32":  # zero points, which kernels take the fast way for where they are 0
        return np.zeros(shape, _DTYPES[kind])
    low, high = (0, 127) if kind == "uint8" else (-64, 64)
    return rng.integers(low, high, shape).astype(_DTYPES[kind])


def _time_in_turns(
    models: Sequence[onnx.ModelProto],
    runs: int,
    threads: int,
    session_options: Mapping[str, str],
    *,
    evict: int,
) -> list[float]:
    """Return the milliseconds of each model's best run, timed in turns after one warm-up run.

    A lone op takes less time than the scheduler gives to a neighbour, so what disturbs it only ever adds: the
    best run is the steadiest figure.
    """
    kinds = {helper.np_dtype_to_tensor_dtype(dtype): name for name, dtype in _DTYPES.items()}
    sessions = []
    for model in models:
        session = open_session(
            model.SerializeToString(), threads=threads, session_options={**session_options, **_AS_IT_STANDS}
        )
        feed = {
            value.name: _values(
                kinds[value.type.tensor_type.elem_type],
                tuple(d.dim_value for d in value.type.tensor_type.shape.dim),
            )
            for value in model.graph.input
        }
        session.run(None, feed)
        sessions.append((session, feed))
    between = np.zeros(evict // 8, np.int64)
    times: list[list[float]] = [[] for _ in models]
    for turn in range(runs):
        order = range(len(models)) if turn % 2 == 0 else reversed(range(len(models)))
        for which in order:
            between.sum()
            session, feed = sessions[which]
            begin = time.perf_counter()
            session.run(None, feed)
            times[which].append((time.perf_counter() - begin) * 1e3)
    return [min(found) for found in times]
