"""The simulated Hexagon processor: compiled for its generation, right, and nothing left to the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import RunnerFailedError
from edgekit.runners import Job
from edgekit.runners.native import Native
from edgekit.runners.qnn import HTPS, QnnHtp

WEIGHT = np.random.default_rng(0).integers(0, 255, (64, 32)).astype(np.uint8)
X = np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)


def _product(path: Path, *, output_codes: bool) -> Path:
    """Save a product of 16-bit activations and 8-bit weights; without output codes its result is float."""

    def scalar(name: str, value: float, dtype: type) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(value, dtype), name)

    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["m" if output_codes else "y"]),
    ]
    if output_codes:
        nodes += [
            helper.make_node("QuantizeLinear", ["m", "ms", "xz"], ["mq"]),
            helper.make_node("DequantizeLinear", ["mq", "ms", "xz"], ["y"]),
        ]
    else:
        nodes += [helper.make_node("Det", ["square"], ["unused"])]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 32])]
        + ([] if output_codes else [helper.make_tensor_value_info("unused", TensorProto.FLOAT, [])]),
        [
            scalar("xs", 8 / 65535, np.float32),
            scalar("xz", 32768, np.uint16),
            scalar("ws", 0.01, np.float32),
            scalar("wz", 128, np.uint8),
            scalar("ms", 100 / 65535, np.float32),
            numpy_helper.from_array(WEIGHT, "wq"),
        ],
    )
    if not output_codes:
        graph.input.append(helper.make_tensor_value_info("square", TensorProto.FLOAT, [2, 2]))
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)]), path)
    return path


@pytest.fixture(params=[HTPS[0], HTPS[-1]], ids=lambda runner: runner.name)
def htp(request: pytest.FixtureRequest) -> QnnHtp:
    runner: QnnHtp = request.param
    state = runner.state()
    if not state.ready:
        pytest.skip(f"{state.missing}: {state.hint}")
    return runner


def test_what_was_compiled_gives_the_answers_of_the_cpu(htp: QnnHtp, tmp_path: Path) -> None:
    job = Job(_product(tmp_path / "m.onnx", output_codes=True), ({"x": X},), ("y",))
    found, expected = htp.run(job), Native().run(job)
    steps = np.abs(found.outputs[0]["y"] - expected.outputs[0]["y"]) / (100 / 65535)
    assert steps.max() < 20, "16-bit codes: some steps of rounding inside the processor, no more"
    assert found.deterministic
    assert found.facts["compiled_bytes"]
    assert found.load_ms is None, "a simulation has no times"
    assert found.times == ()


def test_a_node_that_would_fall_to_the_cpu_is_refused(htp: QnnHtp, tmp_path: Path) -> None:
    inputs = {"x": X, "square": np.eye(2, dtype=np.float32)}
    job = Job(_product(tmp_path / "m.onnx", output_codes=False), (inputs,), ("y", "unused"))
    assert Native().run(job).outputs[0]["unused"] == 1
    with pytest.raises(RunnerFailedError, match="fallback to CPU EP has been explicitly disabled"):
        htp.run(job)
