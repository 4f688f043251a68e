"""What the tests of the runners share: a runner that is installed, and jobs with tiny models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.runners import Job, Runner

IDS = np.arange(36, dtype=np.int64).reshape(3, 12) % 29


@pytest.fixture(autouse=True)
def kits_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the tests of the runners see the kits that are installed."""
    if os.environ["EDGEKIT_TEST_KITS"]:
        monkeypatch.setenv("EDGEKIT_CACHE", os.environ["EDGEKIT_TEST_KITS"])
    else:
        monkeypatch.delenv("EDGEKIT_CACHE")


@pytest.fixture
def ready() -> Callable[[Runner], Runner]:
    """Skips the test, with the reason, where a runner is not installed."""

    def check(runner: Runner) -> Runner:
        state = runner.state()
        if not state.ready:
            pytest.skip(f"{runner.name}: {state.missing}. {state.hint}")
        return runner

    return check


@pytest.fixture
def tiny_jobs(tmp_path: Path) -> Callable[..., dict[str, Job]]:
    """Makes jobs for a float and an int8 graph of the same tiny model; both have weights that differ."""

    def make(**fields: object) -> dict[str, Job]:
        paths = {kind: _tiny_graph(tmp_path / f"{kind}.onnx", quantized=kind == "int8") for kind in _KINDS}
        batches = ({"ids": IDS}, {"ids": IDS[:1, :5]})
        return {kind: Job(path, batches, ("y", "argmax"), **fields) for kind, path in paths.items()}  # type: ignore[arg-type]

    return make


_KINDS = ("float", "int8")


def save_graph(
    path: Path, nodes: list[onnx.NodeProto], inputs: list, outputs: list, **fields: object
) -> Path:
    """Write a graph as a model at the opset and IR version that edgekit's packages have."""
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, fields.pop("weights", []))
    fields = {"ir_version": 10, "opset_imports": [helper.make_opsetid("", 20)], **fields}
    path.write_bytes(helper.make_model(graph, **fields).SerializeToString())
    return path


def _tiny_graph(path: Path, *, quantized: bool) -> Path:
    """Embed, multiply (in int8 where quantized), activate: ids [batch, length] → y [batch, length, 24]."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((29, 32)).astype(np.float32)
    weight = rng.standard_normal((32, 24)).astype(np.float32)
    scale = (np.abs(weight).max(axis=0) / 127).astype(np.float32)
    weights = {"table": table, "bias": rng.standard_normal(24).astype(np.float32)}
    if quantized:
        weights |= {
            "x_scale": np.float32(8 / 255),
            "x_zero": np.uint8(128),
            "w": np.round(weight / scale).astype(np.int8),
            "w_scale": scale,
            "w_zero": np.zeros(24, np.int8),
        }
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_int"]),
            helper.make_node("DequantizeLinear", ["x_int", "x_scale", "x_zero"], ["a"]),
            helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["b"], axis=1),
        ]
    else:
        weights |= {"b": weight}
        nodes = [helper.make_node("Identity", ["x"], ["a"])]
    return save_graph(
        path,
        [
            helper.make_node("Gather", ["table", "ids"], ["x"]),
            *nodes,
            helper.make_node("MatMul", ["a", "b"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["sum"]),
            helper.make_node("Relu", ["sum"], ["y"]),
            helper.make_node("ArgMax", ["sum"], ["argmax"], axis=-1, keepdims=0),
        ],
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", 24]),
            helper.make_tensor_value_info("argmax", TensorProto.INT64, ["batch", "length"]),
        ],
        weights=[numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )


@pytest.fixture
def save() -> Callable[..., Path]:
    """`save_graph`, for tests that make graphs of their own."""
    return save_graph
