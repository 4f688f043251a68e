"""`edgekit export --embeddings int4`: from a model's directory to a package that says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

GATES = ("cosine_mean", "cosine_p05", "rank_correlation")


@pytest.fixture
def export(tiny_st_dir: Path):
    """The words of an export that no gate stops."""
    gates = [word for name in GATES for word in ("--gate", f"{name}=0.5")]
    return ("export", tiny_st_dir, "-c", "texts.txt", "-o", "out", "--runs", 0, "-q", *gates)


def test_a_package_with_tables_in_four_bits_says_so_and_is_judged_like_any_other(run, place, export):
    assert run(*export, "-t", "cpu-x86", "--embeddings", "int4").code == 0
    package = place / "out" / "cpu-x86"
    assert 'embeddings = "int4"' in (package / "recipe.toml").read_text()
    history = json.loads((package / "manifest.json").read_text())["history"]
    record = next(entry for entry in history if entry["step"] == "embeddings")
    assert record["facts"]["form"] == "int4"
    assert [table["form"] for table in record["facts"]["tables"]].count("int4") == 1
    assert run("validate", package).code == 0
    assert "int4 tables" in " ".join(run("compare", package).out.split())


def test_a_target_that_does_not_have_them_is_refused_before_any_work(refused, export):
    said = refused(*export, "-t", "cpu-x86", "-t", "android-qnn", "--embeddings", "int4")
    assert "--embeddings int4 is nothing for the target android-qnn" in said
    assert "Leave --embeddings out for this target." in said


def test_a_form_that_there_is_not_is_refused_with_those_there_are(refused, export):
    said = refused(*export, "-t", "cpu-x86", "--embeddings", "int2")
    assert "int8" in said
    assert "int4" in said
