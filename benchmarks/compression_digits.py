"""Half the multiply-adds of networks that read digits, without training: what accuracy is left, and how fast.

ViT loses heads and neurons, the convolutional networks lose channels; each with and without repair, and
beside controls. Accuracy is of 600 images that nothing was fitted to. The default of each is then exported
in int8, beside the whole model in int8; both speeds are over the float32 model as it was.

Run from the checkout, on a machine that is otherwise idle:

    OMP_NUM_THREADS=1 python -m benchmarks.compression_digits [MODEL ...]

Trained models stay in build/digits, and are not trained again. Writes
benchmarks/results/compression_digits.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit import Recipe, export
from edgekit.compress.base import Data, parameters_of
from edgekit.compress.channels import prune_channels
from edgekit.compress.judge import Judge, outputs
from edgekit.compress.width import prune_width
from edgekit.compression import ChannelOptions, CompressOptions, WidthOptions
from edgekit.data import Sample, read_samples, split
from edgekit.errors import RecipeError
from edgekit.model import ModelRef, TorchModel
from edgekit.recipe import DataOptions, LatencyOptions, QuantizeOptions, ValidationOptions
from edgekit.source import load
from edgekit.store import dump_json, write_text

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "03_image_classification"
FOLDER = ROOT / "build" / "digits"
OUTPUT = Path(__file__).parent / "results" / "compression_digits.json"
TARGET = "cpu-x86"
SHARE = 0.5
HELD_OUT, RUNS = 600, 200


@dataclass(frozen=True)
class Model:
    """One trained network.

    Attributes:
        name: As people call it.
        key: Short name for the command line.
        spec: What edgekit loads, from `build/digits`.
        task: Its task; None where its directory says so.
        data: Ending of the files of samples.
        training: Script of the example, and its arguments.
        trained: The file that is there when it is trained.
        technique: `width` or `channels`.
        multiple: Of the widths that stay.
        tried: (importance, repair), the default first.
        samples: Images to fit and to choose by; of large ones fewer tell as much, and take as long.
    """

    name: str
    key: str
    spec: str
    task: str | None
    data: str
    training: tuple[str, ...]
    trained: str
    technique: str
    multiple: int
    tried: tuple[tuple[str, bool], ...]
    samples: tuple[int, int] = (256, 96)


CHANNELS = (
    ("fisher", True), ("fisher", False), ("activation", True), ("activation", False),
    ("magnitude", True), ("magnitude", False), ("random", True), ("random", False),
)  # fmt: skip
MODELS = (
    Model(
        "ViT", "vit", "build/digits-vit", None, "", ("vit.py",), "build/digits-vit/preprocessor_config.json",
        "width", 8, (("surgeon", True), ("surgeon", False), *CHANNELS),
    ),
    Model(
        "CNN", "cnn", "cnn:trained", "image-classification", ".npz", ("cnn.py",), "build/cnn.pt",
        "channels", 8, CHANNELS,
    ),
    Model(
        "MobileNetV2 x0.35, 96 pixels", "mobilenet", "build/mobilenet-96", None, "",
        ("mobilenet.py", "--to", "build/mobilenet-96"), "build/mobilenet-96/preprocessor_config.json",
        "channels", 8, (CHANNELS[0], CHANNELS[1], CHANNELS[6], CHANNELS[7]), (96, 48),
    ),
)  # fmt: skip


def options_of(model: Model, importance: str, repair: bool) -> WidthOptions | ChannelOptions:
    """Return the request for half the multiply-adds."""
    table: dict[str, Any] = {"multiply_adds": SHARE, "importance": importance, "repair": repair}
    table["multiple"] = model.multiple
    return WidthOptions(**table) if model.technique == "width" else ChannelOptions(**table)


def in_torch(model: Model) -> list[dict[str, Any]]:
    """Return the accuracy after each way to halve a network, the whole one first."""
    prune: Callable[..., TorchModel] = prune_width if model.technique == "width" else prune_channels
    original = load(ModelRef(model.spec), model.task, scratch=FOLDER / "scratch")
    fitted, judged = model.samples
    samples = split(DataOptions(data=f"build/train{model.data}", samples=fitted), held_out=judged, seed=0)
    test = list(read_samples(DataOptions(data=f"build/test{model.data}")))
    data = Data(samples.calibration, Judge.of(original, samples.held_out), FOLDER / "scratch")
    whole = accuracy(original, test)
    rows: list[dict[str, Any]] = [{"accuracy": whole, "parameters": parameters_of(original.module)}]
    for importance, repair in model.tried:
        row: dict[str, Any] = {"importance": importance, "repair": repair}
        try:
            smaller = prune(original, options_of(model, importance, repair), data)
        except RecipeError as error:
            rows.append({**row, "refused": error.message})
            continue
        facts, found = smaller.history[-1].facts, accuracy(smaller, test)
        rows.append(
            {
                **row,
                "accuracy": found,
                "points_lost": round(100 * (whole - found), 2),
                "parameters": parameters_of(smaller.module),
                "multiply_adds": facts["multiply_adds_after"] / facts["multiply_adds_before"],
                "seconds": round(smaller.history[-1].seconds, 1),
            }
        )
        print(model.name, rows[-1], flush=True)
    return rows


def accuracy(model: TorchModel, test: Sequence[Sample]) -> float:
    """Return the share of the samples whose digit is found."""
    found = np.concatenate(outputs(model, test, 50)).argmax(axis=1)
    return float(np.mean(found == [int(sample.label) for sample in test]))


def in_int8(model: Model, options: WidthOptions | ChannelOptions | None) -> dict[str, Any]:
    """Export, with a technique or without, and return what report.json says."""
    compress = CompressOptions(samples=sum(model.samples), **({model.technique: options} if options else {}))
    recipe = Recipe(
        model=model.spec,
        task=model.task,
        targets=(TARGET,),
        compress=compress,
        calibration=DataOptions(data=f"build/train{model.data}"),
        validation=ValidationOptions(data=f"build/test{model.data}", samples=HELD_OUT),
        latency=LatencyOptions(runs=RUNS),
        quantize=QuantizeOptions(),
        # half a network may differ from the whole one by more than int8 does; what counts here is accuracy
        gates={"top1_agreement": 0.95, "kl_mean": 0.1, "accuracy_drop": 2.0},
    )
    result = export(recipe, FOLDER / f"compressed-{model.key}{'-half' if options else ''}", force=True)
    return told_by(result.output / "report.json")


def told_by(path: Path) -> dict[str, Any]:
    """Return what of a report is kept: quality, size, speed, and where the time goes."""
    (report,) = json.loads(path.read_text(encoding="utf-8"))["targets"]
    verdict = report["verdict"]
    return {
        "machine": report["machine"],
        "versions": report["versions"],
        "checks": {check["name"]: check["measured"] for check in verdict["checks"]},
        "file_bytes": verdict["quantized_size"]["file_bytes"],
        "original_float_bytes": verdict["float_size"]["file_bytes"],
        "latency": verdict["latency"],
        "latency_note": verdict["latency_note"],
        "kernels": [
            {
                "shape": point["shape"],
                "multiply_adds": point["macs"],
                "all_ms": point["kernels_ms"],
                "products_ms": sum(kind["ms"] for kind in point["op_kinds"] if "product" in kind["role"]),
            }
            for point in report["explanation"]["points"]
        ],
    }


def measure(model: Model) -> dict[str, Any]:
    """Train a network where that is not done yet, and return all that is measured on it."""
    if not (FOLDER / model.trained).exists():
        script, *arguments = model.training
        subprocess.run([sys.executable, str(EXAMPLE / script), *arguments], cwd=FOLDER, check=True)
    importance, repair = model.tried[0]
    rows = in_torch(model)
    busy = os.getloadavg()[0]
    int8 = {
        "whole": in_int8(model, None),
        "half": in_int8(model, options_of(model, importance, repair)),
    }
    for name, row in int8.items():
        print(model.name, "int8", name, row["checks"], flush=True)
    return {
        "name": model.name,
        "technique": model.technique,
        "load_before": round(busy, 2),
        "torch": rows,
        "int8": int8,
    }


def main(keys: Sequence[str]) -> None:
    """Measure all networks, or those named, and keep the results."""
    torch.set_num_threads(1)
    (FOLDER / "scratch").mkdir(parents=True, exist_ok=True)
    os.chdir(FOLDER)  # the example's factory reads its weights from build/
    sys.path.insert(0, str(EXAMPLE))
    kept = json.loads(OUTPUT.read_text(encoding="utf-8")) if keys and OUTPUT.exists() else {"rows": []}
    rows = {row["name"]: row for row in kept["rows"]}
    for model in (m for m in MODELS if not keys or m.key in keys):
        rows[model.name] = measure(model)
        document = {
            "command": "OMP_NUM_THREADS=1 python -m benchmarks.compression_digits",
            "multiply_adds": SHARE,
            "held_out": HELD_OUT,
            "timed_runs": RUNS,
            "rows": [rows[m.name] for m in MODELS if m.name in rows],
        }
        write_text(OUTPUT, dump_json(document))
    print(f"wrote {OUTPUT}")


if __name__ == "__main__":
    main(sys.argv[1:])
