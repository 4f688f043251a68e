"""Students that learn to compute with a target's codes, and packages that have those very codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

import edgekit
from edgekit import graph as g
from edgekit.compress.base import branch
from edgekit.compression import CompressOptions
from edgekit.data import Sample
from edgekit.distilling import training_folder
from edgekit.errors import RecipeError
from edgekit.finishing import blocks_of, places_of
from edgekit.model import ModelRef
from edgekit.optimize import optimize
from edgekit.profile import load_profile
from edgekit.quantize import calibrate, quantize
from edgekit.recipe import QuantizeOptions, recipe_from_table
from edgekit.runtime import open_session
from edgekit.source import load
from edgekit.tasks.batches import SingleBatches
from edgekit.to_onnx import export_model
from edgekit.trained_scales import FILE, TableScales

TEXTS = [
    f"the {a} {b} {c} on the {d}"
    for a in ("old", "new", "red")
    for b in ("dog", "cat", "man")
    for c in ("sat", "ran")
    for d in ("road", "hill", "bed")
]
LOOSE = {"cosine_mean": -1.0, "cosine_p05": -1.0, "rank_correlation": -1.0, "clip_rate": 1.0}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "texts.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def request_for(tiny_st_dir, texts):
    def make(*, targets=("cpu-x86",), finish=None, quantize=None, compress=None, **distill):
        schedule = {"steps": 10, "batch": 8, "held_out": 10, "learning_rate": 0.003}
        finish = {"steps": 6, "learning_rate": 1e-3} if finish is None else finish
        return recipe_from_table(
            {
                "model": str(tiny_st_dir),
                "targets": list(targets),
                "calibration": {"data": str(texts), "samples": 40},
                "validation": {"samples": 12},
                "compress": compress or {"layers": {"keep": 1}},
                "distill": {**schedule, **distill, "finish": finish},
                "quantize": {"mixed": False, **(quantize or {})},
                "latency": {"runs": 0},
                "gates": LOOSE,
            }
        )

    return make


@pytest.fixture(scope="module")
def made(request_for, tmp_path_factory):
    return edgekit.distill_model(request_for(), tmp_path_factory.mktemp("made") / "taught")


def _finish(history):
    return next(r for r in history if (r.stage, r.step) == ("distill", "finish"))


def _taken(report):
    return next(r for r in report.history if r.step == "trained-scales")


@pytest.fixture(scope="module")
def student(made, tmp_path_factory):
    return load(ModelRef(str(made.output)), None, scratch=tmp_path_factory.mktemp("loaded"))


def _calibrated(student, folder):
    """Return a student's float graph and its calibration."""
    graph = optimize(export_model(student, folder, opset=20, ir_version=10), folder / "optimized.onnx")
    samples = [Sample(text) for text in TEXTS[:40]]
    return graph, calibrate(graph, SingleBatches(student.preprocessor, samples))


@pytest.fixture(scope="module")
def quantized(student, tmp_path_factory):
    """Return a function that quantizes the student's graph for a target."""
    folder = tmp_path_factory.mktemp("graph")
    graph, calibration = _calibrated(student, folder)

    def make(target, trained=student.trained, **options):
        path, given = folder / f"{target}.onnx", replace(calibration, trained=trained)
        return quantize(graph, given, load_profile(target), QuantizeOptions(**options), path)

    return make


def _number(value: ir.Value | None) -> np.ndarray:
    """Return a constant, through the Cast of what the file stores in two bytes."""
    held = g.constant(value)
    if held is None:
        assert value is not None
        cast = value.producer()
        assert cast is not None
        assert cast.op_type == "Cast"
        held = g.constant(cast.inputs[0])
    assert held is not None
    return held.astype(np.float32) if held.dtype == np.float16 else held


def _products(path):
    """Return module -> (activation's scale, zero point, weight's scales) of every product in a graph."""
    found = {}
    for node in g.nodes(g.load(path).graph, "MatMul", "Gemm"):
        read, weight = (node.inputs[index].producer() for index in (0, 1))
        if weight is None or weight.op_type != "DequantizeLinear":
            continue
        modules = [part.rpartition("/")[0] for part in node.name.split("+")]
        scales = np.split(_number(weight.inputs[1]), len(modules))
        for module, scale in zip(modules, scales, strict=True):
            found[module] = (float(_number(read.inputs[1])), int(_number(read.inputs[2])), scale)
    return found


def _same_scales(path, scales, lowest=0):
    """Compare every scale of a graph with what was trained, bit for bit."""
    found = _products(path)
    assert found.keys() == scales.products.keys()
    for name, own in scales.products.items():
        step, zero, weight = found[name]
        assert (step, zero) == (own.step, own.zero + lowest)
        np.testing.assert_array_equal(weight, own.weight)
    constants = g.load(path).graph.initializers
    for name, table in scales.tables.items():
        (held,) = (v for v in constants.values() if v.name.startswith(f"{name}.weight_scale"))
        np.testing.assert_array_equal(np.squeeze(_number(held)), np.squeeze(table.scale))


@pytest.mark.parametrize(("target", "lowest"), [("cpu-x86", 0), ("arm64", -128)])
def test_graphs_have_the_trained_scales_bit_for_bit(quantized, student, target, lowest):
    model = quantized(target)
    _same_scales(model.only.path, student.trained, lowest)
    taken = _taken(model)
    assert taken.facts["products"] == list(student.trained.products)
    assert taken.facts["tables"] == list(student.trained.tables)
    assert not taken.skipped


def test_a_graph_gives_what_the_student_gave_in_training(quantized, student):
    import torch

    from edgekit.distill.fake_quant import InputCodes, with_codes

    paths = {name.removeprefix("model."): name for name, _ in student.module.named_modules()}
    products = {
        paths[name]: InputCodes(own.step, own.zero, 0, 255, saturation_safe=False)
        for name, own in student.trained.products.items()
    }
    coded = with_codes(student, products, {paths[name]: None for name in student.trained.tables})
    session = open_session(quantized("cpu-x86").only.path, threads=1)
    for text in TEXTS[::9]:
        inputs = student.preprocessor.batch([Sample(text)])
        found = session.run(None, {value.name: inputs[value.name] for value in session.get_inputs()})[0]
        tensors = {name: torch.from_numpy(inputs[name]) for name in student.input_names}
        with torch.no_grad():
            wanted, plain = (next(iter(m.module(**tensors).values())).numpy() for m in (coded, student))
        assert np.abs(found - wanted).max() < 0.2 * np.abs(found - plain).max()


def test_a_target_of_other_codes_takes_none_and_says_so(quantized):
    record = _taken(quantized("cpu-x86-portable"))
    assert [skip.what for skip in record.skipped] == ["scales trained for cpu-x86"]


def test_what_the_request_excludes_is_named(quantized):
    assert {skip.what for skip in _taken(quantized("cpu-x86", exclude=("*output.dense/*",))).skipped} == {
        "trained scales of encoder.layer.0.attention.output.dense",
        "trained scales of encoder.layer.0.output.dense",
    }


def test_excluded_products_are_not_trained_with_codes(request_for, student):
    profile = load_profile("cpu-x86")
    every, fewer = (
        places_of(student, request_for(quantize={"exclude": exclude}), profile).products
        for exclude in ([], ["*output.dense/*"])
    )
    left = {name for group in every for name in group} - {name for group in fewer for name in group}
    assert len(left) == 2
    assert all(name.endswith("output.dense") for name in left)


def test_what_reads_the_same_values_has_the_same_codes(request_for, student):
    places = places_of(student, request_for(), load_profile("cpu-x86"))
    together = [{name.rpartition(".")[2] for name in group} for group in places.products if len(group) > 1]
    assert together == [{"query", "key", "value"}]


def test_who_changes_weights_drops_their_scales(student):
    assert student.trained is not None
    assert branch(student).trained is None


def test_a_finish_brings_the_student_with_codes_closer_to_its_teacher(request_for, tmp_path):
    recipe = request_for(steps=0, finish={"steps": 20, "learning_rate": 3e-3}, fresh={"layers": 1})
    recipe = recipe.model_copy(update={"compress": CompressOptions()})
    result = edgekit.distill_model(recipe, tmp_path / "taught")
    facts = _finish(result.history).facts
    curve = [point["quality"]["closeness"] for point in facts["curve"]]
    assert max(curve) > curve[0]
    assert (facts["products"], facts["target"]) == (7, "cpu-x86")
    assert not any(r.step == "distillation" for r in result.history)


def test_in_a_finish_comparisons_count_from_its_first_step(request_for, tmp_path):
    losses = {"similarity": 1.0, "comparisons_from": 0.9}
    recipe = request_for(steps=10, finish={"steps": 2}, fresh={"layers": 1}, losses=losses)
    recipe = recipe.model_copy(update={"compress": CompressOptions()})
    first, *after = _finish(edgekit.distill_model(recipe, tmp_path / "out").history).facts["curve"]
    assert not first["losses"]
    assert all("similarity" in point["losses"] for point in after)


def test_one_recipe_trains_finishes_and_packages_with_tables_in_4_bits(request_for, tmp_path):
    result = edgekit.export(request_for(quantize={"embeddings": "int4"}), tmp_path / "out")
    history = result.reports[0].history
    assert [r.step for r in history if r.stage == "distill"] == ["distillation", "finish"]
    assert all("quality" in r.facts for r in history if r.stage == "distill")
    assert _finish(history).facts["tables"] == {"embeddings.word_embeddings": "int4"}
    taken = _taken(result.reports[0])
    assert (len(taken.facts["products"]), len(taken.facts["tables"])) == (7, 1)
    assert not taken.skipped
    assert not training_folder(tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("text-classification", "tiny_classifier_dir"),
        ("token-classification", "tiny_token_classifier_dir"),
    ],
)
def test_classes_of_texts_and_tokens_are_finished_too(task, model, request, texts, tmp_path):
    recipe = recipe_from_table(
        {
            "model": str(request.getfixturevalue(model)),
            "validation": {"samples": 12},
            "distill": {
                "data": str(texts),
                "fresh": {"layers": 1},
                "steps": 0,
                "batch": 8,
                "held_out": 10,
                "finish": {"target": "cpu-x86", "steps": 2},
            },
        }
    )
    made = edgekit.distill_model(recipe, tmp_path / "taught")
    student = load(ModelRef(str(made.output)), None, scratch=tmp_path)
    assert (student.task, len(student.trained.products)) == (task, _finish(made.history).facts["products"])
    graph, calibration = _calibrated(student, tmp_path)
    given = replace(calibration, trained=student.trained)
    model = quantize(graph, given, load_profile("cpu-x86"), QuantizeOptions(), tmp_path / "q.onnx")
    _same_scales(model.only.path, student.trained)
    assert not _taken(model).skipped


def test_blocks_of_4_bits_are_handed_over_bit_for_bit(request_for, quantized, student):
    recipe = request_for(quantize={"embeddings": "int4"})
    places = places_of(student, recipe, load_profile("cpu-x86"))
    ((path, blocks),) = blocks_of(student, places, four_bits=True).items()
    assert blocks is not None
    own = TableScales(blocks.scale * np.float32(0.5))  # not what the search would find
    scales = replace(student.trained, tables={path.removeprefix("model."): own})
    model = quantized("cpu-x86", embeddings="int4", trained=scales)
    _same_scales(model.only.path, scales)
    assert not _taken(model).skipped


def test_an_interrupted_finish_ends_in_the_same_bytes(request_for, made, tmp_path):
    def interrupting(stage, message, fraction=None):
        if "step 3 of 6" in message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edgekit.distill_model(request_for(), tmp_path / "parts", progress=interrupting)
    parts = edgekit.distill_model(request_for(), tmp_path / "parts")
    for name in ("model.safetensors", FILE):
        both = [next(r.output.rglob(name)).read_bytes() for r in (made, parts)]
        assert both[0] == both[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ()}, "no target whose codes"),
        ({"targets": ("android-qnn",)}, "puts the whole graph in codes"),
        ({"quantize": {"method": "none"}}, 'quantize.method = "none"'),
        (
            {"compress": {"layers": {"keep": 1}, "low_rank": {"parameters": 0.9}}},
            r"\[compress.low_rank\] changes",
        ),
    ],
    ids=["no target", "whole graph", "no quantization", "weights change later"],
)
def test_a_finish_that_cannot_be_is_refused_before_the_training(request_for, changes, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        edgekit.distill_model(request_for(**changes), tmp_path / "out")
    assert not training_folder(tmp_path / "out").exists()


def test_images_are_no_task_for_a_finish(tiny_vit_dir, tmp_path):
    images = np.random.default_rng(0).normal(size=(48, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "images.npz", pixel_values=images)
    recipe = recipe_from_table(
        {
            "model": str(tiny_vit_dir),
            "validation": {"samples": 12},
            "distill": {
                "data": str(tmp_path / "images.npz"),
                "fresh": {"layers": 1},
                "finish": {"target": "cpu-x86"},
            },
        }
    )
    with pytest.raises(RecipeError, match="nothing for image-classification"):
        edgekit.distill_model(recipe, tmp_path / "out")


def test_no_steps_and_no_finish_is_no_training(request_for, tmp_path):
    recipe = request_for(steps=0)
    assert recipe.distill is not None
    bare = recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"finish": None})})
    with pytest.raises(RecipeError, match="trains nothing"):
        edgekit.distill_model(bare, tmp_path / "out")
