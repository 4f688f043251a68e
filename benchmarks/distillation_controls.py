"""What a student inherits is worth: students of the same shape and the same bytes, taught alike.

One starts from what `edgekit compress` chose and repaired, one from evenly spaced layers and neurons drawn at
random, one from random weights. Each sees as many of the texts of the ablated recipe, and becomes a package
for `cpu-x86` that ONNX Runtime judges on English like the lessons and on other English.

Run from the checkout, after make demo and python -m tools.corpus build/corpus:
OMP_NUM_THREADS=1 python -m benchmarks.distillation_controls [ROW ...]
Writes benchmarks/results/distillation_controls.json (rows that were not named stay); then: make docs
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.compression import BUILD, HELD_OUT, PACKAGE_PAIRS, ROOT, judged
from benchmarks.distillation import ABLATED, IN_DOMAIN, VARIANTS, ablated_table, package_of, start_of
from benchmarks.rows import refuse_unknown
from benchmarks.students import kept_rows, write_results
from edgekit import export, open_package
from edgekit.model import ModelRef
from edgekit.recipe import Recipe, recipe_from_table
from edgekit.source import load
from tools.demo import prepare

OUTPUT = Path(__file__).parent / "results" / "distillation_controls.json"

SIZES = {"epochs": 0.4, "distinct": 200_000, "pairs": PACKAGE_PAIRS}

APART = {
    "beta2": 0.98,
    "neighbours": True,
    "losses": {"similarity": 0.3, "anchors": 0.3, "comparisons_from": 0.5},
}
"""How the ablated recipe teaches to tell near texts apart."""

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "chosen, repaired": ("cosine alone", {}),
    "chosen, repaired, also taught by anchors": ("cosine alone", {"losses": {"anchors": 0.3}}),
    "chosen, repaired, taught to tell near texts apart": ("cosine alone", APART),
    "every other layer": ("every other layer", {}),
    "fresh": ("fresh", {}),
}
"""Row -> the variant of the ablation that starts alike, and how it is taught besides by the cosine."""


def folder_of(name: str) -> str:
    """Return the name of a row's folder of packages."""
    return f"{ABLATED}-from-{name.replace(', ', '-').replace(' ', '-')}"


def recipe_of(name: str, student: Path | None) -> Recipe:
    """Return the request of a row: the ablated recipe with another student and fewer steps."""
    variant, taught = ROWS[name]
    start = VARIANTS[variant] if student is None else {"student": str(student)}
    gates = {"cosine_mean": 0.0, "cosine_p05": -1.0, "rank_correlation": -1.0, "clip_rate": 0.2}
    distill = {"epochs": SIZES["epochs"], "samples": SIZES["distinct"], **taught, **start}
    return recipe_from_table(ablated_table({"gates": gates, "distill": distill}))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the rows that are named, or all, and keep the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rows", nargs="*")
    options = parser.parse_args(arguments)
    refuse_unknown(parser, options.rows, ROWS)
    rows = kept_rows(OUTPUT, SIZES)
    prepare(ROOT / "build")
    folders = {name: folder_of(name) for name in options.rows or ROWS}
    for name, folder in folders.items():
        export(recipe_of(name, start_of(ROWS[name][0])), BUILD / folder, force=True)
        rows[name] = {"bytes": open_package(package_of(folder)).model.stat().st_size}
    teacher = {}
    with tempfile.TemporaryDirectory() as scratch:
        original = load(ModelRef(str(ROOT / "build" / "all-MiniLM-L6-v2")), None, scratch=Path(scratch))
        for key, corpus in (("other", HELD_OUT), ("in_domain", IN_DOMAIN)):
            teacher[key], found = judged(tuple(folders.values()), original, corpus)
            for name, folder in folders.items():
                rows[name][key] = found[folder]
    command = "OMP_NUM_THREADS=1 python -m benchmarks.distillation_controls"
    write_results(OUTPUT, command, SIZES, rows=rows, teacher=teacher)


if __name__ == "__main__":
    main()
