"""Recipes: the text form says the whole request, and wrong ones are refused by name."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgekit.errors import RecipeError
from edgekit.recipe import (
    DataOptions,
    LatencyOptions,
    ModelOptions,
    Pinned,
    QuantizeOptions,
    Recipe,
    ValidationOptions,
    overlay,
    read_table,
    recipe_from_table,
    to_toml,
)

TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=12)
MAYBE_TEXT = st.none() | TEXT
COUNT = st.integers(min_value=1, max_value=2**40)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
DATA, VALIDATION = (
    st.builds(options, data=MAYBE_TEXT, column=MAYBE_TEXT, label_column=MAYBE_TEXT, samples=COUNT)
    for options in (DataOptions, ValidationOptions)
)
RECIPES = st.builds(
    Recipe,
    model=TEXT,
    task=MAYBE_TEXT,
    targets=st.lists(TEXT, min_size=1, max_size=3).map(tuple),
    seed=st.integers(min_value=0, max_value=2**62),
    model_options=st.builds(
        ModelOptions, revision=MAYBE_TEXT, allow_pickle=st.booleans(), max_length=st.none() | COUNT
    ),
    calibration=DATA,
    validation=VALIDATION,
    quantize=st.builds(
        QuantizeOptions,
        method=st.sampled_from(["static", "none"]),
        smoothing=st.booleans(),
        range_method=st.sampled_from(["mse", "minmax", "percentile"]),
        percentile=st.floats(min_value=50, max_value=100, exclude_min=True),
        exclude=st.lists(TEXT, max_size=3).map(tuple),
    ),
    latency=st.builds(LatencyOptions, runs=st.integers(0, 1000), threads=st.none() | COUNT),
    gates=st.dictionaries(TEXT, FINITE, max_size=3),
    pinned=st.builds(Pinned, model_sha256=MAYBE_TEXT),
)
SMALL = {"model": "m", "targets": ["cpu-x86"]}


@given(RECIPES)
@example(
    Recipe(model="\x7f\x00\t\"'\\\n\r\u2028\U0001f642", targets=("é.toml", ""), gates={"é": 1e-300, "": 1e16})
)
def test_the_text_of_a_recipe_reads_back_as_the_same_recipe(recipe: Recipe) -> None:
    assert recipe_from_table(tomllib.loads(to_toml(recipe))) == recipe


@given(RECIPES)
def test_the_same_recipe_always_has_the_same_text(recipe: Recipe) -> None:
    text = to_toml(recipe)
    assert to_toml(recipe_from_table(tomllib.loads(text))) == text


def test_the_text_spells_defaults_out_so_that_a_later_version_makes_the_same() -> None:
    text = to_toml(recipe_from_table(SMALL))
    assert "[quantize]" in text
    assert 'range_method = "mse"' in text
    assert "samples = 256" in text


@pytest.mark.parametrize(
    ("extra", "message", "hint"),
    [
        ({"taks": "x"}, "unknown key 'taks'", "'task'"),
        ({"quantize": {"smothing": True}}, "'quantize.smothing'", "'smoothing'"),
        ({"quantize": {"method": "int4"}}, "quantize.method", ""),
        ({"calibration": {"samples": 0}}, "calibration.samples", ""),
        ({"compress": {"layers": {"keep": 0}}}, "compress.layers.keep", ""),
        ({"compress": {"layres": {"keep": 4}}}, "'compress.layres'", "'layers'"),
        ({"compress": {"width": {"time": 1.5}}}, "compress.width.time", ""),
        ({"gates": {"cosine_mean": float("nan")}}, "gates.cosine_mean", ""),
        ({"gates": {"cosine_mean": float("inf")}}, "gates.cosine_mean", ""),
        ({"edgekit_schema": 2}, "edgekit_schema", ""),
        ({"model": "a/\ud800"}, 'not valid Unicode: model = "a/', "Rename"),
    ],
)
def test_a_wrong_recipe_is_refused_naming_the_key(extra, message, hint) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_table({**SMALL, **extra})
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


def test_a_recipe_without_a_needed_key_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_table({"targets": ["cpu-x86"]})
    assert "'model' is missing" in caught.value.message
    assert "extends" not in caught.value.hint


def test_flags_win_over_the_file_and_unset_flags_say_nothing() -> None:
    table = {"model": "m", "seed": 3, "quantize": {"smoothing": False, "method": "static"}}
    flags = {"seed": 4, "task": None, "quantize": {"method": "none", "smoothing": None}, "gates": {}}
    merged = overlay(table, flags)
    assert merged["seed"] == 4
    assert merged["quantize"] == {"smoothing": False, "method": "none"}
    assert "task" not in merged
    assert table["seed"] == 3
    assert table["quantize"]["method"] == "static"


def test_a_flag_of_a_table_is_refused_where_the_file_has_a_plain_value() -> None:
    with pytest.raises(RecipeError, match="'quantize' must be a table"):
        overlay({"quantize": 3}, {"quantize": {"method": "none"}})


@pytest.mark.parametrize(("content", "message"), [(b"a = ", "not valid TOML"), (b"\xff", "not valid TOML")])
def test_a_file_that_is_no_toml_is_refused(tmp_path, content, message) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        read_table(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path) -> None:
    with pytest.raises(RecipeError, match="not found"):
        read_table(tmp_path / "gone.toml")
    with pytest.raises(RecipeError, match="cannot be read"):
        read_table(tmp_path)
