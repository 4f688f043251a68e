"""Students of all-MiniLM-L6-v2: quality, size and speed of their packages, and what each loss is worth.

A row is a recipe of examples/recipes with a [distill] table; its package is made (which trains, and goes on
where it was interrupted), judged in ONNX Runtime on English that nothing learnt from, and timed in turns with
int8 alone. With --ablation: short trainings of one student, by loss and start, over seeds.

Run from the checkout, after make demo and python -m tools.corpus build/corpus:
python -m benchmarks.compression --packages minilm-int8 && python -m benchmarks.distillation [ROW ...]
python -m benchmarks.distillation --ablation
Writes benchmarks/results/distillation.json (rows that were not named stay); then: make docs
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compression import (
    BUILD,
    PACKAGE_PAIRS,
    PAIRS,
    RECIPES,
    REFERENCE,
    ROOT,
    embedded,
    judged,
    retrieval_texts,
    timed,
)
from benchmarks.quality import compare as compare_quality
from edgekit import export
from edgekit.compress.base import parameters_of
from edgekit.compressing import compressed
from edgekit.machine import read_machine, versions
from edgekit.model import ModelRef, TorchModel
from edgekit.preflight import read_data, sift
from edgekit.recipe import overlay, read_table, recipe_from_table
from edgekit.source import load
from edgekit.store import dump_json, write_text
from tools.demo import prepare

OUTPUT = Path(__file__).parent / "results" / "distillation.json"
ABLATED = "minilm-b"
SHORT = {"samples": 12_800, "epochs": 3.0, "held_out": 128, "patience": 0}
CACHE = BUILD / "teacher"
SEEDS = (0, 1, 2)

VARIANTS: dict[str, dict[str, Any]] = {
    "cosine alone": {"losses": {"similarity": 0, "hidden": 0}},
    "+ similarity in the batch": {"losses": {"hidden": 0}},
    "+ hidden states": {"losses": {"hidden": 0.1}},
    "+ relations": {"losses": {"hidden": 0, "relations": 1.0}},
    "every other layer": {"losses": {"hidden": 0}},
    "fresh": {"losses": {"hidden": 0}, "fresh": {"layers": 3, "ffn": 704}},
}
"""Row of the ablation -> what differs from the recipe; each is the one above it and one thing more, up to the
controls: evenly spaced layers without repair, and a student with random weights."""


def rows() -> tuple[str, ...]:
    """Return the recipes that train."""
    return tuple(path.stem for path in sorted(RECIPES.glob("minilm-*.toml")) if "distill" in read_table(path))


def packaged(name: str) -> dict[str, Any]:
    """Make a recipe's int8 package, which stays in the build folder, and return what it is."""
    result = export(recipe_from_table(read_table(RECIPES / f"{name}.toml")), BUILD / name, force=True)
    folder = result.packages[0].path
    steps = [r for r in result.reports[0].history if "quality" in r.facts]
    training: Any = next(r for r in steps if r.step == "distillation")
    return {
        "recipe": name,
        "parameters": training.facts["parameters_after"],
        "bytes": (folder / "model.onnx").stat().st_size,
        "steps": [{"step": r.step, "did": r.did, "quality": r.facts["quality"]} for r in steps],
        "curve": training.facts["curve"],
        "training_seconds": round(training.seconds),
    }


def ablated(
    name: str, seed: int, original: TorchModel, reference: np.ndarray, texts: Sequence[str]
) -> dict[str, float]:
    """Return the quality of a short training before quantization, with the seconds that it took."""
    changes = VARIANTS[name]
    whole = read_table(RECIPES / f"{ABLATED}.toml")
    table = overlay(whole, {"seed": seed, "distill": {**SHORT, "cache": str(CACHE), **changes}})
    if "fresh" in changes:
        del table["compress"]
    elif name == "every other layer":
        table["compress"]["layers"] |= {"choose": "every-kth", "repair": False}
        table["compress"]["width"] |= {"importance": "random", "repair": False}
    recipe = recipe_from_table(table)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        start, data = sift(original, read_data(recipe, calibrates=True), recipe)
        model = compressed(start, recipe, data, Path(scratch), Path(scratch) / "training")
        quality = compare_quality(reference, embedded(model, texts))
    return {**quality, "seconds": round(time.perf_counter() - started)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the rows that are named, or all, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--ablation", action="store_true", help="short trainings by loss and start instead")
    options = parser.parse_args(arguments)
    known = tuple(VARIANTS) if options.ablation else rows()
    unknown = [name for name in options.rows if name not in known]
    if unknown:
        parser.error(f"no row {unknown[0]!r}; there are: {'; '.join(known)}")
    empty: dict[str, Any] = {"rows": {}, "ablation": {}, "speeds": {}}
    results = json.loads(OUTPUT.read_text(encoding="utf-8")) if OUTPUT.exists() else empty
    results |= {"machine": read_machine().to_json(), "versions": versions(), "short": SHORT}
    results |= {"pairs": PAIRS, "package_pairs": PACKAGE_PAIRS}
    prepare(ROOT / "build")
    with tempfile.TemporaryDirectory() as scratch:
        original = load(ModelRef(str(ROOT / "build" / "all-MiniLM-L6-v2")), None, scratch=Path(scratch))
        results["parameters"] = parameters_of(original.module)
        if options.ablation:
            texts = retrieval_texts(PAIRS)
            reference = embedded(original, texts)
            results["original"] = compare_quality(reference, reference)
            for name in options.rows or known:
                runs = {str(seed): ablated(name, seed, original, reference, texts) for seed in SEEDS}
                results["ablation"][name] = runs
                print(name, runs, flush=True)
                write_text(OUTPUT, dump_json(results))
            return
        for name in options.rows or known:
            results["rows"][name] = packaged(name)
            write_text(OUTPUT, dump_json(results))
        results["original_package"], quality = judged(tuple(results["rows"]), original)
        for name, found in quality.items():
            results["rows"][name]["int8"] = found
        results["speeds"] = timed((REFERENCE, *results["rows"]))
        write_text(OUTPUT, dump_json(results))


if __name__ == "__main__":
    main()
