"""MobileNetV2 and ViT trained on handwritten digits: accuracy and speed in int8 beside float.

Accuracy means something here, for the models are trained: 1197 images to train on, 600 held out. Digits have
8x8 pixels; MobileNetV2 sees them enlarged, since at 8x8 no convolution would be worth timing.

Run from the checkout, on a machine that is otherwise idle: python -m benchmarks.digits
Trained models stay in build/digits, and are not trained again. Writes benchmarks/results/digits.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import Recipe, export
from edgekit.recipe import DataOptions, LatencyOptions, ValidationOptions
from edgekit.store import dump_json, write_text

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "03_image_classification"
FOLDER = ROOT / "build" / "digits"
OUTPUT = Path(__file__).parent / "results" / "digits.json"
TARGET = "cpu-x86"
HELD_OUT = 600
RUNS = 200


@dataclass(frozen=True)
class Model:
    """One trained model.

    Attributes:
        name: As people call it.
        side: Pixels of an image's side.
        directory: Where it lies, below `build/digits/build`.
        training: Script of the example, and its arguments.
    """

    name: str
    side: int
    directory: str
    training: tuple[str, ...]


MODELS = (
    Model("ViT", 16, "digits-vit", ("vit.py",)),
    Model("MobileNetV2 x0.35", 96, "mobilenet-96", ("mobilenet.py", "--to", "build/mobilenet-96")),
    Model(
        "MobileNetV2 x0.35",
        224,
        "mobilenet-224",
        ("mobilenet.py", "--side", "224", "--epochs", "1", "--start", "build/mobilenet-96", "--to",
         "build/mobilenet-224"),
    ),
)  # fmt: skip


def measure(model: Model) -> dict[str, Any]:
    """Train a model where that is not done yet, export it, and return what report.json says."""
    trained = FOLDER / "build" / model.directory
    if not (trained / "preprocessor_config.json").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        script, *arguments = model.training
        subprocess.run([sys.executable, str(EXAMPLE / script), *arguments], cwd=FOLDER, check=True)
    recipe = Recipe(
        model=str(trained),
        targets=(TARGET,),
        calibration=DataOptions(data=str(FOLDER / "build" / "train")),
        validation=ValidationOptions(data=str(FOLDER / "build" / "test"), samples=HELD_OUT),
        latency=LatencyOptions(runs=RUNS),
    )
    busy = os.getloadavg()[0]
    result = export(recipe, FOLDER / f"package-{model.directory}", force=True)
    (report,) = json.loads((result.output / "report.json").read_text(encoding="utf-8"))["targets"]
    verdict = report["verdict"]
    quantization = [step for step in report["history"] if step["stage"] == "quantize"]
    return {
        "name": model.name,
        "side": model.side,
        "machine": report["machine"],
        "versions": report["versions"],
        "load_before": round(busy, 2),
        "checks": {check["name"]: check["measured"] for check in verdict["checks"]},
        "float_bytes": verdict["float_size"]["file_bytes"],
        "int8_bytes": verdict["quantized_size"]["file_bytes"],
        "latency": verdict["latency"],
        "latency_note": verdict["latency_note"],
        "skipped": [skip for step in quantization for skip in step["skipped"]],
    }


def main(names: Sequence[str]) -> None:
    """Measure every model, or those whose directories are named, and keep the results."""
    rows = []
    for model in (m for m in MODELS if not names or m.directory in names):
        rows.append(measure(model))
        print(f"{model.name} at {model.side}: {rows[-1]['checks']}", flush=True)
    command = " ".join(["python -m benchmarks.digits", *names])
    document = {"command": command, "held_out": HELD_OUT, "timed_runs": RUNS}
    shared = {key: rows[0].pop(key) for key in ("machine", "versions")}
    for row in rows[1:]:
        del row["machine"], row["versions"]
    write_text(OUTPUT, dump_json({**document, **shared, "rows": rows}))
    print(f"wrote {OUTPUT}")


if __name__ == "__main__":
    main(sys.argv[1:])
