"""`edgekit compare PACKAGE...`: the table, the page, JSON, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.machine import read_machine
from edgekit.record import StepRecord
from tests.packages import make_package

TRIM = StepRecord("compress", "vocabulary", "kept 9,000 of 30,522 tokens", seconds=3.0)


@pytest.fixture
def two(place: Path) -> list[Path]:
    return [
        make_package(place / "plain" / "here"),
        make_package(place / "trimmed" / "here", steps=[TRIM], error=1e-3, sqnr_db=30.0),
    ]


def test_the_table_shows_every_package_and_what_the_figures_mean(run, two):
    ran = run("compare", *two)
    assert (ran.code, ran.err) == (0, "")
    for words in ("plain", "trimmed", "vocabulary", "SQNR 40", "2.00×", "2.0 s", "5.0 s", "dominated by"):
        assert words in " ".join(ran.out.split())
    assert "over the float graph of its original model" in " ".join(ran.out.split())
    assert max(map(len, ran.out.splitlines())) <= 100


def test_the_page_is_written_where_it_was_asked_for(run, two, place):
    assert run("compare", *two, "-o", "sub/page.html", "-q").out == ""
    assert "2 packages side by side" in (place / "sub" / "page.html").read_text()


def test_json_is_the_comparison(run, two):
    ran = run("compare", *two, "--json")
    rows = json.loads(ran.out)["rows"]
    assert [row["label"] for row in rows] == ["plain", "trimmed"]
    assert rows[1]["techniques"] == ["vocabulary"]


def test_measuring_needs_no_torch_and_says_what_it_is_relative_to(run_without_torch, two):
    ran = run_without_torch("compare", *two, "--measure", "--runs", 10, "--threads", 1)
    assert ran.code == 0, ran.err
    assert "relative to plain" in " ".join(ran.out.split())
    assert "2 packages in turns" in ran.err


def test_one_package_is_said_to_be_alone(run, two):
    ran = run("compare", two[0])
    assert ran.code == 0
    assert "nothing to compare it with" in " ".join(ran.out.split())


def test_the_packages_are_left_as_they_are(run, two, contents_of, place):
    before = contents_of(place)
    assert run("compare", *two).code == 0
    assert contents_of(place) == before


class TestBad:
    def test_a_folder_that_is_no_package(self, refused, two, place):
        assert "is not a package: it has no manifest.json" in refused("compare", two[0], place)

    def test_a_package_that_was_changed(self, refused, two):
        (two[1] / "model.onnx").write_bytes(b"other")
        assert "is not the file that was packaged" in refused("compare", *two)

    def test_the_same_package_twice(self, refused, two):
        assert "is given twice" in refused("compare", two[0], two[0])

    def test_different_tasks(self, refused, two, place):
        other = make_package(place / "images", task="image-classification")
        assert "different tasks" in refused("compare", *two, other)

    def test_a_history_that_is_damaged(self, refused, two):
        manifest = json.loads((two[0] / "manifest.json").read_text())
        manifest["history"] = [{"stage": "load"}]
        (two[0] / "manifest.json").write_text(json.dumps(manifest))
        assert "its history is damaged" in refused("compare", *two)

    @pytest.mark.parametrize("flag", [("--runs", 5), ("--threads", 2), ("--baseline", "x.onnx")], ids=str)
    def test_a_flag_of_the_measurement_without_it(self, refused, two, flag):
        said = refused("compare", *two, *flag)
        assert f"{flag[0]} {flag[1]}: nothing is measured" in said
        assert "Add --measure." in said

    def test_a_baseline_that_is_not_there(self, refused, two):
        said = refused("compare", *two, "--measure", "-q", "--baseline", "none.onnx")
        assert "baseline not found: none.onnx" in said

    def test_nothing_that_can_be_timed_here(self, refused, place):
        isa = "aarch64" if read_machine().isa != "aarch64" else "x86_64"
        package = make_package(place / "elsewhere", isa=isa)
        assert "can be timed here" in refused("compare", package, "--measure", "-q", code=3)
