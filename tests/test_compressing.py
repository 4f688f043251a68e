"""A model made smaller: written, loaded again, exported, and measured against the one it came from."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

import edgekit
from edgekit.errors import DataError, OutputExistsError, RecipeError
from edgekit.golden import Golden
from edgekit.model import ModelRef
from edgekit.recipe import recipe_from_table, to_toml
from edgekit.source import load

TEXTS = [
    f"the {a} {b} {c} on the {d}"
    for a in ("old", "new", "red")
    for b in ("dog", "cat", "man")
    for c in ("sat", "ran")
    for d in ("road", "hill", "bed")
]
LOOSE = {"cosine_mean": -1.0, "cosine_p05": -1.0, "rank_correlation": -1.0}


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "texts.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    return path


@pytest.fixture
def request_for(tiny_st_dir, texts):
    def make(**changes):
        return recipe_from_table(
            {
                "model": str(tiny_st_dir),
                "calibration": {"data": str(texts), "samples": 40},
                "validation": {"samples": 12},
                "compress": {"layers": {"keep": 1}},
                **changes,
            }
        )

    return make


def test_a_compressed_directory_loads_again_and_says_what_was_lost(request_for, tmp_path) -> None:
    result = edgekit.compress_model(request_for(), tmp_path / "small")
    again = load(ModelRef(str(result.output)), None, scratch=tmp_path)
    assert again.task == "sentence-embedding"
    assert sum(p.numel() for p in again.module.parameters()) == result.parameters < result.parameters_before
    (record,) = [r for r in result.history if r.stage == "compress"]
    assert 0 < record.facts["quality"]["cosine_mean"] < 1
    written = json.loads((result.output / "compress.json").read_text())
    assert written["parameters"] == result.parameters
    assert tomllib.loads((result.output / "recipe.toml").read_text())["compress"]["layers"] == {
        "keep": 1,
        "choose": "similarity",
        "repair": True,
    }


def test_the_same_request_makes_the_same_weights(request_for, tmp_path) -> None:
    first, second = (edgekit.compress_model(request_for(), tmp_path / name).output for name in "ab")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_an_export_with_the_same_tables_is_measured_against_the_original(request_for, tmp_path) -> None:
    recipe = request_for(targets=["cpu-x86-portable"], latency={"runs": 0}, gates=LOOSE)
    result = edgekit.export(recipe, tmp_path / "out")
    (package,) = result.packages
    original = load(ModelRef(recipe.model), None, scratch=tmp_path)
    golden = Golden.load(package.path / "golden.npz")
    import torch

    with torch.no_grad():
        batch = golden.batches[0]
        inputs = {name: torch.from_numpy(value) for name, value in batch.inputs.items()}
        expected = original.module(**inputs)["sentence_embedding"].numpy()
    assert abs(batch.outputs["sentence_embedding"] - expected).max() < 1e-6
    (step,) = [r for r in result.reports[0].history if r.stage == "compress"]
    shipped = {check.name: check.measured for check in result.reports[0].verdict.checks}
    assert shipped["cosine_mean"] == pytest.approx(step.facts["quality"]["cosine_mean"], abs=0.05)
    assert "What each step cost" in result.report_path.read_text(encoding="utf-8")


def test_its_package_can_be_made_again_from_its_recipe(request_for, tmp_path) -> None:
    recipe = request_for(targets=["cpu-x86-portable"], latency={"runs": 0}, gates=LOOSE)
    (package,) = edgekit.export(recipe, tmp_path / "out").packages
    table = tomllib.loads((package.path / "recipe.toml").read_text())
    (again,) = edgekit.export(recipe_from_table(table), tmp_path / "again").packages
    assert (again.path / "model.onnx").read_bytes() == (package.path / "model.onnx").read_bytes()


def test_a_measured_choice_is_written_out_so_that_any_machine_makes_the_same(request_for, tmp_path) -> None:
    tables = {"width": {"time": 0.7, "multiple": 8}}
    recipe = request_for(compress=tables, targets=["cpu-x86-portable"], latency={"runs": 0}, gates=LOOSE)
    (package,) = edgekit.export(recipe, tmp_path / "out").packages
    table = tomllib.loads((package.path / "recipe.toml").read_text())
    width = table["compress"]["width"]
    assert "time" not in width
    assert len(width["ffn"]) == len(width["heads"]) == 2
    (again,) = edgekit.export(recipe_from_table(table), tmp_path / "again").packages
    assert (again.path / "model.onnx").read_bytes() == (package.path / "model.onnx").read_bytes()


def test_all_techniques_compose(request_for, tmp_path) -> None:
    tables = {
        "vocabulary": {"coverage": 0.99},
        "embeddings": {"rank": 12},
        "layers": {"keep": 1},
        "width": {"ffn": 40, "heads": 3, "multiple": 8},
        "low_rank": {"parameters": 0.9, "multiple": 4, "measured": False},
        "sparsity": {"share": 0.3},
    }
    recipe = request_for(compress=tables, targets=["cpu-x86-portable"], latency={"runs": 0}, gates=LOOSE)
    result = edgekit.export(recipe, tmp_path / "out")
    steps = [record.step for record in result.reports[0].history if record.stage == "compress"]
    assert steps == ["vocabulary", "embeddings", "layers", "width", "low_rank", "sparsity"]
    small = edgekit.compress_model(recipe, tmp_path / "small")
    assert small.parameters < 0.5 * small.parameters_before
    again = load(ModelRef(str(small.output)), None, scratch=tmp_path)
    assert sum(p.numel() for p in again.module.parameters()) == small.parameters


def test_a_recipe_without_techniques_has_no_table_for_them(request_for) -> None:
    assert "compress" not in to_toml(request_for(compress={}))


def test_a_request_without_a_technique_is_refused(request_for, tmp_path) -> None:
    with pytest.raises(RecipeError, match="nothing says how"):
        edgekit.compress_model(request_for(compress={}), tmp_path / "small")


def test_compression_without_data_is_refused(request_for, tmp_path) -> None:
    with pytest.raises(DataError, match="none was given"):
        edgekit.compress_model(request_for(calibration={}), tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_another_folder_is_never_replaced(request_for, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="no earlier output"):
        edgekit.compress_model(request_for(), tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
