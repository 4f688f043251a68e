"""The command line in this process: what it printed, what it returned, and what it left behind."""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgekit.__main__ import main

ROOT = Path(__file__).parents[2]
WORDS = "the cat dog bird horse sat ran sleeps on under near old red quick brown house tree river and"
PROGRESS = re.compile(r"\[ *\d+\.\d s\] (load|export|optimize|calibrate|quantize|validate|package): .+")
TORCH_SIDE = ("torch", "transformers", "optimum", "sentence_transformers", "onnxscript", "safetensors")
"""What only `edgekit export` may need."""

LAYER = """
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear({width}, {width})
    def forward(self, x):
        return {forward}

def make():
    return Tiny(), torch.randn(2, {width})
"""


@dataclass(frozen=True)
class Ran:
    """One run of the command line."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> list[str]:
        """The lines on standard error that are not progress."""
        return [line for line in self.err.splitlines() if not PROGRESS.fullmatch(line)]


Run = Callable[..., Ran]


def contents(folder: Path) -> dict[str, str]:
    """Return everything below a folder: relative path -> digest of a file, or "folder"."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def sentences(count: int, seed: int = 0) -> str:
    """Return distinct lines of 2 to 18 common words."""
    words = WORDS.split()
    pick = random.Random(seed)
    return "".join(f"{n} {' '.join(pick.choices(words, k=pick.randint(2, 18)))}\n" for n in range(count))


def label_column(text: str) -> str:
    """Return the lines as a .csv with a column of labels that BERT classifiers of the tests know."""
    rows = [
        f"{line},{'positive' if index % 3 else 'negative'}" for index, line in enumerate(text.splitlines())
    ]
    return "\n".join(["text,label", *rows]) + "\n"


@pytest.fixture(scope="session", autouse=True)
def torch_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give the folder that torch makes when its compiler is first imported a place outside the tests' own."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("torch")))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with `texts.txt`, and a folder of its own for temporary files."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "texts.txt").write_text(sentences(60))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def run(place: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `edgekit` with arguments in this process."""

    def _run(*arguments: object) -> Ran:
        code = main([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return _run


@pytest.fixture
def refused(run: Run, place: Path) -> Callable[..., str]:
    """Return a function that runs what has to fail and returns its message and hint.

    The run has to end with the exit code, say one line and at most one hint, show no traceback, and leave
    every file in the working directory and among the temporary files as it was.
    """

    def _refused(*arguments: object, code: int = 2) -> str:
        before = contents(place)
        ran = run(*arguments)
        assert ran.code == code, ran.err
        assert "Traceback" not in ran.err
        assert ran.out == ""
        assert ran.said[0].startswith("error: ")
        assert len(ran.said) <= 2
        assert contents(place) == before
        return "\n".join(ran.said)

    return _refused


@pytest.fixture
def contents_of() -> Callable[[Path], dict[str, str]]:
    """Return a function that gives everything below a folder: relative path -> digest, or "folder"."""
    return contents


@pytest.fixture(scope="session")
def write_layer() -> Iterator[Callable[..., str]]:
    """Return a function that writes a module with a factory, and 40 samples as data.npz; it gives MODEL."""
    names = []

    def write(folder: Path, forward: str = "self.layer(x)", width: int = 8) -> str:
        names.append(f"tiny_{len(names)}")
        (folder / f"{names[-1]}.py").write_text(LAYER.format(forward=forward, width=width))
        samples = np.random.default_rng(0).normal(size=(40, width))
        np.savez(folder / "data.npz", x=samples.astype(np.float32))
        return f"{names[-1]}:make"

    yield write
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def without(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Return a function that gives an environment in which importing any of some packages raises."""

    def _without(*names: str) -> dict[str, str]:
        folder = tmp_path / "without"
        for name in names:
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / "__init__.py").write_text(f"raise ImportError('{name} is blocked')\n")
        return {**os.environ, "PYTHONPATH": str(folder), "HOME": str(folder)}

    return _without


@pytest.fixture
def run_without_torch(without: Callable[..., dict[str, str]]) -> Run:
    """Return a function that runs `edgekit` in a process that cannot import what only exports need."""

    def _run(*arguments: object) -> Ran:
        environment = without(*TORCH_SIDE)
        environment["PYTHONPATH"] += f"{os.pathsep}{ROOT}"
        command = [sys.executable, "-m", "edgekit", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)

    return _run


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """Return a function that goes to a new working directory with `texts.txt`; all is undone at the end."""
    before = Path.cwd()

    def new() -> Path:
        folder = tmp_path_factory.mktemp("work")
        (folder / "texts.txt").write_text(sentences(60))
        (folder / "labelled.csv").write_text(label_column(sentences(60)))
        os.chdir(folder)
        return folder

    yield new
    os.chdir(before)
