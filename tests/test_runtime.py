"""Opening sessions: telemetry is off before the runtime loads, and a bad file is the user's error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.errors import ModelError
from edgekit.runtime import import_onnxruntime, open_session


def _model() -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    nodes = [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    graph = helper.make_graph(nodes, "negate", [x], [y])
    return helper.make_model(
        graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]
    ).SerializeToString()


def test_telemetry_is_off_before_the_runtime_is_imported(tmp_path) -> None:
    (tmp_path / "onnxruntime.py").write_text("import os\nseen = os.environ.get('ORT_DISABLE_TELEMETRY')\n")
    program = "from edgekit.runtime import import_onnxruntime; print(import_onnxruntime().seen)"
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    result = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "1"


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("form", ["file", "bytes"])
def test_a_session_opens_from_a_file_and_from_bytes(tmp_path, form, optimize) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(_model())
    session = open_session(path if form == "file" else _model(), optimize=optimize)
    x = np.array([1, -2], np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], -x)
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_the_optimized_graph_and_a_profile_are_written_on_request(tmp_path) -> None:
    session = open_session(
        _model(), profile_prefix=tmp_path / "profile", optimized_path=tmp_path / "optimized.onnx"
    )
    assert Path(session.end_profiling()).parent == tmp_path
    assert len(onnx.load(tmp_path / "optimized.onnx").graph.node) < 2


def test_optimization_can_be_switched_off(tmp_path) -> None:
    open_session(_model(), optimize=False, optimized_path=tmp_path / "same.onnx")
    assert len(onnx.load(tmp_path / "same.onnx").graph.node) == 2


def test_threads_do_not_spin_unless_the_profile_says_so() -> None:
    key = "session.intra_op.allow_spinning"
    options = open_session(_model(), threads=2).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry(key) == "0"
    spinning = open_session(_model(), session_options={key: "1"}).get_session_options()
    assert spinning.get_session_config_entry(key) == "1"


def test_the_profiles_entries_reach_the_session() -> None:
    options = open_session(_model(), session_options={"session.qdqisint8allowed": "1"}).get_session_options()
    assert options.get_session_config_entry("session.qdqisint8allowed") == "1"


@pytest.mark.parametrize("content", [b"", b"no protobuf", _model()[:40]])
def test_a_bad_file_is_a_model_error_in_one_line_that_names_it(tmp_path, content) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        open_session(path)
    assert "broken.onnx" in caught.value.message
    assert import_onnxruntime().__version__ in caught.value.message
    assert "\n" not in caught.value.message


def test_a_missing_file_is_a_model_error(tmp_path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx"):
        open_session(tmp_path / "gone.onnx")


def test_a_file_from_a_newer_version_is_a_model_error() -> None:
    model = onnx.load_from_string(_model())
    model.ir_version = 99
    with pytest.raises(ModelError, match="IR version"):
        open_session(model.SerializeToString())


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's own figures")
def test_what_nothing_refers_to_any_more_goes_back_to_the_system() -> None:
    """In a process of its own: garbage that refers to itself, between things that stay."""
    code = """
from edgekit.quantize.observe import resident_bytes
from edgekit.runtime import let_go
kept, freed = [], []
for _ in range(3000):
    circle = [bytes(16_000)]
    circle.append(circle)
    freed.append(circle)
    kept.append(bytes(100))
del freed, circle
before = resident_bytes()
let_go()
print(before - resident_bytes())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(ran.stdout) > 20_000_000
