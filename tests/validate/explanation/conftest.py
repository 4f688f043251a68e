"""Small graphs with Q/DQ, written as ONNX text, and what explains them on whatever machine this is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit.golden import Golden, GoldenBatch
from edgekit.machine import read_machine
from edgekit.profile import Hardware, TargetProfile, load_profile
from edgekit.validate.explanation import Explanation, explain

RNG = np.random.default_rng(0)


def codes(*shape: int) -> np.ndarray:
    return RNG.integers(-100, 100, shape).astype(np.int8)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.3, shape).astype(np.float32)


CONSTANTS: dict[str, np.ndarray] = {
    "s": np.array(0.02, np.float32),
    "z": np.array(128, np.uint8),
    "w": codes(32, 48),
    "u": codes(32, 48),
    "ws": np.full(48, 0.01, np.float32),
    "wz": np.zeros(48, np.int8),
    "v": codes(48, 32),
    "vs": np.full(32, 0.01, np.float32),
    "vz": np.zeros(32, np.int8),
    "b": RNG.integers(-100, 100, 48).astype(np.int32),
    "bs": np.full(48, 0.0002, np.float32),
    "bz": np.zeros(48, np.int32),
    "float_bias": floats(48),
    "float_weight": floats(32, 48),
}


@pytest.fixture
def here() -> TargetProfile:
    """A target of which this machine is one, whichever it is."""
    hardware = Hardware(isa=read_machine().isa)
    return load_profile("cpu-x86").model_copy(update={"hardware": hardware})


@pytest.fixture
def elsewhere() -> TargetProfile:
    """A target of which this machine is none."""
    return load_profile("web-wasm")


Explain = Callable[..., Explanation]


@pytest.fixture
def explain_graph(tmp_path: Path, elsewhere: TargetProfile) -> Explain:
    """Return a function that explains a graph given as ONNX text; nodes are called `Op_index`.

    Nothing is timed unless a profile of this machine is given.
    """

    def _explain(
        body: str,
        *,
        x: tuple[int, ...] = (4, 32),
        named: bool = True,
        profile: TargetProfile = elsewhere,
        constants: dict[str, np.ndarray] | None = None,
        points: tuple[tuple[int, int], ...] = ((2, 8),),
        **options: Any,
    ) -> Explanation:
        shape = ", ".join(["batch", *map(str, x[1:])])
        text = f'<ir_version: 10, opset_import: ["" : 20]> graph (float[{shape}] x) => (float[] y) {{{body}}}'
        model = onnx.parser.parse_model(text)
        model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        used = {name for node in model.graph.node for name in node.input}
        known = {**CONSTANTS, **(constants or {})}
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(value, name) for name, value in known.items() if name in used
        )
        for index, node in enumerate(model.graph.node):
            node.name = f"{node.op_type}_{index}" if named else ""
        onnx.save(model, tmp_path / "model.onnx")
        batch = GoldenBatch({"x": floats(*x)}, {"y": np.zeros((x[0], 1), np.float32)})
        Golden("generic", (batch,)).save(tmp_path / "golden.npz")
        return explain(tmp_path / "model.onnx", tmp_path / "golden.npz", profile, points=points, **options)

    return _explain
