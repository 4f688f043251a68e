"""What each rewrite of the float graph gains on this machine, and what the forms that edgekit left out do.

Each is toggled in the plan of `cpu-x86`, in the quantized form that ships; `benchmarks/forms.py` has those
that are not edgekit's.

Run from the checkout: python -m benchmarks.rewrites
Writes benchmarks/results/rewrites.json; `make docs` then shows it in docs/benchmarks.md, and the profile's
`[optimize]` table holds what it says.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import attention_block
from benchmarks.forms import FORMS
from benchmarks.zoo import LONG, named, save
from edgekit.data import Sample
from edgekit.machine import read_machine, versions
from edgekit.model import ModelRef
from edgekit.optimize import REWRITES
from edgekit.profile import load_profile
from edgekit.source import load
from edgekit.store import dump_json, write_text
from edgekit.tasks.batches import golden_batches
from edgekit.to_onnx import export_model, record_golden
from edgekit.tuning import measure_rewrites
from tools.demo import prepare
from tools.texts import standard_library_texts

OUTPUT = Path(__file__).parent / "results" / "rewrites.json"
TARGET = "cpu-x86"
MINILM = "all-MiniLM-L6-v2"
WIDE = ("ALBERT", "T5 encoder", "RoBERTa")
"""Random weights, two layers as wide as in real models: what these spell otherwise than BERT."""
SAMPLES, CALIBRATION_BATCHES = 12, 3
RUNS = 50


def measure(name: str, folder: Path, tried: Collection[str] | None) -> dict[str, Any]:
    """Return what each rewrite gains on one model."""
    texts = tuple(standard_library_texts(SAMPLES + 28))
    task = None
    if name == MINILM:
        spec = str(prepare(folder)[0])
    else:
        architecture = named(name)
        wide = replace(architecture, config=architecture.config | architecture.wide)
        spec, task = save(wide, folder / "model", texts), wide.task
    profile = load_profile(TARGET)
    model = load(ModelRef(spec), task, scratch=folder)
    batches = golden_batches(model.preprocessor, [Sample(text) for text in texts[:SAMPLES]])
    exported = export_model(
        model, folder / "export", opset=profile.onnx.opset, ir_version=profile.onnx.ir_version
    )
    gains = measure_rewrites(
        exported,
        [inputs for inputs, _ in batches[:CALIBRATION_BATCHES]],
        record_golden(model, batches),
        profile,
        folder,
        tried=tried,
        rewrites=FORMS,
        runs=RUNS,
        max_length=LONG,
        progress=_say,
    )
    return {"name": name, "gains": [gain.to_json() for gain in gains]}


def _say(stage: str, message: str, fraction: float | None = None) -> None:
    print(f"{stage}: {message}", flush=True)


def main() -> None:
    """Measure in folders that are thrown away, and keep the results."""
    busy, rows = os.getloadavg()[0], []
    for name in (MINILM, *WIDE):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(name, Path(folder), None if name == MINILM else tuple(REWRITES)))
        print(dump_json(rows[-1]), flush=True)
    results = {
        "command": "python -m benchmarks.rewrites",
        "machine": read_machine().to_json(),
        "versions": versions(),
        "load_before": round(busy, 2),
        "target": TARGET,
        "plan": list(load_profile(TARGET).optimize.rewrites),
        "rows": rows,
        "qattention": attention_block.measure(),
    }
    write_text(OUTPUT, dump_json(results))
    print(f"wrote {OUTPUT}; now: make docs")


if __name__ == "__main__":
    main()
