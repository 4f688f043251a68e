"""What zeros are good for: all-MiniLM-L6-v2 in int8 with half of the weights at zero, beside the dense one.

Run from the checkout: python -m benchmarks.sparsity
Writes benchmarks/results/sparsity.json. Every form is exported, calibrated and quantized for `cpu-x86` alike.
Times are CPU times of one thread, all forms in turns, so the machine may be busy.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embeddings import speeds
from benchmarks.rounding import closeness, embedded, texts_apart
from edgekit import graph as g
from edgekit.compress.base import Data
from edgekit.compress.judge import Judge
from edgekit.compress.sparsity import sparsify
from edgekit.compression import SparsityOptions
from edgekit.golden import Golden, GoldenBatch
from edgekit.machine import read_machine, versions
from edgekit.model import ModelRef, TorchModel
from edgekit.optimize import optimize
from edgekit.profile import load_profile
from edgekit.quantize import calibrate, quantize
from edgekit.recipe import QuantizeOptions
from edgekit.source import load
from edgekit.store import deflated_bytes, dump_json, write_text
from edgekit.tasks.batches import SingleBatches
from edgekit.to_onnx import export_model
from edgekit.validate.side_by_side import Contestant, time_side_by_side
from tools.demo import prepare

OUTPUT = Path(__file__).parent / "results" / "sparsity.json"
TARGET = "cpu-x86"
CALIBRATION_TEXTS = 256
FITTED_TEXTS = 192
HELD_OUT_TEXTS = 256
MAX_TOKENS = 128
RUNS = 60
POINTS = ((1, 16), (1, 128), (8, 64))
FORMS: Mapping[str, SparsityOptions | None] = {
    "dense": None,
    "half, sparsegpt": SparsityOptions(),
    "2:4, sparsegpt": SparsityOptions(pattern="2:4"),
    "half, magnitude": SparsityOptions(method="magnitude"),
}


def measure(folder: Path) -> dict[str, Any]:
    """Make every form in `folder`, and return what is measured of each."""
    source, texts = prepare(folder)
    model = load(ModelRef(str(source), max_length=MAX_TOKENS), None, scratch=folder)
    calibration, rest = texts_apart(texts, CALIBRATION_TEXTS)
    judge = Judge.of(model, calibration[FITTED_TEXTS:])
    data = Data(tuple(calibration[:FITTED_TEXTS]), judge, folder)
    held_out = list(SingleBatches(model.preprocessor, rest[:HELD_OUT_TEXTS]))
    made, rows = {}, []
    for number, (form, options) in enumerate(FORMS.items()):
        here = folder / str(number)
        here.mkdir()
        changed = model if options is None else sparsify(model, options, data)
        made[form] = in_int8(changed, calibration, here)
        wanted = embedded(folder / "0" / "float.onnx", held_out)
        rows.append(
            {
                "form": form,
                "loss_in_float": judge.loss(changed),
                "zero_codes": zero_codes(made[form]),
                "file_bytes": made[form].stat().st_size,
                "deflated_bytes": deflated_bytes(made[form]),
                **closeness(wanted, embedded(made[form], held_out)),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    golden = Golden("sentence-embedding", (GoldenBatch(held_out[0], {"output": wanted[:1]}),))
    contestants = [Contestant(form, path, golden, MAX_TOKENS) for form, path in made.items()]
    timings, _ = time_side_by_side(contestants, POINTS, runs=RUNS, threads=1, clock=time.thread_time)
    for row in rows:
        row["speed_over_dense"] = speeds(timings, row["form"], "dense")
    return {
        "command": "python -m benchmarks.sparsity",
        "machine": read_machine().to_json(),
        "versions": versions(),
        "target": TARGET,
        "calibration": len(calibration),
        "held_out": len(held_out),
        "threads": 1,
        "rows": rows,
    }


def in_int8(model: TorchModel, calibration: Any, folder: Path) -> Path:
    """Export a model and quantize it for the target; return the file."""
    (folder / "export").mkdir()
    exported = export_model(model, folder / "export", opset=20, ir_version=10)
    ready = optimize(exported, folder / "float.onnx")
    statistics = calibrate(ready, SingleBatches(model.preprocessor, calibration))
    path = folder / "int8.onnx"
    return quantize(ready, statistics, load_profile(TARGET), QuantizeOptions(), path).only.path


def zero_codes(path: Path) -> float:
    """Return the share of zeros among the int8 codes, those of tables with thousands of rows left out."""
    codes = [
        array
        for value in g.load(path).graph.initializers.values()
        if (array := g.constant(value)) is not None and array.dtype == np.int8 and array.ndim == 2
        if max(array.shape) < 4096
    ]
    return float(sum((array == 0).sum() for array in codes) / sum(array.size for array in codes))


def main() -> None:
    """Measure in a folder that is thrown away, and keep the results."""
    with tempfile.TemporaryDirectory() as name:
        results = measure(Path(name))
    write_text(OUTPUT, dump_json(results))
    print(f"wrote {OUTPUT}")


if __name__ == "__main__":
    main()
