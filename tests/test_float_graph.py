"""Targets share a float graph as far as their rules let them."""

from edgekit import Recipe, export
from edgekit.float_graph import float_key
from edgekit.profile import load_profile
from edgekit.recipe import LatencyOptions, QuantizeOptions, ValidationOptions

PLAIN = """
extends = "cpu-x86"
title = "As exported"
[optimize]
rewrites = ["rows"]
"""


def test_builtin_targets_of_one_opset_start_from_one_graph() -> None:
    assert float_key(load_profile("cpu-x86")) == float_key(load_profile("cpu-x86-avx2"))


def test_each_target_gets_the_rewrites_that_it_names(tiny_st_dir, tmp_path) -> None:
    (tmp_path / "plain.toml").write_text(PLAIN, encoding="utf-8")
    texts = [f"the {one} cat sat on the {other}" for one in "abcdef" for other in ("road", "hill", "bed")]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    recipe = Recipe(
        model=str(tiny_st_dir),
        targets=("cpu-x86", str(tmp_path / "plain.toml")),
        quantize=QuantizeOptions(method="none"),
        validation=ValidationOptions(data=str(tmp_path / "texts.txt"), samples=16),
        latency=LatencyOptions(runs=0),
        keep_float=True,
    )
    made = export(recipe, tmp_path / "out")
    done = [
        next(record for record in report.history if record.stage == "optimize").facts["rewrites"]
        for report in made.reports
    ]
    assert list(done[0]) == list(load_profile("cpu-x86").optimize.rewrites)
    assert list(done[1]) == ["rows"]
    assert done[0]["packed-projections"] > 0
    assert (made.output / "float-opset20.onnx").is_file()
