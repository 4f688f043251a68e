"""Which kind of model a spec is, and what is refused before anything is loaded."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.errors import ModelError
from edgekit.model import ModelRef
from edgekit.source import forget_weights, load


def test_an_empty_directory_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no model"):
        load(ModelRef(str(tmp_path)), None, scratch=tmp_path)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"x")
    with pytest.raises(ModelError, match="is a file, not a model directory"):
        load(ModelRef(str(file)), None, scratch=tmp_path)


@pytest.mark.parametrize("name", ["model.onnx", "model.ort"])
def test_a_graph_is_no_pytorch_model(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match="is a graph already: edgekit starts from the PyTorch model"):
        load(ModelRef(str(tmp_path / name)), None, scratch=tmp_path)


def test_a_package_is_not_quantized_again(tmp_path: Path) -> None:
    for name in ("manifest.json", "model.onnx", "config.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ModelError, match="is a package that edgekit made already"):
        load(ModelRef(str(tmp_path)), None, scratch=tmp_path)


@pytest.mark.parametrize("spec", ["./no/such/dir", "a/b/c", "with space", "../up"])
def test_a_path_that_is_missing_and_no_hub_id_is_refused_at_once(spec: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model at"):
        load(ModelRef(spec), None, scratch=tmp_path)


def test_a_forgotten_model_holds_no_weights(tiny_st_dir, tmp_path) -> None:
    model = load(ModelRef(str(tiny_st_dir)), None, scratch=tmp_path)
    forget_weights(model)
    assert not any(tensor.numel() for tensor in (*model.module.parameters(), *model.module.buffers()))


def test_what_a_factory_made_is_not_emptied(tiny_st_dir, tmp_path) -> None:
    model = replace(load(ModelRef(str(tiny_st_dir)), None, scratch=tmp_path), from_transformers=False)
    forget_weights(model)
    assert all(tensor.numel() for tensor in model.module.parameters())
