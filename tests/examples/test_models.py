"""The models under examples/models are what edgekit wrote, as small as promised, and still right."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit import open_package, revalidate
from edgekit.package.inspection import inspect_package
from edgekit.recipe import read_table
from tools.corpus import SOURCES

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "examples" / "models"
MOST_BYTES = {"minilm-b": 10_500_000, "minilm-c": 6_000_000}

each_model = pytest.mark.parametrize("name", MOST_BYTES)


def search(*words):
    """Run search.py and return what it ended with."""
    command = [sys.executable, str(MODELS / "search.py"), *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def differing(asked, made):
    """Return the keys of one table whose values another does not have."""
    if not isinstance(asked, dict):
        return [asked] if asked != made else []
    return [
        (key, *found) for key, value in asked.items() for found in [differing(value, made.get(key))] if found
    ]


def test_there_are_no_others():
    assert {path.name for path in MODELS.iterdir() if path.is_dir()} - {"__pycache__"} == set(MOST_BYTES)


@each_model
def test_every_file_is_the_one_that_was_written_and_the_graph_is_as_small_as_promised(name):
    package = open_package(MODELS / name / "cpu-x86")
    assert package.model.stat().st_size <= MOST_BYTES[name]


@each_model
def test_it_passes_its_gates(name):
    assert revalidate(MODELS / name / "cpu-x86").passed


@each_model
def test_it_was_made_by_the_recipe_of_its_name(name):
    asked, made = (
        read_table(path)
        for path in (ROOT / "examples/recipes" / f"{name}.toml", MODELS / name / "cpu-x86/recipe.toml")
    )
    del asked["compress"]["layers"]  # the package's recipe names those that were chosen
    assert differing(asked, made) == []


@each_model
def test_its_card_names_teacher_licence_and_every_source(name):
    card = (MODELS / name / "MODEL_CARD.md").read_text(encoding="utf-8")
    facts = inspect_package(MODELS / name / "cpu-x86")
    assert "base_model: sentence-transformers/all-MiniLM-L6-v2" in card
    assert "license: apache-2.0" in card
    assert (MODELS / name / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert all(record["did"] in card for record in facts.history if "quality" in record["facts"])
    results = json.loads((ROOT / "benchmarks/results/distillation.json").read_text(encoding="utf-8"))
    row = results["rows"][name]
    assert row["bytes"] == facts.files["model.onnx"], "the card's figures are another package's"
    assert f"{row['int8']['rank_correlation']:.4f}" in card
    parts = [source.part for source in SOURCES]
    assert card.count("| judging |") == parts.count("held-out")
    assert card.count("| learning |") == len(parts) - parts.count("held-out")


def test_a_search_needs_no_edgekit():
    tree = ast.parse((MODELS / "search.py").read_text(encoding="utf-8"))
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "tokenizers"}


@each_model
def test_a_search_finds_by_meaning(name, tmp_path):
    texts = tmp_path / "notes.txt"
    texts.write_text(
        "The train to Munich leaves from platform 12.\n\nWater the tomatoes every evening.\n"
        "The battery of the electric bicycle lasts sixty kilometres.\n",
        encoding="utf-8",
    )
    done = search("--model", name, "--texts", texts, "when do I have to catch my railway connection?")
    assert done.returncode == 0, done.stderr
    assert "Munich" in done.stdout.splitlines()[0]
    assert "3 texts read" in done.stdout


def test_a_search_of_the_documentation_finds_what_is_asked_for():
    done = search("what happens when the training of a student is interrupted?")
    assert done.returncode == 0, done.stderr
    assert "killed" in done.stdout


@pytest.mark.parametrize("content", [None, "\n\n", b"\xff\xfe\xfa"])
def test_texts_that_cannot_be_searched_are_refused_by_name(content, tmp_path):
    path = tmp_path / "notes.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = search("--texts", path, "a question")
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
