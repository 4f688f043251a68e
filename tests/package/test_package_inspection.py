"""What `inspect_package` says of a package is what its manifest and its graphs say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import PackageError
from edgekit.package.inspection import inspect_package
from edgekit.package.manifest import NAME, file_digests
from edgekit.profile import load_profile
from edgekit.record import Skip, StepRecord
from edgekit.store import dump_json


@pytest.fixture
def package(tmp_path) -> Path:
    folder = tmp_path / "pkg"
    folder.mkdir()
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "README.md").write_text("read me")
    record = StepRecord("quantize", "smooth", "did it", (Skip("n", "why"),), {}, 10, 5)
    manifest = {
        "schema_version": 1,
        "model": {"name": "tiny", "task": "generic", "source_sha256": "00"},
        "target": "cpu-x86",
        "profile": load_profile("cpu-x86").model_dump(mode="json"),
        "graphs": {"model": "model.onnx"},
        "signature": {"inputs": [], "outputs": []},
        "min_runtime": "1.18",
        "float": {"file_bytes": 1, "compressed_bytes": 1},
        "history": [record.to_json(measured=False)],
        "files": file_digests(folder),
    }
    (folder / NAME).write_text(dump_json(manifest))
    return folder


def _change(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / NAME).read_text())
    change(manifest)
    (folder / NAME).write_text(json.dumps(manifest))


def test_it_names_model_target_graphs_files_and_history(package) -> None:
    found = inspect_package(package)
    assert (found.name, found.task, found.target, found.min_runtime) == (
        "tiny",
        "generic",
        "cpu-x86",
        "1.18",
    )
    assert found.graphs["model"].ops == {"MatMul": 1}
    assert found.files == {"README.md": 7, "model.onnx": (package / "model.onnx").stat().st_size}
    assert [record["did"] for record in found.history] == ["did it"]


def test_the_json_form_is_json(package) -> None:
    data = json.loads(dump_json(inspect_package(package).to_json()))
    assert data["graphs"]["model"]["weighted_layers"] == {"MatMul": {"quantized": 0, "total": 1}}
    assert data["history"][0]["skipped"] == [{"what": "n", "why": "why"}]


def test_a_manifest_without_history_is_a_package_without_history(package) -> None:
    _change(package, lambda manifest: manifest.pop("history"))
    assert inspect_package(package).history == ()


def test_a_folder_without_a_manifest_is_no_package(tmp_path) -> None:
    with pytest.raises(PackageError, match=r"no manifest\.json"):
        inspect_package(tmp_path)


def test_a_changed_file_is_refused(package) -> None:
    (package / "README.md").write_text("changed")
    with pytest.raises(PackageError, match=r"README\.md"):
        inspect_package(package)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(history=3),
        lambda manifest: manifest.update(history=["x"]),
        lambda manifest: manifest.update(model="tiny"),
        lambda manifest: manifest["model"].pop("name"),
        lambda manifest: manifest.update(graphs=["model.onnx"]),
        lambda manifest: manifest.update(graphs={"model": "../secret.onnx"}),
        lambda manifest: manifest.update(graphs={"model": "gone.onnx"}),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused_in_one_line(package, change) -> None:
    _change(package, change)
    with pytest.raises(PackageError) as caught:
        inspect_package(package)
    assert str(package) in caught.value.message
    assert "\n" not in caught.value.message
