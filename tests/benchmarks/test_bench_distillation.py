"""The rows of the distillation benchmarks, and the tables that docs/distillation.md shows of them."""

from __future__ import annotations

import pytest

from benchmarks import distillation, distillation_digits
from benchmarks.distillation_page import digits_section, distillation_tables
from edgekit.recipe import overlay, read_table, recipe_from_table

QUALITY = {"recall_at_1": 0.4, "rank_correlation": 0.9, "cosine_mean": 0.95, "cosine_p05": 0.8}
POINTS = [
    {"step": step, "samples": 64 * step, "quality": {"cosine_mean": 0.7, "rank_correlation": 0.6}}
    for step in (0, 100)
]
RESULTS = {
    "parameters": 1000,
    "original": {**QUALITY, "recall_at_1": 0.8},
    "original_package": {**QUALITY, "recall_at_1": 0.8},
    "package_pairs": 10,
    "machine": {"cpu": "a CPU"},
    "versions": {"onnxruntime": "1.31", "torch": "2.13"},
    "speeds": {"a": [{"shape": "1x16", "speedup": 3.0, "speedup_low": 2.9, "speedup_high": 3.1}]},
    "short": distillation.SHORT,
    "rows": {
        "a": {
            "parameters": 5e6,
            "bytes": 7e6,
            "int8": QUALITY,
            "steps": [{"step": "layers", "did": "Kept 2 of 6: more.", "quality": QUALITY}],
            "curve": POINTS,
        }
    },
    "ablation": {"cosine alone": {"0": QUALITY, "1": {**QUALITY, "cosine_mean": 0.97}}},
}


def test_every_recipe_that_trains_is_a_row_and_no_other():
    assert "minilm-b" in distillation.rows()
    assert "minilm-4l" not in distillation.rows()


@pytest.mark.parametrize("name", distillation.VARIANTS)
def test_every_row_of_the_ablation_is_a_request_that_can_be_made(name):
    table = read_table(distillation.RECIPES / f"{distillation.ABLATED}.toml")
    changed = recipe_from_table(
        overlay(table, {"distill": {**distillation.SHORT, **distillation.VARIANTS[name]}})
    )
    assert changed.distill.samples == 12_800


@pytest.mark.parametrize("name", distillation_digits.ROWS)
def test_every_student_of_digits_is_a_request_that_can_be_made(name):
    distill = {**distillation_digits.SCHEDULE, **distillation_digits.ROWS[name]}
    assert recipe_from_table({"model": "x", "distill": distill}).distill.batch == 64


def test_the_tables_tell_packages_stages_and_what_each_loss_is_worth():
    page = distillation_tables(RESULTS)
    assert "| `a` | 5.0 M | 7.0 MB | 50.0% | 0.9000 | 0.9500 | 0.8000 | 3.00x (2.90–3.10) |" in page
    assert "| `a` | 6,400 seen | 0.7000 | 0.6000 |  |" in page
    assert "after layers | 0.9500 | 0.9000 | Kept 2 of 6 |" in page
    assert "0.9600 (0.9500–0.9700)" in page


def test_a_page_without_an_ablation_has_no_table_of_it():
    assert "Short trainings" not in distillation_tables({**RESULTS, "ablation": {}})


def test_the_students_of_digits_are_told_with_their_range():
    row = {"runs": {"0": {"multiply_adds": 0.25}}, "mean": 0.95, "low": 0.94, "high": 0.96}
    page = digits_section({"teacher": 0.97, "command": "c", "rows": {"fresh": row}})
    assert "| fresh | 25% | 95.0% | 94.0%–96.0% |" in page
