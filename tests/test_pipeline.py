"""The order of the stages: what targets share, and what a pinned recipe holds."""

from pathlib import Path

import pytest

import edgekit
from edgekit.errors import RecipeError
from edgekit.recipe import read_table, recipe_from_table

TEXTS = [
    f"the {a} {b} {c} on the {d}"
    for a in ("old", "new", "red")
    for b in ("dog", "cat", "man")
    for c in ("sat", "ran")
    for d in ("road", "hill", "bed")
]


@pytest.fixture
def request_table(tiny_st_dir, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS), encoding="utf-8")
    return {
        "model": str(tiny_st_dir),
        "calibration": {"data": str(texts), "samples": 32},
        "validation": {"samples": 16},
        "latency": {"runs": 0},
        "gates": {"cosine_mean": 0.5, "cosine_p05": 0.5, "rank_correlation": 0.0},
    }


def test_targets_with_the_same_rules_get_the_same_graph(request_table, tmp_path):
    recipe = recipe_from_table(request_table | {"targets": ["arm64", "mobile-android"]})
    made = edgekit.export(recipe, tmp_path / "out")
    first, second = (package.path / "model.onnx" for package in made.packages)
    assert first.read_bytes() == second.read_bytes()
    audits = [[r.step for r in report.history].count("audit") for report in made.reports]
    assert audits == [1, 1]


def test_a_profile_that_changed_under_a_pinned_recipe_is_refused(request_table, tmp_path):
    profile = tmp_path / "mine.toml"
    profile.write_text('extends = "cpu-x86"\n', encoding="utf-8")
    recipe = recipe_from_table(request_table | {"targets": [str(profile)]})
    made = edgekit.export(recipe, tmp_path / "out")
    again = recipe_from_table(read_table(made.packages[0].path / "recipe.toml"))
    profile.write_text('extends = "cpu-x86"\n[quantization]\nreduce_range = true\n', encoding="utf-8")
    with pytest.raises(RecipeError, match="profile is not the one"):
        edgekit.export(again, tmp_path / "other")
    assert not Path(tmp_path / "other").exists()


def test_the_other_forms_are_measured_side_by_side_when_asked_for(request_table, tmp_path):
    asked = request_table | {"targets": ["cpu-x86-portable"], "latency": {"runs": 10, "candidates": True}}
    made = edgekit.export(recipe_from_table(asked), tmp_path / "out")
    forms = {candidate.name: candidate for candidate in made.reports[0].candidates}
    assert list(forms) == ["float", "float-rewritten", "dynamic", "static"]
    assert [name for name, form in forms.items() if form.shipped] == ["static"]
    assert all(form.speeds for form in forms.values())
    assert forms["static"].file_bytes == (made.packages[0].path / "model.onnx").stat().st_size
    page = made.report_path.read_text(encoding="utf-8")
    assert "The forms it could ship in" in page
    assert "dynamic int8" in page
