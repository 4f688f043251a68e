"""Students of all-MiniLM-L6-v2: quality, size and speed of their packages, and what each loss is worth.

A row is a recipe of examples/recipes with a [distill] table; its package is made (which trains, and goes on
where it was interrupted), judged in ONNX Runtime on English that nothing learnt from, once of the same Debian
packages as the texts that taught and once of others, and timed in turns with int8 alone. With --judge: only
judged and timed again. With --ablation: short trainings of one student, by loss and start, over seeds.

Run from the checkout, after make demo and python -m tools.corpus build/corpus:
python -m benchmarks.compression --packages minilm-int8 && python -m benchmarks.distillation [ROW ...]
python -m benchmarks.distillation --ablation [ROW ...]
Writes benchmarks/results/distillation.json (rows that were not named stay); then: make docs
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compression import (
    BUILD,
    HELD_OUT,
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
from benchmarks.rows import refuse_unknown
from edgekit import compress_model, export, open_package
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
IN_DOMAIN = ROOT / "build" / "corpus" / "in-domain.txt"

DYNAMIC = "minilm-dynamic"
"""The control that takes no training: the teacher in dynamic int8, without calibration."""

ABLATED = "minilm-b"
SHORT = {
    "data": "build/corpus/general.txt",
    "samples": 9_600,
    "epochs": 1.0,
    "held_out": 128,
    "patience": 0,
    "evaluate_every": 75,
}
ABLATION = BUILD.parent / "ablation"
"""Folder of the students before they learn, and of the teacher's outputs."""
SEEDS = (0, 1, 2)

VARIANTS: dict[str, dict[str, Any]] = {
    "cosine alone": {},
    "+ similarity in the batch, a tenth": {"losses": {"similarity": 0.1}},
    "+ similarity in the batch": {"losses": {"similarity": 1.0}},
    "+ hidden states": {"losses": {"hidden": 0.1}},
    "+ relations": {"losses": {"relations": 1.0}},
    "every other layer": {},
    "fresh": {"fresh": {"layers": 3, "ffn": 512}},
}
"""Row of the ablation -> what differs from the recipe. The last two are controls: evenly spaced layers and
random neurons without repair, and random weights."""


def rows() -> tuple[str, ...]:
    """Return the recipes that train."""
    return tuple(path.stem for path in sorted(RECIPES.glob("minilm-*.toml")) if "distill" in read_table(path))


def package_of(name: str) -> Path:
    """Return where a recipe's int8 package stays."""
    return BUILD / name / "cpu-x86"


def described(name: str) -> dict[str, Any]:
    """Return what a recipe's package is and how it was made."""
    package = open_package(package_of(name))
    steps = [record for record in package.manifest["history"] if "quality" in record["facts"]]
    training = next(record for record in steps if record["step"] == "distillation")
    return {
        "recipe": name,
        "parameters": training["facts"]["parameters_after"],
        "bytes": package.model.stat().st_size,
        "steps": [{"step": r["step"], "did": r["did"], "quality": r["facts"]["quality"]} for r in steps],
        "curve": training["facts"]["curve"],
    }


def make_dynamic() -> None:
    """Make the package of the teacher that is quantized without calibration."""
    lower = {"cosine_mean": 0.9, "cosine_p05": 0.85, "rank_correlation": 0.9}
    table = overlay(read_table(RECIPES / f"{REFERENCE}.toml"), {"ship": "dynamic", "gates": lower})
    export(recipe_from_table(table), BUILD / DYNAMIC, force=True)


def start_of(name: str) -> Path | None:
    """Return the student that a row of the ablation begins with, made if it is not there; None is fresh."""
    if "fresh" in VARIANTS[name]:
        return None
    evenly = name == "every other layer"
    folder = ABLATION / ("evenly" if evenly else "inherited")
    if not folder.exists():
        table = read_table(RECIPES / f"{ABLATED}.toml")
        del table["distill"]
        if evenly:
            table["compress"]["layers"] |= {"choose": "every-kth", "repair": False}
            table["compress"]["width"] |= {"importance": "random", "repair": False}
        compress_model(recipe_from_table(table), folder)
    return folder


def ablated_table(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ablated recipe for a student that is made already, with changes."""
    table = overlay(read_table(RECIPES / f"{ABLATED}.toml"), changes)
    del table["compress"]
    return table


def ablated(
    name: str, seed: int, original: TorchModel, reference: np.ndarray, texts: Sequence[str]
) -> dict[str, float]:
    """Return the quality of a short training before quantization, with the seconds that it took."""
    start = start_of(name)
    student = {} if start is None else {"student": str(start)}
    changes = {**SHORT, "cache": str(ABLATION / "teacher"), **student, **VARIANTS[name]}
    recipe = recipe_from_table(ablated_table({"seed": seed, "distill": changes}))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        teacher, data = sift(original, read_data(recipe, calibrates=True), recipe)
        model = compressed(teacher, recipe, data, Path(scratch), Path(scratch) / "training")
        quality = compare_quality(reference, embedded(model, texts))
    return {**quality, "seconds": round(time.perf_counter() - started)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the rows that are named, or all, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--judge", action="store_true", help="only judge and time what is made, again")
    parser.add_argument("--ablation", action="store_true", help="short trainings by loss and start instead")
    options = parser.parse_args(arguments)
    known = tuple(VARIANTS) if options.ablation else rows()
    refuse_unknown(parser, options.rows, known)
    empty: dict[str, Any] = {"rows": {}, "teacher": {}, "ablation": {}, "speeds": {}, "controls": {}}
    results = empty | (json.loads(OUTPUT.read_text(encoding="utf-8")) if OUTPUT.exists() else {})
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
            if not options.judge:
                export(recipe_from_table(read_table(RECIPES / f"{name}.toml")), BUILD / name, force=True)
            results["rows"][name] = described(name)
            write_text(OUTPUT, dump_json(results))
        if not options.judge or not package_of(DYNAMIC).exists():
            make_dynamic()
        size = open_package(package_of(DYNAMIC)).model.stat().st_size
        results["controls"] = {DYNAMIC: {"parameters": results["parameters"], "bytes": size}}
        results["in_domain_pairs"] = len(retrieval_texts(PACKAGE_PAIRS, IN_DOMAIN)) // 2
        all_rows = results["rows"] | results["controls"]
        for key, corpus in (("int8", HELD_OUT), ("in_domain", IN_DOMAIN)):
            results["teacher"][key], quality = judged(tuple(all_rows), original, corpus)
            for name, found in quality.items():
                all_rows[name][key] = found
        results["speeds"] = timed((REFERENCE, *all_rows))
        write_text(OUTPUT, dump_json(results))


if __name__ == "__main__":
    main()
