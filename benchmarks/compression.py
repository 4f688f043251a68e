"""Every technique on all-MiniLM-L6-v2 beside its controls: closeness to the original, retrieval, size, speed.

A row is a recipe of examples/recipes, or a control of it: the same table with `random`, or without repair.
Quality is measured on English that no technique saw (tools.corpus, other packages): in PyTorch for every row,
and in ONNX Runtime for the packages of the recipes, which are then timed in turns in one process.

Run from the checkout, after make demo and python -m tools.corpus build/corpus:
python -m benchmarks.compression [ROW ...] && python -m benchmarks.compression --packages [ROW ...]
Writes benchmarks/results/compression.json (rows that were not named stay); then: make docs
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import compare as compare_quality
from benchmarks.rows import refuse_unknown
from benchmarks.texts import as_pair, evenly
from edgekit import compare, export
from edgekit.compress.base import parameters_of
from edgekit.compress.judge import outputs
from edgekit.compressing import compressed
from edgekit.data import Sample
from edgekit.machine import read_machine, versions
from edgekit.model import ModelRef, TorchModel
from edgekit.preflight import read_data, sift
from edgekit.recipe import Recipe, read_table, recipe_from_table
from edgekit.runtime import open_session
from edgekit.source import load
from edgekit.store import dump_json, write_text
from edgekit.tasks.text import TextPreprocessor
from tools.demo import prepare

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "examples" / "recipes"
OUTPUT = Path(__file__).parent / "results" / "compression.json"
BUILD = ROOT / "build" / "compression"
HELD_OUT = ROOT / "build" / "corpus" / "held-out.txt"
PAIRS, PACKAGE_PAIRS = 400, 2000
"""Questions with their answers: for models in PyTorch, and for packages, which read faster."""
RUNS = 100

REFERENCE = "minilm-int8"
"""The recipe that compresses nothing; it also keeps the float graph, which speed-ups are relative to."""

CONTROLS: dict[str, tuple[str, dict[str, Any]]] = {
    "minilm-trim, random tokens": ("minilm-trim", {"vocabulary": {"choose": "random"}}),
    "minilm-embeddings, unweighted": ("minilm-embeddings", {"embeddings": {"weighting": "uniform"}}),
    "minilm-4l, not repaired": ("minilm-4l", {"layers": {"repair": False}}),
    "minilm-4l, every k-th": ("minilm-4l", {"layers": {"choose": "every-kth", "repair": False}}),
    "minilm-4l, random, repaired": ("minilm-4l", {"layers": {"choose": "random"}}),
    "minilm-4l-ffn1024, not repaired": (
        "minilm-4l-ffn1024",
        {"layers": {"repair": False}, "width": {"repair": False}},
    ),
    "minilm-4l-ffn1024, random, repaired": (
        "minilm-4l-ffn1024",
        {"layers": {"choose": "random"}, "width": {"importance": "random"}},
    ),
    "minilm-width, not repaired": ("minilm-width", {"width": {"repair": False}}),
    "minilm-width, random, repaired": ("minilm-width", {"width": {"importance": "random"}}),
    "minilm-low-rank, plain": ("minilm-low-rank", {"low_rank": {"weighting": "plain"}}),
    "minilm-sparse, random": ("minilm-sparse", {"sparsity": {"method": "random"}}),
}
"""Control -> (recipe, what differs in its tables)."""


def rows() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return every row: its recipe, and what differs from it; what is trained is another benchmark's."""
    recipes = sorted(RECIPES.glob("minilm-*.toml"))
    untrained = [path.stem for path in recipes if "distill" not in read_table(path)]
    return {name: (name, {}) for name in untrained} | CONTROLS


def recipe_of(name: str, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """Return a recipe with some keys of its `[compress]` tables changed."""
    table = read_table(RECIPES / f"{name}.toml")
    for technique, values in changes.items():
        table["compress"][technique] = {**table["compress"][technique], **values}
    return recipe_from_table(table)


def retrieval_texts(count: int, corpus: Path = HELD_OUT) -> tuple[str, ...]:
    """Return so many queries at most, then their answers in the same order, from a held-out corpus."""
    lines = corpus.read_text(encoding="utf-8").splitlines()
    halves = [pair for line in lines if (pair := as_pair(line))]
    pairs = evenly(list({query: (query, answer) for query, answer in halves}.values()), count)
    return tuple(query for query, _ in pairs) + tuple(answer for _, answer in pairs)


def embedded(model: TorchModel, texts: Sequence[str]) -> np.ndarray:
    """Return the sentence embeddings of texts [texts, dim], unit vectors, from PyTorch."""
    vectors = np.concatenate(outputs(model, [Sample(text) for text in texts]))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def embedded_by(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Return the same from a package, its own tokenizer included, one text at a time."""
    session = open_session(folder / "model.onnx")
    names = [entry.name for entry in session.get_inputs()]
    preprocessor = TextPreprocessor.from_file(
        folder / "tokenizer.json", max_length=256, input_names=names, pad_token_id=0
    )
    out = [session.run(None, dict(preprocessor.batch([Sample(text)])))[0] for text in texts]
    vectors = np.concatenate(out).astype(np.float64)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def in_torch(name: str, original: TorchModel, reference: np.ndarray, texts: Sequence[str]) -> dict[str, Any]:
    """Return a row's figures before quantization."""
    recipe = recipe_of(*rows()[name])
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        start, data = sift(original, read_data(recipe, calibrates=True), recipe)
        model = compressed(start, recipe, data, Path(scratch), Path(scratch))
        return {
            "seconds": round(time.perf_counter() - started, 1),
            "parameters": parameters_of(model.module),
            "torch": compare_quality(reference, embedded(model, texts)),
        }


def packaged(name: str, original: TorchModel) -> dict[str, Any]:
    """Make a recipe's int8 package, which stays in the build folder, and return what it is."""
    result = export(recipe_of(name, {}), BUILD / name, force=True)
    folder = result.packages[0].path
    steps = [record for record in result.reports[0].history if record.stage == "compress"]
    last: Any = steps[-1].facts["parameters_after"] if steps else parameters_of(original.module)
    return {
        "parameters": last,
        "bytes": (folder / "model.onnx").stat().st_size,
        "steps": [
            {"step": r.step, "did": r.did, "quality": r.facts["quality"], "seconds": round(r.seconds, 1)}
            for r in steps
        ],
    }


def judged(
    names: Sequence[str], original: TorchModel, corpus: Path = HELD_OUT
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return the quality of the original, and of packages that are made, by recipe."""
    texts = retrieval_texts(PACKAGE_PAIRS, corpus)
    reference = embedded(original, texts)
    found = {}
    for name in names:
        found[name] = compare_quality(reference, embedded_by(BUILD / name / "cpu-x86", texts))
        print(name, found[name], flush=True)
    return compare_quality(reference, reference), found


def timed(names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Time the packages of recipes in turns; return each one's speed-ups over the original's float graph."""
    (baseline,) = (BUILD / REFERENCE).glob("float-opset*.onnx")
    folders = [BUILD / name / "cpu-x86" for name in names]
    comparison = compare(folders, measure=True, baseline=baseline, runs=RUNS, threads=1)
    return {
        name: [asdict(speed) for speed in row.speeds]
        for name, row in zip(names, comparison.rows, strict=True)
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the rows that are named, or all, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*")
    parser.add_argument(
        "--packages", action="store_true", help="make, judge and time the int8 packages instead"
    )
    parser.add_argument("--judge", action="store_true", help="only judge and time those that are made, again")
    options = parser.parse_args(arguments)
    refuse_unknown(parser, options.rows, rows())
    results = json.loads(OUTPUT.read_text(encoding="utf-8")) if OUTPUT.exists() else {"rows": {}}
    results |= {
        "command": "python -m benchmarks.compression [--packages]",
        "machine": read_machine().to_json(),
        "versions": versions(),
        "pairs": PAIRS,
        "package_pairs": PACKAGE_PAIRS,
    }
    prepare(ROOT / "build")
    with tempfile.TemporaryDirectory() as scratch:
        original = load(ModelRef(str(ROOT / "build" / "all-MiniLM-L6-v2")), None, scratch=Path(scratch))
        named = () if options.judge else options.rows or rows()
        if options.packages or options.judge:
            for name in (name for name in named if not rows()[name][1]):
                row = {"recipe": name, "changes": {}, **packaged(name, original)}
                results["rows"][name] = {**results["rows"].get(name, {}), **row}
                print(name, row, flush=True)
                write_text(OUTPUT, dump_json(results))
            made = [name for name, row in results["rows"].items() if "bytes" in row]
            results["original_package"], quality = judged(made, original)
            for name, found in quality.items():
                results["rows"][name]["int8"] = found
            if REFERENCE in made:
                results["speeds"] = timed(made)
            write_text(OUTPUT, dump_json(results))
            return
        texts = retrieval_texts(PAIRS)
        reference = embedded(original, texts)
        results["original"] = {
            "parameters": parameters_of(original.module),
            "torch": compare_quality(reference, reference),
        }
        for name in named:
            recipe, changes = rows()[name]
            row = {"recipe": recipe, "changes": changes, **in_torch(name, original, reference, texts)}
            results["rows"][name] = {**results["rows"].get(name, {}), **row}
            print(name, row, flush=True)
            write_text(OUTPUT, dump_json(results))


if __name__ == "__main__":
    main()
