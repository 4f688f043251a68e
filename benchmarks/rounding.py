"""What rounding that makes up for its errors does to all-MiniLM-L6-v2, beside rounding to nearest.

Run from the checkout: python -m benchmarks.rounding
Writes benchmarks/results/rounding.json. Nothing is timed, so the machine may be busy. Held out are all texts
of the demo that calibration does not see.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.calibration import prepare
from edgekit import graph as g
from edgekit.data import Sample, split
from edgekit.machine import read_machine, versions
from edgekit.model import Graph, OnnxModel
from edgekit.profile import load_profile
from edgekit.quantize import calibrate, quantize
from edgekit.recipe import DataOptions, QuantizeOptions
from edgekit.runtime import open_session, usable_cores
from edgekit.store import dump_json, write_text
from edgekit.tasks.batches import SingleBatches
from edgekit.tasks.measures import cosines, spearman
from edgekit.tasks.text import TEXT_INPUTS, TextPreprocessor

OUTPUT = Path(__file__).parent / "results" / "rounding.json"
TARGETS = ("cpu-x86", "cpu-x86-avx2")
ROUNDINGS: tuple[Literal["nearest", "compensated"], ...] = ("nearest", "compensated")
CALIBRATION_TEXTS = 256
MAX_TOKENS = 256


def measure(folder: Path) -> dict[str, Any]:
    """Quantize in every way in `folder` and return how close each comes to the float graph."""
    prepare(folder)
    path = folder / "float.onnx"
    model = OnnxModel((Graph("model", path, g.signature(g.load(path))),), 20, 10)
    preprocessor = TextPreprocessor.from_file(
        folder / "tokenizer.json", max_length=MAX_TOKENS, input_names=TEXT_INPUTS, pad_token_id=0
    )
    calibration, held_out = texts_apart(folder / "texts.txt", CALIBRATION_TEXTS)
    statistics = calibrate(model, SingleBatches(preprocessor, calibration))
    tokens = list(SingleBatches(preprocessor, held_out))
    wanted = embedded(path, tokens)
    rows = []
    for target in TARGETS:
        for rounding in ROUNDINGS:
            options = QuantizeOptions(rounding=rounding)
            made = quantize(model, statistics, load_profile(target), options, folder / "quantized.onnx")
            figures = closeness(wanted, embedded(made.only.path, tokens))
            rows.append({"target": target, "rounding": rounding, "file_bytes": made.file_bytes, **figures})
            print(json.dumps(rows[-1]), flush=True)
    return {
        "command": "python -m benchmarks.rounding",
        "machine": read_machine().to_json(),
        "versions": versions(),
        "calibration": len(calibration),
        "held_out": len(held_out),
        "rows": rows,
    }


def texts_apart(path: Path, calibration: int) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Return texts to calibrate with, and all other texts of a file, each once."""
    total = len({line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()})
    found = split(DataOptions(data=str(path), samples=calibration), held_out=total - calibration, seed=0)
    return found.calibration, found.held_out


def embedded(path: Path, tokens: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Embed texts one by one, so that none is padded: [texts, dim]."""
    session = open_session(path, threads=usable_cores())
    names = [value.name for value in session.get_inputs()]
    return np.concatenate([session.run(None, {name: text[name] for name in names})[0] for text in tokens])


def closeness(wanted: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Return the cosines' spread and the rank correlation of all similarities.

    Args:
        wanted: Unit vectors of the float graph, [texts, dim].
        found: Unit vectors of the quantized one, the same shape.
    """
    cosine = cosines(wanted, found)
    pairs = np.triu_indices(len(wanted), 1)
    return {
        "cosine_min": float(cosine.min()),
        "cosine_p01": float(np.percentile(cosine, 1)),
        "cosine_p05": float(np.percentile(cosine, 5)),
        "cosine_mean": float(cosine.mean()),
        "rank_correlation": spearman((wanted @ wanted.T)[pairs], (found @ found.T)[pairs]),
    }


def main() -> None:
    """Measure in a folder that is thrown away, and keep the results."""
    with tempfile.TemporaryDirectory() as name:
        results = measure(Path(name))
    write_text(OUTPUT, dump_json(results))
    print(f"wrote {OUTPUT}")


if __name__ == "__main__":
    main()
