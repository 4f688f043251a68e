"""A ViT that reads digits teaches one of a quarter of its multiply-adds, beside students of labels alone.

Every student learns from the same 1197 images and is judged by the accuracy on 600 others, before
quantization. *Moved* adds seven copies of each, turned and shifted a little. Inherited students are the
teacher after `edgekit compress` at a quarter of the multiply-adds; fresh ones are of the same family with
random weights and about as many. Over seeds, which order the samples and, of fresh students, draw weights.

Run from the checkout: OMP_NUM_THREADS=1 python -m benchmarks.distillation_digits [ROW ...]
The teacher stays in build/digits, and is not trained again. Writes
benchmarks/results/distillation_digits.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.compression_digits import EXAMPLE, FOLDER, MODELS, accuracy
from benchmarks.rows import refuse_unknown
from edgekit.compress.anatomy import layers_of
from edgekit.compress.base import parameters_of
from edgekit.compressing import compressed
from edgekit.data import Sample, read_samples
from edgekit.machine import read_machine, versions
from edgekit.model import ModelRef, TorchModel
from edgekit.preflight import read_data, sift
from edgekit.recipe import DataOptions, recipe_from_table
from edgekit.source import load
from edgekit.store import dump_json, write_text

OUTPUT = Path(__file__).parent / "results" / "distillation_digits.json"
SEEDS = (0, 1, 2)
SCHEDULE = {"steps": 600, "batch": 64, "learning_rate": 0.001, "held_out": 128, "patience": 0}
QUARTER = {"width": {"multiply_adds": 0.25, "multiple": 8}}
FRESH = {"layers": 2, "hidden": 32, "heads": 4, "ffn": 96}
LABELS_ALONE = {"soft": 0, "hard": 1, "hidden": 0}
COPIES = 7
MOVED = {"data": "build/moved", "samples": 1197 * (1 + COPIES), "steps": 1800}

ROWS: dict[str, dict[str, Any]] = {
    "inherited, not trained": {},
    "inherited, labels alone": {"losses": LABELS_ALONE},
    "inherited, temperature 1": {"losses": {"temperature": 1}},
    "inherited, temperature 2": {"losses": {"temperature": 2}},
    "inherited, temperature 4": {"losses": {"temperature": 4}},
    "inherited, temperature 2, no labels": {"losses": {"temperature": 2, "hard": 0}},
    "inherited, temperature 2, no hidden states": {"losses": {"temperature": 2, "hidden": 0}},
    "inherited, moved, labels alone": {**MOVED, "losses": LABELS_ALONE},
    "inherited, moved, temperature 1": {**MOVED, "losses": {"temperature": 1}},
    "inherited, moved, temperature 1, no labels": {**MOVED, "losses": {"temperature": 1, "hard": 0}},
    "fresh, labels alone": {"losses": LABELS_ALONE, "fresh": FRESH},
    "fresh, temperature 2": {"losses": {"temperature": 2}, "fresh": FRESH},
}
"""Row -> its `[distill]` beside the schedule; losses that are not named count what they usually do."""


def move(train: Path, moved: Path) -> None:
    """Write training images with copies that are degrees and pixels off, by folders named for their digit."""
    rng = np.random.default_rng(0)
    shutil.rmtree(moved, ignore_errors=True)
    for path in sorted(train.glob("*/*.png")):
        folder = moved / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, folder)
        with Image.open(path) as image:
            for copy in range(COPIES):
                angle, *shift = rng.uniform((-12, -0.7, -0.7), (12, 0.7, 0.7))
                turned = image.rotate(angle, Image.Resampling.BILINEAR, translate=tuple(shift))
                turned.save(folder / f"{path.stem}-{copy}.png")


def multiply_adds(model: TorchModel) -> int:
    """Return the multiply-adds of the layers' matrices for one token."""
    return sum(
        part.weight.numel()
        for layer in layers_of(model)
        for part in layer.module.modules()
        if isinstance(part, torch.nn.Linear)
    )


def taught(name: str, seed: int, teacher: TorchModel, test: list[Sample]) -> dict[str, Any]:
    """Return a student's accuracy and size."""
    distill = ROWS[name]
    table: dict[str, Any] = {
        "model": "build/digits-vit",
        "seed": seed,
        "calibration": {"data": "build/train", "samples": 352},
        "validation": {"samples": 64},
        "compress": {"samples": 352, **({} if "fresh" in distill else QUARTER)},
    }
    if distill:
        table["distill"] = {"data": "build/train", "samples": 1197, **SCHEDULE, **distill}
        table["distill"] |= {"cache": "build/teacher"}
    recipe = recipe_from_table(table)
    with tempfile.TemporaryDirectory() as scratch:
        start, data = sift(teacher, read_data(recipe, calibrates=True), recipe)
        student = compressed(start, recipe, data, Path(scratch), Path(scratch) / "training")
        return {
            "accuracy": accuracy(student, test),
            "parameters": parameters_of(student.module),
            "multiply_adds": multiply_adds(student) / multiply_adds(teacher),
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the students that are named, or all, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*")
    named = parser.parse_args(arguments).rows
    refuse_unknown(parser, named, ROWS)
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    os.chdir(FOLDER)  # the example writes below build/
    vit = next(model for model in MODELS if model.key == "vit")
    if not (FOLDER / vit.trained).exists():
        subprocess.run([sys.executable, str(EXAMPLE / vit.training[0])], cwd=FOLDER, check=True)
    move(FOLDER / "build" / "train", FOLDER / "build" / "moved")
    rows: dict[str, Any] = json.loads(OUTPUT.read_text(encoding="utf-8"))["rows"] if named else {}
    with tempfile.TemporaryDirectory() as scratch:
        teacher = load(ModelRef(vit.spec), None, scratch=Path(scratch))
        test = list(read_samples(DataOptions(data="build/test")))
        whole = accuracy(teacher, test)
        for name in named or ROWS:
            runs = {str(seed): taught(name, seed, teacher, test) for seed in SEEDS}
            found = np.array([run["accuracy"] for run in runs.values()])
            rows[name] = {"runs": runs, "mean": found.mean(), "low": found.min(), "high": found.max()}
            print(f"{name}: {found.mean():.4f} ({found.min():.4f}-{found.max():.4f})", flush=True)
    document = {
        "command": "OMP_NUM_THREADS=1 python -m benchmarks.distillation_digits",
        "machine": read_machine().to_json(),
        "versions": versions(),
        "schedule": SCHEDULE,
        "teacher": whole,
        "rows": {name: rows[name] for name in ROWS if name in rows},
    }
    write_text(OUTPUT, dump_json(document))
    print(f"wrote {OUTPUT}")


if __name__ == "__main__":
    main()
