"""Trained codes on their way into a graph: those that fit are taken to the bit, every other one is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekit import graph as g
from edgekit.errors import ModelError
from edgekit.profile import load_profile
from edgekit.quantize import calibrate, quantize
from edgekit.quantize.blocks import block_codes
from edgekit.quantize.schemes import pair_sums
from edgekit.quantize.trained import Handover, product_scales, row_scales
from edgekit.recipe import QuantizeOptions
from edgekit.record import Clock
from edgekit.trained_scales import CodeRules, ProductScales, TableScales, TrainedScales

PROFILE = load_profile("cpu-x86")
RULES = CodeRules.of(PROFILE.quantization)


@pytest.fixture
def calibration(block, batches):
    return calibrate(block, batches)


@pytest.fixture
def constants(block):
    return {v.name: g.constant(v) for v in g.load(block.only.path).graph.initializers.values()}


@pytest.fixture
def scales(constants):
    steps = {"wq": 0.5, "wk": 0.5, "wv": 0.5, "wo": 0.03125}
    products = {
        name: ProductScales(step, 100, product_scales(constants[name].T, RULES))
        for name, step in steps.items()
    }
    return TrainedScales("cpu-x86", RULES, products, {"table": TableScales(row_scales(constants["table"]))})


@pytest.fixture
def quantized(block, calibration, tmp_path):
    def make(scales, profile=PROFILE, **options):
        given = replace(calibration, trained=scales)
        model = quantize(block, given, profile, QuantizeOptions(**options), tmp_path / "q.onnx")
        record = next((r for r in model.history if r.step == "trained-scales"), None)
        return g.load(model.only.path), record

    return make


def _number(model, name):
    """Return a constant, also where the file stores it in two bytes."""
    there = model.graph.initializers
    held = there[name if name in there else f"{name}_half"].const_value.numpy()
    return held.astype(np.float32) if held.dtype == np.float16 else held


def test_products_and_tables_take_their_codes_to_the_bit(quantized, scales):
    model, record = quantized(scales)
    assert (record.facts["products"], record.facts["tables"]) == (["wq", "wk", "wv", "wo"], ["table"])
    assert not record.skipped
    for name, own in scales.products.items():
        np.testing.assert_array_equal(_number(model, f"{name}_scale"), own.weight)
    pairs = {
        (float(_step(n)), int(n.inputs[2].const_value.numpy()))
        for n in g.nodes(model.graph, "QuantizeLinear")
    }
    assert pairs == {(0.5, 100), (0.03125, 100)}
    np.testing.assert_array_equal(_number(model, "table_scale")[:, 0], scales.tables["table"].scale)


def _step(node):
    value = node.inputs[1]
    value = value if value.const_value is not None else value.producer().inputs[0]
    return value.const_value.numpy()


def test_nothing_is_smoothed_rounded_otherwise_or_corrected(quantized, scales, constants):
    model, _ = quantized(scales)
    for name in scales.products:
        codes, scale = (_number(model, f"{name}_{what}") for what in ("quantized", "scale"))
        np.testing.assert_array_equal(codes, np.rint(constants[name] / scale))
    assert not [name for name in model.graph.initializers if "smooth" in name or "corrected" in name]


def test_zero_points_are_counted_from_the_lowest_code_of_the_target(quantized, scales):
    model, _ = quantized(scales, load_profile("arm64"))
    points = {int(n.inputs[2].const_value.numpy()) for n in g.nodes(model.graph, "QuantizeLinear")}
    assert points == {100 - 128}


def _changed(scales, name, **changes):
    return replace(scales, products={**scales.products, name: replace(scales.products[name], **changes)})


@pytest.mark.parametrize(
    ("damage", "told", "why"),
    [
        (
            lambda s: _changed(s, "wo", weight=s.products["wo"].weight * 2),
            ["wo"],
            "not those that were trained",
        ),
        (lambda s: _changed(s, "wk", step=0.25), ["wq", "wk", "wv"], "with different codes"),
        (
            lambda s: replace(s, products={n: p for n, p in s.products.items() if n != "wk"}),
            ["wq", "wv"],
            "wk reads the same values",
        ),
        (
            lambda s: replace(s, products={**s.products, "wx": s.products["wo"]}),
            ["wx"],
            "no weight of that name",
        ),
        (
            lambda s: replace(s, tables={"table": TableScales(s.tables["table"].scale * 2)}),
            ["table"],
            "not those that were trained",
        ),
        (
            lambda s: replace(s, tables={"table": TableScales(s.tables["table"].scale[:3])}),
            ["table"],
            "3 were trained",
        ),
    ],
    ids=[
        "other weights",
        "other codes of one activation",
        "one is missing",
        "unknown",
        "other rows",
        "fewer",
    ],
)
def test_codes_that_do_not_fit_are_named_and_the_rest_is_taken(quantized, scales, damage, told, why):
    _, record = quantized(damage(scales))
    assert [skip.what for skip in record.skipped] == [f"trained scales of {name}" for name in told]
    assert all(why in skip.why for skip in record.skipped)
    taken = {*record.facts["products"], *record.facts["tables"]}
    assert taken == {"wq", "wk", "wv", "wo", "table"} - set(told) - {"wk" if "wq" in told else ""}


def test_excluded_products_are_named(quantized, scales):
    _, record = quantized(scales, exclude=("MatMul_12",))
    assert [skip.what for skip in record.skipped] == ["trained scales of wo"]


def test_tables_stored_otherwise_than_they_were_trained_are_named(quantized, scales, constants):
    found = block_codes(constants["table"])
    _, record = quantized(replace(scales, tables={"table": TableScales(found.scale, found.zero_point)}))
    assert [(skip.what, "4 bits and is stored in 8" in skip.why) for skip in record.skipped] == [
        ("trained scales of table", True)
    ]


def test_targets_of_other_codes_take_none(quantized, scales):
    _, record = quantized(scales, load_profile("cpu-x86-portable"))
    assert [skip.what for skip in record.skipped] == ["scales trained for cpu-x86"]
    record = Handover.of(scales, load_profile("android-qnn")).record(Clock())
    assert [skip.what for skip in record.skipped] == ["scales trained for cpu-x86"]


def test_weights_that_cannot_saturate_are_taken_as_they_are(quantized, scales, constants):
    profile = load_profile("cpu-x86-portable")
    rules = CodeRules.of(profile.quantization)
    safe = {n: replace(p, weight=product_scales(constants[n].T, rules)) for n, p in scales.products.items()}
    model, record = quantized(replace(scales, rules=rules, products=safe), profile)
    assert not record.skipped
    for name, own in safe.items():
        np.testing.assert_array_equal(_number(model, f"{name}_scale"), own.weight)
        assert pair_sums(_number(model, f"{name}_quantized")).max() <= 128
    assert any((safe[name].weight > scales.products[name].weight).any() for name in safe)


def test_scales_that_belong_to_nothing_are_an_error(quantized, scales):
    strange = {f"{name}.other": own for name, own in scales.products.items()}
    with pytest.raises(
        ModelError, match=r"none of the trained scales belongs to this graph, e\.g\. those of wq"
    ):
        quantized(replace(scales, products=strange, tables={}))


def test_a_model_that_was_never_trained_with_codes_has_no_record_of_them(quantized):
    assert quantized(None)[1] is None
