"""Students that learn: for every task, through interruptions, and what is refused."""

from __future__ import annotations

import json
import tomllib
from itertools import pairwise

import numpy as np
import pytest

import edgekit
from edgekit.distilling import training_folder
from edgekit.errors import DataError, RecipeError
from edgekit.golden import Golden
from edgekit.model import ModelRef
from edgekit.recipe import recipe_from_table, to_toml
from edgekit.source import load
from tests.tasks.causal import save_causal, write_texts

TEXTS = [
    f"the {a} {b} {c} on the {d}"
    for a in ("old", "new", "red")
    for b in ("dog", "cat", "man")
    for c in ("sat", "ran")
    for d in ("road", "hill", "bed")
]
SCHEDULE = {"steps": 6, "batch": 8, "held_out": 10, "learning_rate": 0.003}
LOOSE = {"cosine_mean": -1.0, "cosine_p05": -1.0, "rank_correlation": -1.0}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "texts.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "texts.csv"
    rows = [f"{text},{'positive' if 'dog' in text else 'negative'}" for text in TEXTS]
    path.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    return path


@pytest.fixture
def request_for(tiny_st_dir, texts):
    def make(model=tiny_st_dir, **distill):
        distill = {"data": str(texts), **SCHEDULE, **distill}
        if not {"student", "fresh", "changes"} & distill.keys():
            distill["fresh"] = {"layers": 1}
        return recipe_from_table({"model": str(model), "validation": {"samples": 12}, "distill": distill})

    return make


def _record(result):
    return next(r for r in result.history if r.step == "distillation")


def test_a_student_comes_closer_to_its_teacher_and_loads_again(request_for, tmp_path):
    result = edgekit.distill_model(request_for(steps=30), tmp_path / "taught")
    again = load(ModelRef(str(result.output)), None, scratch=tmp_path)
    assert sum(p.numel() for p in again.module.parameters()) == result.parameters < result.parameters_before
    curve = _record(result).facts["curve"]
    assert curve[-1]["quality"]["closeness"] > curve[0]["quality"]["closeness"]
    assert {"cosine", "hidden"} == curve[1]["losses"].keys()
    written = json.loads((result.output / "compress.json").read_text())
    assert [r["step"] for r in written["history"] if r["stage"] == "distill"] == ["fresh", "distillation"]
    assert not training_folder(result.output).exists()


def test_times_are_not_among_the_facts_that_a_package_keeps(request_for, tmp_path):
    facts = _record(edgekit.distill_model(request_for(steps=2), tmp_path / "taught")).facts
    assert "seconds" not in json.dumps(facts)


def test_an_interrupted_training_ends_in_the_same_weights(request_for, tmp_path):
    # Anchors are drawn at random, batches of neighbours made of the teacher's outputs.
    request = request_for(losses={"anchors": 0.3, "similarity": 0.3}, neighbours=True)
    whole = edgekit.distill_model(request, tmp_path / "whole")

    def interrupting(stage, message, fraction=None):
        if "step 3 of 6" in message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"parts\.training keeps"):
        edgekit.distill_model(request, tmp_path / "parts", progress=interrupting)
    assert training_folder(tmp_path / "parts").is_dir()
    assert not (tmp_path / "parts").exists()
    parts = edgekit.distill_model(request, tmp_path / "parts")
    weights = [next(r.output.rglob("model.safetensors")).read_bytes() for r in (whole, parts)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"neighbours": True}, "neighbours needs a loss that compares texts"),
        ({"losses": {"comparisons_from": 0.5}}, "comparisons_from is there, and no loss that compares"),
    ],
)
def test_comparisons_are_asked_for_with_a_loss_that_compares(request_for, asked, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        edgekit.distill_model(request_for(**asked), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_best_is_chosen_of_what_has_learnt_to_compare_too(request_for, tmp_path):
    losses = {"similarity": 1.0, "comparisons_from": 0.5}
    request = request_for(losses=losses, neighbours=True, evaluate_every=1, learning_rate=0.3)
    record = _record(edgekit.distill_model(request, tmp_path / "out"))
    compared = [point["step"] for point in record.facts["curve"] if "similarity" in point["losses"]]
    assert compared == [5, 6]
    assert record.facts["best_step"] > 3


def test_a_corpus_that_changed_meanwhile_is_refused_with_the_difference(request_for, texts, tmp_path):
    def interrupting(stage, message, fraction=None):
        if "step 3 of 6" in message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edgekit.distill_model(request_for(), tmp_path / "out", progress=interrupting)
    other = tmp_path / "other.txt"
    other.write_text("\n".join([*TEXTS, "one more cat sat"]), encoding="utf-8")
    with pytest.raises(DataError, match="data"):
        edgekit.distill_model(request_for(data=str(other)), tmp_path / "out")


def test_what_compress_made_learns_in_the_same_recipe_and_the_package_is_judged_by_the_teacher(
    tiny_st_dir, texts, tmp_path
):
    recipe = recipe_from_table(
        {
            "model": str(tiny_st_dir),
            "targets": ["cpu-x86"],
            "calibration": {"data": str(texts), "samples": 40},
            "validation": {"samples": 12},
            "compress": {"layers": {"keep": 1}},
            "distill": SCHEDULE,
            "latency": {"runs": 0},
            "gates": LOOSE,
        }
    )
    result = edgekit.export(recipe, tmp_path / "out")
    history = result.reports[0].history
    assert [r.step for r in history if r.stage in ("compress", "distill")] == ["layers", "distillation"]
    taught, pruned = (
        next(r for r in history if r.step == step).facts["quality"]["cosine_mean"]
        for step in ("distillation", "layers")
    )
    assert taught >= pruned
    golden = Golden.load(result.packages[0].path / "golden.npz")
    teacher = load(ModelRef(str(tiny_st_dir)), None, scratch=tmp_path)
    batch = golden.batches[0]
    import torch

    with torch.no_grad():
        own = teacher.module(**{name: torch.from_numpy(value) for name, value in batch.inputs.items()})
    wanted = next(iter(own.values())).numpy()
    np.testing.assert_allclose(next(iter(batch.outputs.values())), wanted, atol=1e-5)
    assert "How the student learned" in (tmp_path / "out" / "report.html").read_text()
    assert not training_folder(tmp_path / "out").exists()


def test_a_directory_that_compress_wrote_brings_its_history(tiny_st_dir, texts, request_for, tmp_path):
    shrunk = recipe_from_table(
        {
            "model": str(tiny_st_dir),
            "calibration": {"data": str(texts), "samples": 40},
            "validation": {"samples": 12},
            "compress": {"layers": {"keep": [1]}},
        }
    )
    small = edgekit.compress_model(shrunk, tmp_path / "small").output
    result = edgekit.distill_model(request_for(student=str(small), steps=2), tmp_path / "taught")
    steps = [(r.step, "quality" in r.facts) for r in result.history if r.stage in ("compress", "distill")]
    assert steps == [("layers", False), ("student", True), ("distillation", True)]


@pytest.mark.parametrize("losses", [{}, {"relations": 1.0, "relation_heads": 4}, {"reverse": 0.5}], ids=str)
def test_classes_are_learnt_from_the_teacher_and_from_labels(
    request_for, tiny_classifier_dir, labelled, losses, tmp_path
):
    recipe = request_for(
        tiny_classifier_dir, data=str(labelled), column="text", label_column="label", losses=losses
    )
    record = _record(edgekit.distill_model(recipe, tmp_path / "taught"))
    assert {"soft", "hard"} <= record.facts["losses"].keys()
    assert record.facts["losses"].keys() == record.facts["curve"][1]["losses"].keys()


def test_a_label_for_every_token(request_for, tiny_token_classifier_dir, tmp_path):
    record = _record(edgekit.distill_model(request_for(tiny_token_classifier_dir), tmp_path / "taught"))
    assert record.facts["losses"].keys() == {"soft", "hidden"}


def test_images_are_classified(request_for, tiny_vit_dir, tmp_path):
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", pixel_values=generator.normal(size=(48, 3, 16, 16)).astype(np.float32))
    recipe = request_for(tiny_vit_dir, data=str(tmp_path / "images.npz"))
    assert _record(edgekit.distill_model(recipe, tmp_path / "taught")).facts["losses"].keys() == {
        "soft",
        "hidden",
    }


def test_next_tokens_are_learnt_by_a_student_with_fewer_of_them(tmp_path):
    teacher, data = save_causal("llama", tmp_path / "llama"), write_texts(tmp_path / "texts.txt")
    longer = {"steps": 40, "batch": 16, "held_out": 24, "learning_rate": 0.001, "patience": 0}
    recipe = recipe_from_table(
        {
            "model": str(teacher),
            "calibration": {"data": str(data), "samples": 64},
            "validation": {"samples": 12},
            "compress": {"vocabulary": {"tokens": 290}, "layers": {"keep": 1}},
            "distill": {**SCHEDULE, **longer, "losses": {"hidden": 0}},
        }
    )
    result = edgekit.distill_model(recipe, tmp_path / "taught")
    facts = _record(result).facts
    assert facts["losses"].keys() == {"soft"}
    assert facts["curve"][-1]["quality"]["closeness"] > facts["curve"][0]["quality"]["closeness"]


def _causal_recipe(tmp_path, **distill):
    teacher, data = save_causal("llama", tmp_path / "llama"), write_texts(tmp_path / "texts.txt")
    return recipe_from_table(
        {
            "model": str(teacher),
            "calibration": {"data": str(data), "samples": 64},
            "validation": {"samples": 12},
            "distill": {**SCHEDULE, "batch": 16, "held_out": 24, "fresh": {"layers": 1}, **distill},
        }
    )


def test_a_student_learns_from_what_it_writes_itself_and_goes_on_exactly_where_it_was(tmp_path):
    own = {"soft": 0.0, "reverse": 1.0, "on_policy": 0.5, "relations": 1.0, "relation_heads": 4}
    recipe = _causal_recipe(tmp_path, losses=own, learning_rate=0.01, patience=0)
    whole = edgekit.distill_model(recipe, tmp_path / "whole")
    facts = _record(whole).facts
    assert facts["losses"].keys() == {"reverse", "hidden", "relations"}
    assert facts["curve"][-1]["quality"]["closeness"] > facts["curve"][0]["quality"]["closeness"]

    def interrupting(stage, message, fraction=None):
        if "step 3 of 6" in message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edgekit.distill_model(recipe, tmp_path / "parts", progress=interrupting)
    parts = edgekit.distill_model(recipe, tmp_path / "parts")
    weights = [next(r.output.rglob("model.safetensors")).read_bytes() for r in (whole, parts)]
    assert weights[0] == weights[1]


def test_pairs_pull_texts_together(request_for, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("text,answer\n" + "\n".join(f"{a},{b}" for a, b in pairwise(TEXTS)))
    recipe = request_for(
        data=str(path), column="text", label_column="answer", losses={"contrastive": 0.5, "hidden": 0}
    )
    record = _record(edgekit.distill_model(recipe, tmp_path / "taught"))
    assert record.facts["curve"][1]["losses"]["contrastive"] > 0


@pytest.mark.parametrize(
    ("distill", "said"),
    [
        ({"student": "x", "fresh": {"layers": 1}}, "each name a student"),
        ({"changes": {}}, "nothing says who learns"),
        ({"fresh": {"layers": 40}}, "parameters, the teacher"),
        ({"fresh": {"layers": 1}, "losses": {"soft": 1.0}}, "soft is nothing for sentence-embedding"),
        ({"fresh": {"layers": 1}, "losses": {"hidden": 0, "cosine": 0, "similarity": 0}}, "nothing to learn"),
        ({"fresh": {"hidden": 30}}, "cannot be built|gives"),
    ],
    ids=str,
)
def test_a_request_that_cannot_be_met_leaves_nothing(request_for, tmp_path, distill, said):
    with pytest.raises(RecipeError if "built" not in said else edgekit.EdgekitError, match=said):
        edgekit.distill_model(request_for(**distill), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_little_data_to_hold_anything_apart_is_refused(request_for, tmp_path):
    path = tmp_path / "few.txt"
    path.write_text("\n".join(TEXTS[:12]), encoding="utf-8")
    with pytest.raises(DataError):
        edgekit.distill_model(request_for(data=str(path)), tmp_path / "out")


def test_a_recipe_without_a_student_table_says_how_to_name_one(tiny_st_dir, tmp_path):
    with pytest.raises(RecipeError, match="nothing says who learns"):
        edgekit.distill_model(recipe_from_table({"model": str(tiny_st_dir)}), tmp_path / "out")


def test_the_table_survives_the_way_through_toml(request_for):
    recipe = request_for(losses={"temperature": 4.0, "hidden": 0.0})
    assert recipe_from_table(tomllib.loads(to_toml(recipe))) == recipe
