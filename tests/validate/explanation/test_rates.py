"""Lone operators: the float form of an int8 product stays what it is, and rates are those of the machine."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.runtime import open_session
from edgekit.validate.explanation.rates import _AS_IT_STANDS, _float_form, _single, case_of, measure_roofline
from edgekit.validate.explanation.trace import Kernel
from edgekit.validate.explanation.wiring import Wiring

CONV = (
    ("uint8", (1, 8, 8, 16)),
    *(("float", ()), ("uint8", ()), ("int8", (32, 16, 3, 3)), ("float", (32,)), ("int8", (32,))),
    *(("float", ()), ("uint8", ()), ("int32", (32,))),
)
GEMM = (
    ("uint8", (4, 16)),
    *(("float", ()), ("uint8", ()), ("int8", (16, 8)), ("float", (8,)), ("int8", (8,)), ("int32", (8,))),
)


def kernel(op, inputs, output, domain="com.microsoft", **attributes):
    names = [f"v{index}" for index in range(len(inputs))]
    node = onnx.helper.make_node(op, names, ["y"], domain=domain, **attributes)
    return Kernel("n", op, inputs, (output,), 0.1, node)


def wiring(inputs):
    stored = [onnx.TensorProto(name=f"v{index}") for index in range(1, len(inputs))]
    return Wiring.of(onnx.GraphProto(initializer=stored))


def run_of(model, tmp_path):
    """Run a lone model; return the op types that ran and the output."""
    session = open_session(
        model.SerializeToString(), profile_prefix=tmp_path / "profile", session_options=_AS_IT_STANDS
    )
    (value,) = session.get_inputs()
    kind = np.float32 if value.type == "tensor(float)" else np.uint8
    (output,) = session.run(None, {value.name: np.ones(value.shape, kind)})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [e["args"]["op_name"] for e in events if e["name"].endswith("_kernel_time")], output


CONV_KERNEL = kernel(
    "QLinearConv", CONV, ("uint8", (1, 8, 8, 32)), channels_last=1, kernel_shape=[3, 3], pads=[1, 1, 1, 1]
)


def test_a_convolution_in_float_runs_as_float_between_its_conversions(tmp_path):
    case = case_of(CONV_KERNEL, wiring(CONV))
    ops, output = run_of(_float_form(case, True, "uint8"), tmp_path)
    assert [op for op in ops if not op.startswith("Reorder")] == [
        "DequantizeLinear",
        "Conv",
        "QuantizeLinear",
    ]
    assert output.shape == (1, 32, 8, 8)
    assert output.dtype == np.uint8


def test_the_int8_form_is_the_very_op(tmp_path):
    ops, output = run_of(_single(case_of(CONV_KERNEL, wiring(CONV))), tmp_path)
    assert ops == ["QLinearConv"]
    assert output.shape == (1, 8, 8, 32)


def test_a_gemm_in_float_has_the_bias_of_the_int8_one(tmp_path):
    case = case_of(kernel("QGemm", GEMM, ("float", (4, 8)), transB=0, alpha=1.0), wiring(GEMM))
    model = _float_form(case, False, None)
    ops, output = run_of(model, tmp_path)
    assert (ops, output.shape) == (["Gemm"], (4, 8))
    assert len(model.graph.node[0].input) == 3


def test_an_op_without_a_float_form_here_has_no_case():
    assert case_of(kernel("QAttention", GEMM, ("float", (4, 8))), wiring(GEMM)) is None


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_the_roofline_is_the_best_of_real_runs(kind):
    roofline = measure_roofline(kind, threads=1, session_options={})
    assert roofline.sizes == (512, 1024)
    assert roofline.int8_gmacs_per_s > 0.1
    assert roofline.float_gmacs_per_s > 0.1
