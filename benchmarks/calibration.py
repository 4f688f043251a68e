"""Calibration of all-MiniLM-L6-v2: peak memory against the number of samples, wall time, a memory budget.

Run from the checkout, on a machine that is otherwise idle: python -m benchmarks.calibration
Writes benchmarks/results/calibration.json. Each figure comes from a process of its own, whose peak is read
from the kernel.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgekit.machine import read_machine, versions
from edgekit.store import dump_json, write_text

OUTPUT = Path(__file__).parent / "results" / "calibration.json"
FEW, MANY, TIMED = 64, 4096, 512
BUDGET_MB = 400
TARGET = "cpu-x86"


def prepare(folder: Path) -> None:
    """Make the float graph and the tokenized texts that every measurement uses."""
    from edgekit.model import ModelRef
    from edgekit.optimize import optimize
    from edgekit.source import load
    from edgekit.to_onnx import export_model
    from tools.demo import prepare as fetch

    model, texts = fetch(folder)
    loaded = load(ModelRef(str(model)), None, scratch=folder)
    (folder / "export").mkdir()
    exported = export_model(loaded, folder / "export", opset=20, ir_version=10)
    optimize(exported, folder / "float.onnx")
    (folder / "tokenizer.json").write_bytes((model / "tokenizer.json").read_bytes())
    (folder / "texts.txt").write_bytes(texts.read_bytes())


def child(folder: Path, samples: int, quantizes: bool, max_memory_mb: float | None) -> dict[str, Any]:
    """Calibrate on some samples, quantize if wanted, and return what it took."""
    from edgekit import graph as g
    from edgekit.data import Sample
    from edgekit.model import Graph, OnnxModel
    from edgekit.profile import load_profile
    from edgekit.quantize import calibrate, quantize
    from edgekit.quantize.observe import resident_bytes
    from edgekit.recipe import QuantizeOptions
    from edgekit.record import peak_memory_bytes
    from edgekit.tasks.batches import SingleBatches
    from edgekit.tasks.text import TEXT_INPUTS, TextPreprocessor

    path = folder / "float.onnx"
    model = OnnxModel((Graph("model", path, g.signature(g.load(path))),), 20, 10)
    preprocessor = TextPreprocessor.from_file(
        folder / "tokenizer.json", max_length=256, input_names=TEXT_INPUTS, pad_token_id=0
    )
    lines = [line for line in (folder / "texts.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    # Numbered copies where there are not enough: other texts of the same lengths.
    texts = [f"{index // len(lines) or ''} {lines[index % len(lines)]}".strip() for index in range(samples)]
    # The longest text first, so that few and many samples meet the same largest activations.
    texts[0] = max(lines, key=len)
    batches = SingleBatches(preprocessor, [Sample(text) for text in texts])
    before = resident_bytes()
    started, cpu = time.perf_counter(), time.process_time()
    file = folder / f"statistics-{samples}-{max_memory_mb}.npz" if max_memory_mb else None
    found = calibrate(
        model, batches, statistics=file, checkpoint_batches=sys.maxsize, max_memory_mb=max_memory_mb
    )
    calibrated, cpu_calibrated = time.perf_counter(), time.process_time()
    calibration_peak = peak_memory_bytes()
    if quantizes:
        quantize(model, found, load_profile(TARGET), QuantizeOptions(), folder / "quantized.onnx")
    return {
        "samples": samples,
        "passes": found.passes,
        "calibrate_seconds": round(calibrated - started, 2),
        "quantize_seconds": round(time.perf_counter() - calibrated, 2) if quantizes else None,
        "calibrate_cpu_seconds": round(cpu_calibrated - cpu, 2),
        "quantize_cpu_seconds": round(time.process_time() - cpu_calibrated, 2) if quantizes else None,
        "resident_before_bytes": before,
        "peak_bytes": calibration_peak,
    }


def measured(
    folder: Path, samples: int, *, quantizes: bool = False, max_memory_mb: float = 0
) -> dict[str, Any]:
    """Return what `child` finds in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.calibration", str(folder), str(samples), str(int(quantizes))]
    ran = subprocess.run([*command, str(max_memory_mb)], check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    print(result, flush=True)
    return result


def main() -> None:
    """Measure in a folder that is thrown away, and keep the results."""
    if len(sys.argv) > 1:
        where, samples, quantizes, budget = sys.argv[1:]
        found = child(Path(where), int(samples), quantizes == "1", float(budget) or None)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        busy = os.getloadavg()[0]
        few, many = measured(folder, FEW), measured(folder, MANY)
        timed = measured(folder, TIMED, quantizes=True)
        bounded = measured(folder, FEW, max_memory_mb=BUDGET_MB)
    results = {
        "command": "python -m benchmarks.calibration",
        "machine": read_machine().to_json(),
        "versions": versions(),
        "load_before": round(busy, 2),
        "target": TARGET,
        "few": few,
        "many": many,
        "peak_ratio": round(many["peak_bytes"] / few["peak_bytes"], 4),
        "timed": timed,
        "calibrate_and_quantize_seconds": round(timed["calibrate_seconds"] + timed["quantize_seconds"], 2),
        "bounded": {**bounded, "max_memory_mb": BUDGET_MB},
    }
    write_text(OUTPUT, dump_json(results))
    print(f"wrote {OUTPUT}")


if __name__ == "__main__":
    main()
