"""Packages side by side: what is read, what is measured, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest

import edgekit
from edgekit.comparing import compare
from edgekit.errors import InputError, MachineError, ModelError, PackageError, RecipeError
from edgekit.golden import Golden, GoldenBatch
from edgekit.machine import read_machine
from edgekit.package_facts import fingerprint, form_of, short_labels
from edgekit.record import StepRecord
from tests.packages import make_package

TRIM = StepRecord("compress", "vocabulary", "kept 9,000 of 30,522 tokens", seconds=3.0)
INT8 = StepRecord("quantize", "write", "static int8, 3.90x smaller", seconds=1.0)
ELSEWHERE = "aarch64" if read_machine().isa != "aarch64" else "x86_64"


@pytest.fixture
def two(tmp_path):
    return [
        make_package(tmp_path / "plain", steps=[INT8]),
        make_package(tmp_path / "trimmed", steps=[TRIM, INT8], error=1e-3, sqnr_db=30.0),
    ]


class TestRead:
    def test_each_row_says_what_was_done_what_it_is_and_what_it_took(self, two):
        plain, trimmed = compare(two).rows
        assert (plain.label, trimmed.label) == ("plain", "trimmed")
        assert (plain.techniques, trimmed.techniques) == ((), ("vocabulary",))
        assert plain.form == trimmed.form == "static int8"
        assert plain.parameters == 32
        assert plain.file_bytes == (two[0] / "model.onnx").stat().st_size
        assert plain.compressed_bytes > 0
        assert plain.peak_memory_bytes == 5_000_000
        assert trimmed.seconds == {"load": 1.5, "compress": 3.0, "quantize": 1.0, "package": 0.5}
        assert trimmed.made_in_seconds == 6.0
        assert "kept 9,000 of 30,522 tokens" in trimmed.steps
        assert [check.name for check in plain.quality] == ["sqnr_db"]

    def test_reported_speeds_are_said_to_be_over_each_ones_own_float_graph(self, two):
        comparison = compare(two)
        assert [speed.speedup for speed in comparison.rows[0].speeds] == [2.0]
        assert "each over the float graph of its original model" in comparison.basis
        assert comparison.speeds_compare
        assert not comparison.measured

    def test_speeds_over_different_float_graphs_are_not_ranked(self, two, tmp_path):
        two.append(make_package(tmp_path / "layers", error=1e-2, float_bytes=500, speedups=[9.0]))
        comparison = compare(two)
        assert not comparison.speeds_compare
        assert any("different float graphs" in note for note in comparison.notes)

    def test_a_package_without_a_report_says_that_nothing_is_recorded(self, two, tmp_path):
        bare = make_package(tmp_path / "bare", report=False, error=0.5)
        row = compare([*two, bare]).rows[2]
        assert row.quality == ()
        assert row.made_in_seconds is None
        assert "not recorded" in row.speed_note

    def test_a_report_beside_a_package_is_taken_where_it_holds_none(self, tmp_path):
        bare = make_package(tmp_path / "out" / "here", report=False)
        whole = make_package(tmp_path / "other" / "here")
        document = json.loads((whole / "report.json").read_text())
        (tmp_path / "out" / "report.json").write_text(
            json.dumps({"schema_version": 1, "targets": [document]})
        )
        assert compare([bare]).rows[0].quality[0].measured == 40.0

    def test_quality_against_another_model_is_not_ranked(self, two, tmp_path):
        two.append(make_package(tmp_path / "other", seed=1, sqnr_db=99.0))
        comparison = compare(two)
        assert [row.reference for row in comparison.rows] == [0, 0, 1]
        assert any(note.startswith("Quality of other was measured") for note in comparison.notes)
        assert not any("other" in row.dominated_by for row in comparison.rows)

    def test_one_package_has_nothing_to_be_compared_with(self, two):
        comparison = compare(two[:1])
        assert comparison.front == comparison.rows

    def test_it_is_the_public_verb(self, two):
        assert isinstance(edgekit.compare(two), edgekit.Comparison)

    def test_it_is_json(self, two):
        document = json.loads(json.dumps(compare(two).to_json()))
        assert document["rows"][1]["made_in_seconds"] == 6.0
        assert document["rows"][0]["quality"][0]["state"] == "info"


class TestMeasured:
    def test_speeds_are_relative_to_the_first_package(self, two):
        comparison = compare(two, measure=True, runs=10)
        first, second = comparison.rows
        assert [speed.shape for speed in first.speeds] == ["1", "4"]
        assert all(speed.speedup == 1.0 for speed in first.speeds)
        assert all(s.speedup_low <= s.speedup <= s.speedup_high for s in second.speeds)
        assert second.overall[1] <= second.overall[0] <= second.overall[2]
        assert second.peak_memory_bytes > 0
        assert comparison.measured
        assert comparison.speeds_compare
        assert "relative to plain" in comparison.basis
        assert "10 runs" in comparison.basis

    def test_a_wider_product_is_slower_than_the_baseline(self, tmp_path):
        narrow = make_package(tmp_path / "narrow")
        wide = make_package(tmp_path / "wide", width=400_000)
        row = compare([narrow, wide], measure=True, runs=40).rows[1]
        assert max(speed.speedup for speed in row.speeds) < 1

    def test_a_file_can_be_the_baseline(self, two):
        comparison = compare(two, measure=True, runs=10, baseline=two[0] / "model.onnx")
        assert str(two[0] / "model.onnx") in comparison.basis
        assert len(comparison.rows) == 2

    def test_a_package_outside_the_comparison_can_be_the_baseline(self, two, tmp_path):
        base = make_package(tmp_path / "base", error=0.1)
        comparison = compare(two, measure=True, runs=10, baseline=base)
        assert str(base) in comparison.basis
        assert [row.label for row in comparison.rows] == ["plain", "trimmed"]

    def test_a_package_for_another_cpu_says_why_it_was_not_measured(self, two, tmp_path):
        two.insert(0, make_package(tmp_path / "elsewhere", isa=ELSEWHERE, error=0.2))
        comparison = compare(two, measure=True, runs=10)
        assert f"not measured here: the target is {ELSEWHERE}" in comparison.rows[0].speed_note
        assert comparison.rows[0].speeds == ()
        assert "relative to plain" in comparison.basis

    def test_a_graph_that_the_runtime_refuses_does_not_spoil_the_others(self, two, tmp_path):
        broken = make_package(tmp_path / "broken", error=0.3)
        proto = onnx.load(broken / "model.onnx")
        proto.graph.node[0].op_type = "NoSuchOp"
        onnx.save(proto, broken / "model.onnx")
        _sealed_again(broken)
        rows = compare([broken, *two], measure=True, runs=10).rows
        assert "cannot open" in rows[0].speed_note
        assert rows[1].speeds
        assert rows[2].speeds

    def test_nothing_that_can_be_timed_is_an_error(self, tmp_path):
        package = make_package(tmp_path / "elsewhere", isa=ELSEWHERE)
        with pytest.raises(MachineError, match="none of the packages can be timed here"):
            compare([package], measure=True)

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda folder: folder / "none", ModelError, "baseline not found"),
            (lambda folder: folder, PackageError, "is not a package"),
            (lambda folder: make_package(folder / "b", isa=ELSEWHERE), ModelError, "cannot be timed here"),
            (
                lambda folder: make_package(folder / "b", task="text-classification"),
                InputError,
                "is for text-classification, and the packages are for generic",
            ),
        ],
        ids=["missing", "no package", "for another CPU", "for another task"],
    )
    def test_a_baseline_that_is_none_is_named(self, two, tmp_path, make, error, message):
        baseline = make(tmp_path)
        with pytest.raises(error, match=message):
            compare(two, measure=True, runs=10, baseline=baseline)

    def test_a_baseline_with_other_inputs_is_refused(self, two, tmp_path):
        proto = onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["" : 20]>'
            " net (float[batch, 8] z) => (float[batch, 8] y) { y = Abs (z) }"
        )
        onnx.save(proto, tmp_path / "abs.onnx")
        with pytest.raises(ModelError, match=r"abs\.onnx cannot be timed: it wants the input 'z'"):
            compare(two, measure=True, runs=10, baseline=tmp_path / "abs.onnx")


class TestRefused:
    def test_no_package_at_all(self):
        with pytest.raises(InputError, match="no package to compare"):
            compare([])

    def test_the_same_folder_twice(self, two):
        with pytest.raises(InputError, match="is given twice"):
            compare([two[0], two[1], two[0] / ".." / "plain"])

    def test_a_copy_of_a_package(self, two, tmp_path):
        shutil.copytree(two[0], tmp_path / "copy")
        with pytest.raises(InputError, match="copies of one package"):
            compare([two[0], tmp_path / "copy"])

    def test_packages_for_different_tasks(self, two, tmp_path):
        other = make_package(tmp_path / "other", task="image-classification")
        with pytest.raises(
            InputError, match=r"different tasks: .* is for generic, .*other is for image-classification"
        ):
            compare([*two, other])

    def test_a_folder_that_is_no_package(self, two, tmp_path):
        with pytest.raises(PackageError, match="is not a package"):
            compare([*two, tmp_path])

    def test_a_package_that_was_changed(self, two):
        with (two[1] / "model.onnx").open("ab") as file:
            file.write(b"more")
        with pytest.raises(PackageError, match=r"model\.onnx is not the file that was packaged"):
            compare(two)

    @pytest.mark.parametrize("choice", [{"runs": 5}, {"threads": 1}, {"baseline": "x.onnx"}], ids=str)
    def test_a_choice_of_the_measurement_without_one(self, two, choice):
        with pytest.raises(RecipeError, match="nothing is measured"):
            compare(two, **choice)

    @pytest.mark.parametrize("choice", [{"runs": 0}, {"threads": -1}], ids=str)
    def test_counts_below_one(self, two, choice):
        with pytest.raises(RecipeError, match="at least one is needed"):
            compare(two, measure=True, **choice)


class TestLabels:
    @pytest.mark.parametrize(
        ("paths", "labels"),
        [
            (["a/x", "b/y"], ["x", "y"]),
            (["a/x", "b/x"], ["a", "b"]),
            (["a/x", "b/x", "b/y"], ["a/x", "b/x", "b/y"]),
            (["m/a/x", "n/a/x"], ["m", "n"]),
            (["a/x"], ["x"]),
        ],
    )
    def test_a_label_is_as_short_as_it_can_be(self, tmp_path, paths, labels):
        assert short_labels([tmp_path / path for path in paths]) == labels


class TestForm:
    @pytest.mark.parametrize(
        ("records", "form"),
        [
            ([], "float"),
            (["dynamic"], "dynamic int8"),
            (["matmul", "write"], "static int8"),
            ([("mixed", {"reverted": [["a"], ["b"]]}), "write"], "static int8 with 2 layers in float"),
            ([("mixed", {"tried": []}), "write"], "static int8"),
            ([("embeddings", {"form": "int4"}), "write"], "static int8, int4 tables"),
            (
                [("whole-graph", {"activation_type": "uint16", "weight_type": "int8"}), "write"],
                "whole graph, uint16 x int8",
            ),
        ],
        ids=str,
    )
    def test_the_records_tell_what_a_graph_is(self, records, form):
        pairs = [(r, {}) if isinstance(r, str) else r for r in records]
        assert form_of([{"stage": "quantize", "step": step, "facts": facts} for step, facts in pairs]) == form


class TestFingerprint:
    def test_the_same_samples_in_other_batches_have_the_same_fingerprint(self):
        x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)

        def golden(*rows):
            return Golden("generic", tuple(GoldenBatch({"x": x[r]}, {"y": x[r] * 2}) for r in rows))

        one = fingerprint(golden([0, 1, 2], [3, 4, 5]))
        other = fingerprint(golden([5, 0], [4, 1], [3, 2]))
        assert np.allclose(one, other)
        assert len(one) == 6


def _sealed_again(package) -> None:
    from edgekit.package.manifest import NAME, file_digests

    manifest = json.loads((package / NAME).read_text())
    manifest["files"] = file_digests(package)
    (package / NAME).write_text(json.dumps(manifest))
