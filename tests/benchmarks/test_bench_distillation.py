"""The rows of the distillation benchmarks, and the tables that docs/distillation.md shows of them."""

from __future__ import annotations

import pytest

from benchmarks import (
    distillation,
    distillation_classifier,
    distillation_controls,
    distillation_digits,
    distillation_finish,
    distillation_llama,
)
from benchmarks.distillation_page import (
    classifier_section,
    controls_section,
    digits_section,
    distillation_tables,
    finish_section,
    llama_section,
)
from benchmarks.students import over_seeds
from edgekit.distill.weights import weights_of
from edgekit.distillation import LossOptions
from edgekit.recipe import read_table, recipe_from_table

QUALITY = {"recall_at_1": 0.4, "rank_correlation": 0.9, "cosine_mean": 0.95, "cosine_p05": 0.8}
POINTS = [
    {"step": step, "samples": 64 * step, "quality": {"cosine_mean": 0.7, "rank_correlation": 0.6}}
    for step in (0, 100)
]
RESULTS = {
    "parameters": 1000,
    "original": {**QUALITY, "recall_at_1": 0.8},
    "teacher": {"int8": {**QUALITY, "recall_at_1": 0.8}, "in_domain": {**QUALITY, "recall_at_1": 0.5}},
    "in_domain_pairs": 5,
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
            "in_domain": QUALITY,
            "steps": [{"step": "layers", "did": "Kept 2 of 6: more.", "quality": QUALITY}],
            "curve": POINTS,
        }
    },
    "controls": {"minilm-dynamic": {"parameters": 9e6, "bytes": 9e6, "int8": QUALITY, "in_domain": QUALITY}},
    "ablation": {"cosine alone": {"0": QUALITY, "1": {**QUALITY, "cosine_mean": 0.97}}},
}


def test_every_recipe_that_trains_is_a_row_and_no_other():
    assert "minilm-b" in distillation.rows()
    assert "minilm-4l" not in distillation.rows()


@pytest.mark.parametrize("name", distillation.VARIANTS)
def test_every_row_of_the_ablation_is_a_request_that_can_be_made(name):
    changes = {**distillation.SHORT, **distillation.VARIANTS[name]}
    changed = recipe_from_table(distillation.ablated_table({"distill": changes}))
    assert changed.distill.samples == distillation.SHORT["samples"]
    losses = weights_of("sentence-embedding", changed.distill.losses, labelled=False, layered=True)
    assert len(losses) == 1 + name.startswith("+")
    assert "cosine" in losses


@pytest.mark.parametrize("name", distillation_digits.ROWS)
def test_every_student_of_digits_is_a_request_that_can_be_made(name):
    distill = {**distillation_digits.SCHEDULE, **distillation_digits.ROWS[name]}
    assert recipe_from_table({"model": "x", "distill": distill}).distill.batch == 64


def test_the_tables_tell_packages_stages_and_what_each_loss_is_worth():
    page = distillation_tables(RESULTS)
    assert "| `a` | 5.0 M | 7.0 MB | 50.0% | 0.9000 | 0.9500 | 0.8000 | 3.00x (2.90–3.10) |" in page
    assert "| `a` | 80.0% | 0.9000 | 50.0% | 0.9000 |" in page
    assert "| `a` | Kept 2 of 6 | 0.9500 | 0.9000 |" in page
    assert "| 100% | 6,400: 0.7000 (0.6000) |" in page
    assert "0.9600 (0.9500–0.9700)" in page


def test_a_page_without_an_ablation_has_no_table_of_it():
    assert "Short trainings" not in distillation_tables({**RESULTS, "ablation": {}})


def test_the_students_of_digits_are_told_with_their_range():
    row = {"runs": {"0": {"multiply_adds": 0.25}}, "mean": 0.95, "low": 0.94, "high": 0.96}
    page = digits_section({"teacher": 0.97, "command": "c", "rows": {"fresh": row}})
    assert "| fresh | 25% | 95.0% | 94.0%–96.0% |" in page


@pytest.mark.parametrize(("name", "row"), distillation_classifier.ROWS.items())
def test_a_classifier_learns_from_the_teacher_or_from_labels_or_both_as_its_row_says(name, row):
    if row is None:
        assert name == "not trained"
        return
    data, losses = row
    weights = weights_of(
        "text-classification", LossOptions(**losses), labelled=data != "unlabelled", layered=False
    )
    assert ("soft" in weights) == name.startswith("teacher")
    assert ("hard" in weights) == ("labels alone" in name or "and labels" in name)


@pytest.mark.parametrize(("name", "losses"), distillation_llama.ROWS.items())
def test_a_language_model_learns_by_the_loss_that_its_row_names(name, losses):
    if losses is None or name.startswith("encoder"):
        return
    weights = weights_of("text-generation", LossOptions(**losses), labelled=False, layered=False)
    (loss,) = weights
    assert {"hard": "next token", "soft": "forward KL", "reverse": "reverse KL"}[loss] in name
    assert LossOptions(**losses).on_policy == (0.5 if "its own texts" in name else 0)


@pytest.mark.parametrize("name", distillation_controls.ROWS)
def test_controls_differ_in_who_learns_alone(name, tmp_path):
    student = None if name == "fresh" else tmp_path
    recipe = distillation_controls.recipe_of(name, student)
    assert (recipe.distill.fresh is None) == (recipe.distill.student is not None) == (name != "fresh")
    ablated = recipe_from_table(read_table(distillation.RECIPES / f"{distillation.ABLATED}.toml"))
    alike = {"data", "learning_rate", "samples", "cache", "precision"}
    assert recipe.distill.model_dump(include=alike) == ablated.distill.model_dump(include=alike)
    losses = weights_of("sentence-embedding", recipe.distill.losses, labelled=False, layered=True)
    extra = {"also taught by": {"anchors"}, "near texts": {"similarity", "anchors"}}
    assert losses.keys() - {"cosine"} == next((extra[part] for part in extra if part in name), set())
    assert recipe.distill.neighbours == ("near texts" in name)
    assert recipe.quantize == ablated.quantize
    rows = distillation_controls.ROWS
    assert len({distillation_controls.folder_of(row) for row in rows}) == len(rows)


def test_controls_are_told_with_their_bytes():
    teacher = {"other": {"recall_at_1": 0.8}, "in_domain": {"recall_at_1": 0.5}}
    row = {"bytes": 9.9e6, "other": QUALITY, "in_domain": QUALITY}
    page = controls_section(
        {"sizes": distillation_controls.SIZES, "command": "c", "teacher": teacher, "rows": {"fresh": row}}
    )
    assert "80,000 texts" in page
    assert "| fresh | 9.9 MB | 80.0% | 0.9000 | 50.0% | 0.9000 |" in page


@pytest.mark.parametrize("name", distillation_finish.ROWS)
def test_a_finish_has_as_many_steps_as_the_training_that_it_is_compared_with(name, tmp_path):
    recipe = distillation_finish.recipe_of(name, tmp_path)
    finish = recipe.distill.finish
    assert (finish is not None) == name.startswith("finished")
    assert (recipe.quantize.embeddings == "int4") == name.endswith("in 4 bits")
    trained = recipe.distill if finish is None else finish
    assert trained.steps == distillation_finish.SIZES["steps"]
    assert trained.learning_rate == distillation_finish.SIZES["learning_rate"]
    assert recipe.compress.layers is None


def test_a_finish_is_told_beside_the_quantizer():
    results = {"sizes": distillation_finish.SIZES, "command": "c"}
    page = finish_section({**results, "teacher": {"recall_at_1": 0.8}, "rows": {"finished": QUALITY}})
    assert "| finished | 50.0% | 0.9000 | 0.9500 | 0.8000 |" in page


def test_what_runs_gave_comes_with_its_spread():
    row = over_seeds({"0": {"accuracy": 0.5}, "1": {"accuracy": 0.6}})
    assert row["accuracy"] == {"mean": pytest.approx(0.55), "low": 0.5, "high": 0.6}
    assert row["runs"]["1"]["accuracy"] == 0.6


def test_the_students_of_a_classifier_are_told_with_their_range():
    runs = {"0": {"accuracy": 0.5, "agreement": 0.8}, "1": {"accuracy": 0.6, "agreement": 0.9}}
    page = classifier_section(
        {
            "command": "c",
            "sizes": {"classes": 24, "labelled": 9, "unlabelled": 90, "test": 7, "seeds": 2, "steps": 3}
            | {"batch": 4},
            "teacher": 0.7,
            "parameters": {"teacher": 2000, "student": 1000},
            "multiply_adds": 0.25,
            "rows": {"labels alone": over_seeds(runs)},
        }
    )
    assert "| labels alone | 55.0% | 50.0%–60.0% | 85.0% |" in page
    assert "saw\n12 texts each" in page


def test_a_language_model_stands_beside_an_encoder_by_its_best_student():
    def row(ratio, agreement, loss):
        figures = {"perplexity ratio": ratio, "agreement": agreement, "loss": loss}
        figures |= {f"held-out {name}": value for name, value in figures.items()}
        return over_seeds({"0": {**figures, "writes": 3.0}})

    teacher = {"parameters": {"teacher": 9, "student": 5}, "perplexity": 100.0, "writes": 2.5}
    page = llama_section(
        {
            "command": "c",
            "sizes": {"steps": 2, "batch": 4, "seeds": 1, "evaluated": 200, "vocabulary": 4096}
            | {"trained_tokens": 1024, "layers": 3},
            "teachers": {"decoder": teacher, "encoder": {}},
            "rows": {
                "decoder, not trained": row(2.0, 0.4, 0.8),
                "decoder, forward KL": row(1.2, 0.6, 0.2),
                "decoder, reverse KL": row(1.4, 0.5, 0.4),
                "encoder, not trained": row(1, 0.7, 0.1),
                "encoder, cosine and similarities": row(1, 0.9, 0.01),
            },
        }
    )
    assert "| forward KL | 1.200 | 60.0% | 0.200 | 1.200 | 60.0% | 3.00 |" in page
    assert "| decoder, forward KL | 40.0% | 60.0% | 75.0% | like those learnt from |" in page
    assert "| encoder, cosine and similarities | 70.0% | 90.0% | 90.0% | other English |" in page
    assert "decoder, reverse KL |" not in page
    assert "the encoder won back 90.0% of the loss, the decoder 75.0%" in page
