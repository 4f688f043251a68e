"""What is saved loads again as the same model, whatever its sizes."""

from __future__ import annotations

import json
import textwrap

import pytest
import torch

from edgekit import structure
from edgekit.compress.anatomy import keep_neurons, layers_of
from edgekit.compress.base import branch
from edgekit.errors import ModelError, RecipeError
from edgekit.model import ModelRef
from edgekit.source import load
from edgekit.source.saving import save, settled

FACTORY = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 6)
"""


def _out(model) -> torch.Tensor:
    with torch.no_grad():
        inputs = {name: torch.from_numpy(value) for name, value in model.example_inputs.items()}
        return next(iter(model.module(**inputs).values()))


def _saved(model, folder):
    folder.mkdir()
    save(settled(model, folder.parent), folder, model)
    return folder


@pytest.mark.parametrize("fixture", ["tiny_st_dir", "tiny_classifier_dir", "tiny_bert_dir", "tiny_vit_dir"])
def test_any_kind_of_directory_comes_back(fixture, request, tmp_path) -> None:
    model = load(ModelRef(str(request.getfixturevalue(fixture))), None, scratch=tmp_path)
    folder = _saved(model, tmp_path / "saved")
    assert not (folder / structure.FILE).exists()
    assert torch.equal(_out(load(ModelRef(str(folder)), None, scratch=tmp_path)), _out(model))


def test_layers_of_different_widths_come_back(tiny_st_dir, tmp_path) -> None:
    model = branch(load(ModelRef(str(tiny_st_dir)), None, scratch=tmp_path))
    for layer in layers_of(model):
        keep_neurons(layer, range(40 - 8 * layer.index))
    folder = _saved(model, tmp_path / "saved")
    again = load(ModelRef(str(folder)), None, scratch=tmp_path)
    assert [layer.neurons for layer in layers_of(again)] == [40, 32]
    assert torch.equal(_out(again), _out(model))


def test_a_structure_makes_another_model_of_the_same_weights(tiny_st_dir, tmp_path) -> None:
    first, second = (branch(load(ModelRef(str(tiny_st_dir)), None, scratch=tmp_path)) for _ in "ab")
    keep_neurons(layers_of(first)[0], range(16))
    keep_neurons(layers_of(second)[1], range(16))
    folders = [_saved(model, tmp_path / name) for model, name in ((first, "a"), (second, "b"))]
    digests = {load(ModelRef(str(f)), None, scratch=tmp_path).source_sha256 for f in folders}
    assert len(digests) == 2


def test_a_structure_of_another_model_is_refused(tiny_st_dir, tmp_path) -> None:
    model = branch(load(ModelRef(str(tiny_st_dir)), None, scratch=tmp_path))
    keep_neurons(layers_of(model)[0], range(16))
    folder = _saved(model, tmp_path / "saved")
    table = json.loads((folder / structure.FILE).read_text())
    table["sizes"]["encoder.layer.9.output.dense"] = {"in_features": 4}
    (folder / structure.FILE).write_text(json.dumps(table))
    with pytest.raises(ModelError, match=r"structure.json names the size encoder.layer.9"):
        load(ModelRef(str(folder)), None, scratch=tmp_path)


class TestFactory:
    @pytest.fixture
    def model(self, tmp_path, monkeypatch):
        (tmp_path / "factory_to_save.py").write_text(textwrap.dedent(FACTORY))
        monkeypatch.chdir(tmp_path)
        return load(ModelRef("factory_to_save:make"), None, scratch=tmp_path)

    def test_weights_and_sizes_go_back_into_what_the_factory_makes(self, model, tmp_path) -> None:
        from edgekit.compress.anatomy import keep_inputs, keep_outputs

        smaller = branch(model)
        keep_outputs(smaller.module.get_submodule("model.0"), [0, 2, 5])
        keep_inputs(smaller.module.get_submodule("model.2"), [0, 2, 5])
        folder = tmp_path / "saved"
        folder.mkdir()
        save(smaller, folder, model)
        ref = ModelRef("factory_to_save:make", weights=str(folder))
        again = load(ref, None, scratch=tmp_path)
        inputs = {name: torch.from_numpy(value) for name, value in model.example_inputs.items()}
        with torch.no_grad():
            assert torch.equal(again.module(**inputs)["output"], smaller.module(**inputs)["output"])
        with pytest.raises(ModelError, match="holds the weights of a factory's model"):
            load(ModelRef(str(folder)), None, scratch=tmp_path)

    def test_weights_of_something_else_are_refused(self, model, tmp_path) -> None:
        with pytest.raises(ModelError, match=r"has no structure.json"):
            load(ModelRef("factory_to_save:make", weights=str(tmp_path)), None, scratch=tmp_path)


def test_weights_go_with_a_factory_only(tiny_bert_dir, tmp_path) -> None:
    with pytest.raises(RecipeError, match=r"go with package.module:factory"):
        load(ModelRef(str(tiny_bert_dir), weights="x"), None, scratch=tmp_path)
