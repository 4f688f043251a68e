"""The rows of the compression benchmark, and the tables that docs/compression.md shows of them."""

from __future__ import annotations

import pytest

from benchmarks.compression import CONTROLS, recipe_of, rows
from benchmarks.compression_page import compression_tables

QUALITY = {"recall_at_1": 0.5, "rank_correlation": 0.9, "cosine_mean": 0.95, "cosine_p05": 0.8}
RESULTS = {
    "original": {"parameters": 1000, "torch": {**QUALITY, "recall_at_1": 0.8}},
    "pairs": 10,
    "original_package": {**QUALITY, "recall_at_1": 0.8},
    "package_pairs": 20,
    "machine": {"cpu": "a CPU"},
    "versions": {"onnxruntime": "1.31"},
    "command": "python -m benchmarks.compression",
    "speeds": {"a": [{"shape": "1x16", "speedup": 3.0, "speedup_low": 2.9, "speedup_high": 3.1}]},
    "rows": {
        "a": {
            "recipe": "a",
            "changes": {},
            "parameters": 5e6,
            "bytes": 7e6,
            "torch": QUALITY,
            "int8": QUALITY,
        },
        "a, random": {"recipe": "a", "changes": {"x": {}}, "parameters": 5e6, "torch": QUALITY},
        "b": {
            "recipe": "b",
            "changes": {},
            "parameters": 6e6,
            "bytes": 9e6,
            "torch": QUALITY,
            "int8": QUALITY,
        },
    },
}


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_differs_from_its_recipe_in_nothing_but_its_tables(name) -> None:
    recipe, changes = CONTROLS[name]
    assert recipe in rows()
    plain, control = recipe_of(recipe, {}), recipe_of(recipe, changes)
    assert plain != control
    assert plain.model_copy(update={"compress": control.compress}) == control


def test_packages_are_listed_from_large_to_small_with_what_they_keep() -> None:
    lines = [line for line in compression_tables(RESULTS).splitlines() if line.startswith("| `")]
    assert lines[0].startswith("| `b` | 6.0 M | 9.0 MB | 62.5% | 0.9000 | 0.9500 | 0.8000 | –")
    assert lines[1].endswith("| 3.00x (2.90–3.10) |")


def test_a_recipe_stands_beside_its_controls_only_where_it_has_some() -> None:
    second = compression_tables(RESULTS).split("The controls")[1]
    assert "| a, random |" in second
    assert "| a |" in second
    assert "| b |" not in second
