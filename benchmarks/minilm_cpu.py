"""all-MiniLM-L6-v2 through edgekit's own export: size, closeness to fp32 and speed, as in the README.

Run from the checkout, on a machine that is otherwise idle: python -m benchmarks.minilm_cpu
Writes benchmarks/results/minilm_cpu.json; `make docs` then writes the README's table from it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgekit import Recipe, export
from edgekit.recipe import DataOptions, LatencyOptions, ValidationOptions
from edgekit.store import dump_json, write_text
from tools.demo import prepare

OUTPUT = Path(__file__).parent / "results" / "minilm_cpu.json"
TARGETS = ("cpu-x86", "cpu-x86-avx2", "arm64", "mobile-android")
HELD_OUT = 256
RUNS = 200
HELP_STARTS = 10


def measure(folder: Path) -> dict[str, Any]:
    """Export in `folder` and return what its report.json says, in the form that the README is made from."""
    model, texts = prepare(folder)
    recipe = Recipe(
        model=str(model),
        targets=TARGETS,
        calibration=DataOptions(data=str(texts)),
        validation=ValidationOptions(samples=HELD_OUT),
        latency=LatencyOptions(runs=RUNS),
    )
    busy = os.getloadavg()[0]
    result = export(recipe, folder / "packages", progress=_say)
    reports = json.loads((result.output / "report.json").read_text(encoding="utf-8"))["targets"]
    return {
        "command": "python -m benchmarks.minilm_cpu",
        "machine": reports[0]["machine"],
        "versions": reports[0]["versions"],
        "load_before": round(busy, 2),
        "held_out": HELD_OUT,
        "timed_runs": RUNS,
        "float_bytes": reports[0]["verdict"]["float_size"]["file_bytes"],
        "targets": [_target(report["verdict"]) for report in reports],
        "help_seconds": help_seconds(),
    }


def _target(verdict: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": verdict["target"],
        "file_bytes": verdict["quantized_size"]["file_bytes"],
        "checks": {check["name"]: check["measured"] for check in verdict["checks"]},
        "latency": verdict["latency"],
        "latency_note": verdict["latency_note"],
    }


def help_seconds() -> dict[str, Any]:
    """Return how long `edgekit --help` takes, process start to end."""
    seconds = []
    for _ in range(HELP_STARTS):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "edgekit", "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - begin)
    return {
        "median": round(statistics.median(seconds), 3),
        "max": round(max(seconds), 3),
        "starts": HELP_STARTS,
    }


def _say(stage: str, message: str, fraction: float | None = None) -> None:
    print(f"{stage}: {message}", flush=True)


def main() -> None:
    """Measure in a folder that is thrown away, and keep the results."""
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder))
    write_text(OUTPUT, dump_json(results))
    print(f"wrote {OUTPUT}; now: make docs")


if __name__ == "__main__":
    main()
