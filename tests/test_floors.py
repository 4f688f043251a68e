"""The floors of the house: who may import whom, and what a light command must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgekit

ROOT = Path(edgekit.__file__).parents[1]
"""Where the edgekit under test is: the checkout, or the site-packages of an installed wheel."""

VALUES = (
    "compression",
    "data",
    "distillation",
    "golden",
    "latency_table",
    "machine",
    "model",
    "npz",
    "profile",
    "readers",
    "recipe",
    "record",
    "runtime",
    "store",
    "trained_scales",
)
"""One floor whose files build on each other; a cycle among them fails at import."""

FLOORS: tuple[tuple[str, ...], ...] = (
    ("__init__", "errors"),
    VALUES,
    ("graph_file",),
    ("graph",),
    ("tasks",),
    ("structure",),
    ("source", "compress"),
    ("distill",),
    ("to_onnx",),
    ("optimize", "quantize"),
    ("runners",),
    ("validate",),
    ("package", "report"),
    ("verification", "package_facts"),
    ("preflight", "revalidation", "explaining", "comparing", "mixed", "tuning", "reference"),
    ("distilling",),
    ("finishing",),
    ("compressing",),
    ("float_graph",),
    ("forms",),
    ("target_run",),
    ("outcome",),
    ("search", "pipeline"),
    ("cli",),
    ("__main__",),
)
"""Lowest first. A room imports from lower floors and from itself; `VALUES` also from each other."""

TYPES_ONLY = {("model", "tasks")}
"""Imports for annotations that go up, under `TYPE_CHECKING`."""

OWNERS: dict[str, tuple[str, ...]] = {
    "accelerate": ("distill/processes",),
    "torch": ("structure", "source", "to_onnx", "compress", "distill", "distilling", "finishing"),
    "torch_pruning": ("compress/channel_groups",),
    "transformers": ("source", "to_onnx"),
    "optimum": ("source", "to_onnx"),
    "sentence_transformers": ("source", "to_onnx"),
    "onnx": ("machine", "graph_file", "graph", "to_onnx", "optimize", "quantize", "validate", "package"),
    "onnx_ir": ("graph_file", "graph", "to_onnx", "optimize", "quantize", "validate", "package"),
    "onnxscript": ("to_onnx", "optimize"),
    "onnxruntime": ("runtime", "package/ort_format", "runners/child", "runners/qnn_child"),
    "click": ("cli", "__main__"),
    "rich": ("cli", "__main__", "report/terminal"),
}
"""Package -> rooms or files that may import it."""

HEAVY = ("torch", "transformers", "onnxruntime", "optimum", "sentence_transformers", "onnxscript")


def _sources() -> list[Path]:
    return sorted((ROOT / "edgekit").rglob("*.py"))


def _room(path: Path) -> str:
    return path.relative_to(ROOT / "edgekit").parts[0].removesuffix(".py")


def _level(room: str) -> int:
    return next((index for index, rooms in enumerate(FLOORS) if room in rooms), -1)


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (dotted module, only for annotations) of every import, at any depth of the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"edgekit.{a.name}" for a in node.names] if node.module == "edgekit" else [node.module]
            yield from ((str(name), id(node) in typing_only) for name in names)


def _allowed(path: Path, owners: tuple[str, ...]) -> bool:
    name = str(path.relative_to(ROOT / "edgekit").with_suffix(""))
    return any(name == owner or name.startswith(f"{owner}/") for owner in owners)


@pytest.mark.parametrize("path", _sources(), ids=lambda p: str(p.relative_to(ROOT)))
class TestEveryFile:
    def test_has_a_floor(self, path: Path) -> None:
        assert _level(_room(path)) >= 0, f"{_room(path)} is on no floor: add it to FLOORS"

    def test_imports_only_from_lower_floors(self, path: Path) -> None:
        room = _room(path)
        wrong = []
        for module, typing_only in _imports(path):
            parts = module.split(".")
            if parts[0] != "edgekit":
                continue
            other = parts[1] if len(parts) > 1 else "__init__"
            if _level(other) < 0:  # a name of edgekit/__init__.py, such as __version__
                other = "__init__"
            together = other == room or {other, room} <= set(VALUES)
            excused = typing_only and (room, other) in TYPES_ONLY
            if not (together or excused or _level(other) < _level(room)) and room != "__init__":
                wrong.append(module)
        assert not wrong

    def test_imports_packages_only_in_the_rooms_that_own_them(self, path: Path) -> None:
        wrong = [
            module
            for module, typing_only in _imports(path)
            if (owners := OWNERS.get(module.split(".")[0])) and not _allowed(path, owners)
            if not typing_only
        ]
        assert not wrong

    def test_imports_nothing_heavy_when_it_is_imported_itself(self, path: Path) -> None:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {
            alias.name if isinstance(node, ast.Import) else str(node.module)
            for node in top
            for alias in node.names
        }
        light = _room(path) in ("cli", "__main__", "__init__", "tasks") or _level(_room(path)) <= 1
        assert not light or not {name.split(".")[0] for name in names} & {*HEAVY, "onnx", "onnx_ir"}

    def test_prints_nothing_unless_it_is_the_command_line(self, path: Path) -> None:
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        printing = [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
        assert _room(path) in ("cli", "__main__") or not printing


def _loaded_by(program: str, *arguments: str) -> set[str]:
    """Return the heavy packages that are loaded when a fresh Python has run `program`."""
    program += f"\nimport sys\nprint('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])\n"
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.rpartition("LOADED")[2].split())


def test_importing_edgekit_loads_nothing_heavy() -> None:
    assert _loaded_by("import edgekit") == set()


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("export", "--help"), ("targets",), ("targets", "show", "arm64")],
    ids=" ".join,
)
def test_light_commands_load_nothing_heavy(arguments) -> None:
    program = """
import runpy, sys
sys.argv[0] = "edgekit"
try:
    runpy.run_module("edgekit", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
"""
    assert _loaded_by(program, *arguments) == set()


def test_the_check_sees_a_heavy_import() -> None:
    assert "onnxruntime" in _loaded_by("from edgekit.runtime import import_onnxruntime as run; run()")
