"""The documentation names what there is, and what it shows can be used as it stands."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from edgekit.cli import COMMANDS, cli
from edgekit.profile import available, load_profile
from edgekit.recipe import recipe_from_table
from edgekit.tasks import TASKS
from tools.make_docs import contexts

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]+)\)")


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


ALL = {tuple(context.command_path.split()[1:]): context.command for context in contexts(cli)}
"""The words that call a command, `("targets", "show")` -> the command."""


def _fences(language: str) -> list[tuple[str, str]]:
    """Return each fenced block of a language in the hand-written pages: (file name, text)."""
    return [
        (path.name, text)
        for path in PAGES
        if path.name != "cli.md"
        for found, text in FENCE.findall(path.read_text(encoding="utf-8"))
        if found == language
    ]


def _calls() -> list[tuple[str, list[str]]]:
    """Return every `edgekit ...` line in the shell blocks: (file name, words after edgekit)."""
    lines = [(name, line) for name, text in _fences("sh") for line in text.replace("\\\n", " ").splitlines()]
    return [
        (name, shlex.split(line, comments=True)[1:]) for name, line in lines if line.startswith("edgekit ")
    ]


@pytest.mark.parametrize("words", [words for words in ALL if words], ids=" ".join)
def test_every_command_is_in_the_readme_and_in_the_reference(words) -> None:
    name = "edgekit " + " ".join(words)
    assert re.search(rf"`{name}\b", _read("README.md"))
    assert f"## {name}\n" in _read("docs/cli.md")


@pytest.mark.parametrize("words", ALL, ids=lambda words: " ".join(words) or "edgekit")
def test_every_flag_is_in_the_reference(words) -> None:
    page = _read("docs/cli.md")
    section = page.partition(f"## {' '.join(['edgekit', *words])}\n")[2].partition("\n## ")[0]
    flags = {flag for param in ALL[words].params for flag in param.opts if flag.startswith("-")}
    missing = [flag for flag in flags if not re.search(rf"(?<![\w-]){flag}(?![\w-])", section)]
    assert not missing


def test_the_summaries_in_the_list_are_of_commands_that_exist() -> None:
    assert {words[0] for words in ALL if words} == set(COMMANDS)


@pytest.mark.parametrize("name", available())
def test_every_target_is_in_the_readme_and_in_its_page(name) -> None:
    assert f"`{name}`" in _read("README.md")
    assert f"## {name}\n" in _read("docs/targets.md")


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_in_the_readme(task) -> None:
    assert f"`{task}`" in _read("README.md")


def test_every_exit_code_is_in_the_readme() -> None:
    codes = "0 good, 1 a gate failed, 2 usage or bad input, 3 environment, 130 interrupted; 70 is a defect"
    assert codes in " ".join(_read("README.md").split())


@pytest.mark.parametrize(("page", "text"), _fences("python"), ids=lambda value: value[:24])
def test_python_in_the_docs_compiles_and_names_what_edgekit_has(page, text) -> None:
    import edgekit

    used = {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "edgekit"
    }
    assert used <= set(edgekit.__all__)


def test_the_python_example_makes_a_recipe() -> None:
    """The README's recipe in Python is what the model behind it takes."""
    text = next(text for _, text in _fences("python") if "edgekit.Recipe" in text)
    call = next(
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "edgekit.Recipe"
    )
    recipe = recipe_from_table({str(k.arg): ast.literal_eval(k.value) for k in call.keywords})
    assert recipe.calibration.data == "my-texts.txt"


@pytest.mark.parametrize(
    ("page", "words"), _calls(), ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else value
)
def test_commands_in_the_docs_parse(page, words) -> None:
    called = max((known for known in ALL if words[: len(known)] == list(known)), key=len)
    parent = click.Context(cli, **cli.context_settings)
    ALL[called].make_context("edgekit", words[len(called) :], parent=parent)
    assert called, f"{page}: no such command"


def test_toml_in_the_readme_is_a_target_and_a_recipe_that_are_accepted(tmp_path) -> None:
    target, recipe = (text for page, text in _fences("toml") if page == "README.md")
    (tmp_path / "my-board.toml").write_text(target)
    assert load_profile(str(tmp_path / "my-board.toml")).runtime.threads == 2
    assert recipe_from_table(tomllib.loads(recipe)).gates == {"cosine_mean": 0.995}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(path) -> None:
    text = path.read_text(encoding="utf-8")
    missing = [link for link in LINK.findall(text) if not (path.parent / link).exists()]
    assert not missing


def test_make_targets_that_the_docs_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", _read("Makefile"), re.MULTILINE))
    named = {
        target
        for path in PAGES
        for line in re.findall(r"^make ([a-z -]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        for target in line.split()
    }
    assert named
    assert named <= targets


def test_the_architecture_page_has_every_floor() -> None:
    """Rooms that stand are on the page; the list of floors is the one that the imports are held to."""
    import edgekit

    package = Path(edgekit.__file__).parent
    rooms = {
        path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    page = _read("docs/architecture.md")
    assert not [room for room in rooms - {"__init__"} if f"`{room}`" not in page]
