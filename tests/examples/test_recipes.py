"""Every recipe of examples/recipes is a request that export takes, and says how it is run."""

from pathlib import Path

import pytest

from edgekit.preflight import resolve
from edgekit.recipe import read_table, recipe_from_table

FOLDER = Path(__file__).parents[2] / "examples" / "recipes"
RECIPES = sorted(FOLDER.glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
class TestRecipe:
    def test_is_a_request_that_export_takes(self, path) -> None:
        recipe = recipe_from_table(read_table(path), path.name)
        assert resolve(recipe)
        assert recipe.gates, "what may be lost is said"

    def test_says_how_it_is_run_and_is_in_the_index(self, path) -> None:
        assert f"recipes/{path.name} -o build/" in path.read_text("utf-8")
        assert f"[{path.stem}]({path.name})" in (FOLDER / "README.md").read_text("utf-8")
