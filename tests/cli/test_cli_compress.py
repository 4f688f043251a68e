"""`edgekit compress` as a person runs it."""

from __future__ import annotations

import json
import tomllib

import pytest


@pytest.fixture
def data(place):
    return place / "texts.txt"


def test_it_says_what_each_step_cost_and_what_comes_next(run, tiny_st_dir, data, tmp_path) -> None:
    ran = run("compress", tiny_st_dir, "-d", data, "--layers", "1", "-o", tmp_path / "small")
    assert ran.code == 0, ran.err
    assert "layers" in ran.out
    assert "Kept 1 of 2 layers" in ran.out
    assert f"edgekit export {tmp_path / 'small'}" in ran.out


def test_flags_become_tables_of_the_recipe(run, tiny_st_dir, data, tmp_path) -> None:
    ran = run("compress", tiny_st_dir, "-d", data, "--layers", "0,1", "--json", "-o", tmp_path / "small")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["parameters"] > 0
    recipe = tomllib.loads((tmp_path / "small" / "recipe.toml").read_text())
    assert recipe["compress"]["layers"]["keep"] == [0, 1]
    assert recipe["calibration"]["samples"] == 512


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "nothing says how"),
        (("--layers", "9"), "layers"),
        (("--layers", "four"), "neither a number"),
        (("--vocabulary", "many"), "neither a count"),
        (("--multiply-adds", "1.5"), "compress.width.multiply_adds"),
        (("--layers", "1", "-t", "nowhere"), "nowhere"),
    ],
    ids=str,
)
def test_a_request_that_cannot_be_met_leaves_nothing(
    run, tiny_st_dir, data, tmp_path, flags, message
) -> None:
    ran = run("compress", tiny_st_dir, "-d", data, *flags, "-o", tmp_path / "small")
    assert ran.code == 2
    assert message in ran.err
    assert not (tmp_path / "small").exists()
    assert "Traceback" not in ran.err
