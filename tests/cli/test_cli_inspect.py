"""`edgekit inspect` renders what the inspection found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgekit.cli.inspect import command
from edgekit.cli.tables import readable_bytes
from edgekit.errors import ModelError, PackageError
from edgekit.package.manifest import NAME, file_digests
from edgekit.store import dump_json
from edgekit.validate.inspection import inspect_file


def _run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def model(tmp_path) -> Path:
    path = tmp_path / "pkg" / "model.onnx"
    path.parent.mkdir()
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("[bold]", "y"))
    tensors = {"w": np.ones((4, 4), np.int8), "s": np.ones((), np.float32)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["f"]),
        helper.make_node("MatMul", ["[bold]", "f"], ["y"]),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    proto = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    path.write_bytes(proto.SerializeToString())
    return path


def _make_package(folder: Path) -> None:
    step = {"stage": "quantize", "step": "insert", "did": "quantized it", "skipped": [], "bytes_after": 1234}
    manifest = {
        "schema_version": 1,
        "model": {"name": "tiny", "task": "generic"},
        "target": "arm64",
        "profile": {},
        "graphs": {"model": "model.onnx"},
        "signature": {},
        "min_runtime": "1.18",
        "float": {},
        "history": [step],
        "files": file_digests(folder),
    }
    (folder / NAME).write_text(dump_json(manifest))


def test_a_file_is_described_in_words_and_numbers(model) -> None:
    output = _run(model)
    assert "[bold]: float32 [batch, 4]" in output
    assert "IR 10, opset ai.onnx 20" in output
    assert "100.0%: MatMul 1 of 1" in output
    assert "94.1% of 17 parameters" in output
    assert "1 DequantizeLinear, 1 MatMul" in output


def test_the_json_form_is_the_inspection(model) -> None:
    assert json.loads(_run(model, "--json")) == inspect_file(model).to_json()


def test_a_package_also_shows_its_target_and_its_history(model) -> None:
    _make_package(model.parent)
    output = _run(model.parent)
    for words in ("arm64", "tiny (generic)", "1.18 and newer", "quantized it", "1.2 kB", "model.onnx"):
        assert words in output
    assert max(map(len, output.splitlines())) <= 100
    data = json.loads(_run(model.parent, "--json"))
    assert data["target"] == "arm64"
    assert data["history"][0]["did"] == "quantized it"


def test_a_folder_that_is_no_package_is_a_package_error(tmp_path) -> None:
    with pytest.raises(PackageError, match="is not a package"):
        _run(tmp_path)


@pytest.mark.parametrize("content", [None, b"no model"])
def test_a_path_that_leads_to_no_model_is_a_model_error(tmp_path, content) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx"):
        _run(path)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (23_465_133, "23.5 MB")]
)
def test_sizes_are_decimal_as_app_stores_count_them(count, text) -> None:
    assert readable_bytes(count) == text
