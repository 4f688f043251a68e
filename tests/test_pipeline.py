"""The order of the stages: what targets share, and what a pinned recipe holds."""

import json
from dataclasses import dataclass
from pathlib import Path

import onnx
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


@dataclass(frozen=True)
class Made:
    """What one export of four targets gave, and the file of the third."""

    result: edgekit.ExportResult
    profile: Path


@pytest.fixture(scope="module")
def made(tiny_st_dir, tmp_path_factory) -> Made:
    """Two targets with the same rules, one with all its forms, one that ships the smallest form."""
    folder = tmp_path_factory.mktemp("pipeline")
    texts, profile = folder / "texts.txt", folder / "mine.toml"
    texts.write_text("\n".join(TEXTS), encoding="utf-8")
    profile.write_text('extends = "cpu-x86-portable"\n', encoding="utf-8")
    small = folder / "small.toml"
    policy = '[policy]\nship = "best"\nwants = "size"\n'
    small.write_text(f'extends = "cpu-x86-portable"\n{policy}', encoding="utf-8")
    recipe = {
        "model": str(tiny_st_dir),
        "targets": ["arm64", "mobile-android", str(profile), str(small)],
        "calibration": {"data": str(texts), "samples": 32},
        "validation": {"samples": 16},
        "latency": {"runs": 10, "candidates": True},
        "gates": {"cosine_mean": 0.5, "cosine_p05": 0.5, "rank_correlation": 0.0},
    }
    return Made(edgekit.export(recipe_from_table(recipe), folder / "out"), profile)


def test_targets_with_the_same_rules_get_the_same_graph(made):
    first, second, third = (package.path / "model.onnx" for package in made.result.packages[:3])
    assert first.read_bytes() == second.read_bytes() != third.read_bytes()
    audits = [[record.step for record in report.history].count("audit") for report in made.result.reports[:3]]
    assert audits == [1, 1, 1]


def test_a_profile_that_changed_under_a_pinned_recipe_is_refused(made, tmp_path):
    again = recipe_from_table(read_table(made.result.packages[2].path / "recipe.toml"))
    before = made.profile.read_text(encoding="utf-8")
    made.profile.write_text(before + "[quantization]\nreduce_range = false\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="profile is not the one"):
        edgekit.export(again, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_other_forms_are_measured_side_by_side_when_asked_for(made):
    forms = {candidate.name: candidate for candidate in made.result.reports[2].candidates}
    assert list(forms) == ["float", "float-rewritten", "dynamic", "static"]
    assert [name for name, form in forms.items() if form.shipped] == ["static"]
    assert all(form.speeds for form in forms.values())
    assert forms["static"].file_bytes == (made.result.packages[2].path / "model.onnx").stat().st_size
    page = made.result.report_path.read_text(encoding="utf-8")
    assert "The forms it could ship in" in page
    assert "dynamic int8" in page


def test_the_smallest_form_ships_where_size_is_wanted_and_the_package_s_recipe_names_it(made):
    report, package = made.result.reports[3], made.result.packages[3]
    shipped = next(candidate for candidate in report.candidates if candidate.shipped)
    holding = [c.file_bytes for c in report.candidates if c.passed and c.name != "float"]
    assert shipped.file_bytes * 0.99 <= min(holding)
    assert shipped.file_bytes == (package.path / "model.onnx").stat().st_size
    decided = next(record for record in report.history if record.step == "ship")
    assert decided.facts["shipped"] == shipped.name
    assert [form["form"] for form in decided.facts["forms"]] == [c.name for c in report.candidates]
    assert "ship" in {record["step"] for record in package.manifest["history"]}
    assert any("ships with" in note for note in report.verdict.notes)
    assert "ships with" in made.result.report_path.read_text(encoding="utf-8")
    assert read_table(package.path / "recipe.toml")["ship"] in shipped.name


def test_dynamic_int8_ships_without_calibration_data(tiny_st_dir, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS), encoding="utf-8")
    recipe = {
        "model": str(tiny_st_dir),
        "targets": ["arm64"],
        "ship": "dynamic",
        "validation": {"data": str(texts), "samples": 16},
        "gates": {"cosine_mean": 0.5, "cosine_p05": 0.5, "rank_correlation": 0.0},
    }
    made = edgekit.export(recipe_from_table(recipe), tmp_path / "out")
    model = onnx.load(made.packages[0].path / "model.onnx")
    assert "DynamicQuantizeLinear" in {node.op_type for node in model.graph.node}
    assert "Form: dynamic int8" in (made.packages[0].path / "README.md").read_text(encoding="utf-8")
    assert "calibrate" not in {record.stage for record in made.reports[0].history}


def test_a_classifier_of_several_labels_is_judged_label_by_label(tiny_classifier_dir, copy_of, tmp_path):
    folder = copy_of(tiny_classifier_dir)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["problem_type"] = "multi_label_classification"
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS), encoding="utf-8")
    recipe = {
        "model": str(folder),
        "targets": ["arm64"],
        "calibration": {"data": str(texts), "samples": 32},
        "validation": {"samples": 16},
        "gates": {"label_f1": 0.3},
    }
    made = edgekit.export(recipe_from_table(recipe), tmp_path / "out")
    assert made.reports[0].task == "multi-label-text-classification"
    assert {"label_f1", "kl_mean"} <= {check.name for check in made.reports[0].verdict.checks}
    assert "outputs[0] > 0" in (made.packages[0].path / "README.md").read_text(encoding="utf-8")
    assert edgekit.revalidate(made.packages[0].path).passed
