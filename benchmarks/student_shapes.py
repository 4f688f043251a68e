"""What changes of shape are worth in int8: students of all-MiniLM-L6-v2, each different in one thing.

The students are the first two and three of its layers with their own weights, untrained: a speed does not
depend on what the weights are, and the cosine to the unchanged student says what training has to win back.
Every one is exported, calibrated and quantized for `cpu-x86` alike. Times are CPU times of one thread, all
students in turns, so the machine may be busy.

Run from the checkout: OMP_NUM_THREADS=1 python -m benchmarks.student_shapes
With --instructions it counts what ReLU takes away on an emulated ARM core instead, where nothing is timed.
Writes benchmarks/results/student_shapes.json; `make docs` then shows it in docs/distillation.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.texts import benchmark_texts
from edgekit import graph as g
from edgekit.compress.base import Data, parameters_of
from edgekit.compress.embeddings import factorize_embeddings
from edgekit.compress.judge import Judge, outputs
from edgekit.compress.layers import drop_layers
from edgekit.compression import EmbeddingOptions, LayerOptions
from edgekit.data import Sample
from edgekit.distill.student import changed
from edgekit.distillation import ChangeOptions
from edgekit.golden import Golden, GoldenBatch
from edgekit.machine import read_machine, versions
from edgekit.model import ModelRef, TorchModel
from edgekit.optimize import optimize
from edgekit.profile import load_profile
from edgekit.quantize import calibrate, quantize
from edgekit.quantize.insert import part
from edgekit.recipe import QuantizeOptions
from edgekit.runners.base import Job, Measure
from edgekit.runners.table import runner_named
from edgekit.runtime import open_session
from edgekit.source import load
from edgekit.store import dump_json, write_text
from edgekit.tasks.batches import SingleBatches
from edgekit.to_onnx import export_model
from edgekit.tuning import Ratio, thread_times
from tools.demo import checked_model

OUTPUT = Path(__file__).parent / "results" / "student_shapes.json"
COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.student_shapes"
TARGET = "cpu-x86"
ARM_TARGET, ARM_CORE, ARM_SHAPE = "arm64", "arm64-cortex-a76", (1, 64)
TEACHER = "all-MiniLM-L6-v2"
CALIBRATION_TEXTS, FITTED_TEXTS, JUDGED_TEXTS = 8, 64, 64
MAX_TOKENS = 128
RUNS = 80
OUTPUTS = ("sentence_embedding",)
RANK = 128

UNCHANGED = "as the teacher's"
FLOAT_BETWEEN = "ReLU between float values"
RELU, ALL = "ReLU", "ReLU, one norm a layer, 6 heads"
EMBEDDINGS = f"token embeddings of rank {RANK}"
SHAPES: Mapping[str, ChangeOptions | EmbeddingOptions] = {
    UNCHANGED: ChangeOptions(),
    RELU: ChangeOptions(activation="relu"),
    "one norm a layer": ChangeOptions(norms="one-per-layer"),
    "6 heads instead of 12": ChangeOptions(heads=6),
    "3 heads instead of 12": ChangeOptions(heads=3),
    ALL: ChangeOptions(activation="relu", norms="one-per-layer", heads=6),
    EMBEDDINGS: EmbeddingOptions(rank=RANK),
}
"""Row -> what is changed of the student."""

MEASURED: Mapping[int, Sequence[str]] = {3: tuple(SHAPES), 2: (UNCHANGED, RELU, ALL)}
"""Layers of the student -> its rows."""

COUNTED = ("QGemm", "Gelu", "Relu", "LayerNormalization", "QuantizeLinear", "Mul", "Softmax")
"""Ops of the graph that runs whose number tells what a change took away."""


def shaped(name: str, student: TorchModel, data: Data, folder: Path) -> TorchModel:
    """Return the student in one shape; `folder` has to outlive it."""
    options = SHAPES[name]
    if isinstance(options, EmbeddingOptions):
        return factorize_embeddings(student, options, data)
    return changed(student, options, folder, data.fit)


def in_int8(model: TorchModel, calibration: Sequence[Sample], folder: Path, target: str = TARGET) -> Path:
    """Export a model and quantize it for a target; return the file."""
    profile = load_profile(target)
    exported = export_model(
        model, folder / "export", opset=profile.onnx.opset, ir_version=profile.onnx.ir_version
    )
    ready = optimize(exported, folder / "float.onnx", profile.optimize.rewrites)
    statistics = calibrate(ready, SingleBatches(model.preprocessor, calibration))
    options = QuantizeOptions(rounding="nearest")  # as fast as any other, and made sooner
    return quantize(ready, statistics, profile, options, folder / "int8.onnx").only.path


def with_float_between(path: Path, parted: Path) -> Path:
    """Write a quantized graph whose products before a Relu give float; return its file.

    The runtime drops those Relus too: the QuantizeLinear that follows cuts at 0.
    """
    loaded = g.load(path)
    for relu in list(g.nodes(loaded.graph, "Relu")):
        product = relu.inputs[0].producer() if relu.inputs[0] is not None else None
        assert product is not None
        part(loaded.graph, product)
    g.save(loaded, parted)
    return parted


def ops_that_run(path: Path) -> dict[str, int]:
    """Return how many of some ops the runtime runs, after its own optimization."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "run.onnx"
        open_session(path, optimized_path=optimized)
        counts = Counter(node.op_type for node in g.load(optimized).graph)
    return {op: counts[op] for op in COUNTED}


def closeness(mine: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """Return the mean cosine of embeddings that have length 1."""
    return float(np.mean([np.sum(a * b, axis=-1).mean() for a, b in zip(mine, theirs, strict=True)]))


def measure(folder: Path) -> dict[str, Any]:
    """Make every student in `folder`, time all of one depth in turns, and return what is measured."""
    teacher, data, judged = _prepared(folder)
    calibration = data.fit[:CALIBRATION_TEXTS]
    timing, rows = load_profile(TARGET).runtime, []
    for layers, names in MEASURED.items():
        whole = _cut(teacher, layers, data)
        wanted = outputs(whole, judged)
        students, files = {}, {}
        for number, name in enumerate(names):
            here = folder / f"{layers}-{number}"
            (here / "export").mkdir(parents=True)
            students[name] = shaped(name, whole, data, here)
            files[name] = in_int8(students[name], calibration, here)
            if name == RELU:
                students[FLOAT_BETWEEN] = students[name]
                files[FLOAT_BETWEEN] = with_float_between(files[name], here / "parted.onnx")
            print(f"{layers} layers, {name}", flush=True)
        inputs = next(iter(SingleBatches(teacher.preprocessor, judged)))
        golden = Golden(teacher.task, (GoldenBatch(inputs, {"output": wanted[0]}),))
        times = thread_times(
            files, golden, timing.points, timing.session_options, runs=RUNS, max_length=MAX_TOKENS
        )
        rows += [
            {
                "layers": layers,
                "student": name,
                "parameters": parameters_of(student.module),
                "file_bytes": files[name].stat().st_size,
                "cosine_untrained": closeness(outputs(student, judged), wanted),
                "ops_that_run": ops_that_run(files[name]),
                "speed": [_speed(shape, found, name) for shape, found in times.items()],
            }
            for name, student in students.items()
        ]
    return {
        "command": COMMAND,
        "machine": read_machine().to_json(),
        "versions": versions(),
        "target": TARGET,
        "teacher": TEACHER,
        "threads": 1,
        "runs": RUNS,
        "rows": rows,
    }


def count_instructions(folder: Path) -> dict[str, Any]:
    """Return the instructions of one inference on an emulated core, with GELU and with ReLU."""
    teacher, data, judged = _prepared(folder)
    runner, counts = runner_named(ARM_CORE), {}
    whole = _cut(teacher, max(MEASURED), data)
    batch, length = ARM_SHAPE
    inputs = {
        name: np.resize(value, ARM_SHAPE)
        for name, value in next(iter(SingleBatches(teacher.preprocessor, judged))).items()
    }
    for name in (UNCHANGED, RELU):
        here = folder / name.replace(" ", "-")
        (here / "export").mkdir(parents=True)
        made = in_int8(shaped(name, whole, data, here), data.fit[:CALIBRATION_TEXTS], here, ARM_TARGET)
        files = {name: made}
        if name == RELU:
            files[FLOAT_BETWEEN] = with_float_between(made, here / "parted.onnx")
        for form, path in files.items():
            measure = Measure(None, {f"{batch}x{length}": inputs}, runs=1)
            found = runner.run(Job(path, (inputs,), OUTPUTS, measure=measure))
            counts[form] = dict(found.counts[0].shipped_counts)
            print(f"{form}: {counts[form]}", flush=True)
    return {
        "command": f"{COMMAND} --instructions",
        "core": ARM_CORE,
        "target": ARM_TARGET,
        "layers": max(MEASURED),
        "shape": f"{batch}x{length}",
        "instructions": counts,
    }


def _prepared(folder: Path) -> tuple[TorchModel, Data, list[Sample]]:
    """Return the teacher, what shapes are fitted on, and texts to compare embeddings on."""
    texts = [Sample(text) for text in benchmark_texts().calibration]
    judged = texts[FITTED_TEXTS : FITTED_TEXTS + JUDGED_TEXTS]
    teacher = load(ModelRef(str(checked_model()), max_length=MAX_TOKENS), None, scratch=folder)
    return teacher, Data(tuple(texts[:FITTED_TEXTS]), Judge.of(teacher, judged), folder), judged


def _cut(teacher: TorchModel, layers: int, data: Data) -> TorchModel:
    return drop_layers(teacher, LayerOptions(keep=layers, choose="first", repair=False), data)


def _speed(shape: str, times: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
    """Return a student's time, and the unchanged one's over it with its interval."""
    ratio = Ratio.of(times[UNCHANGED], times[name])
    return {
        "shape": shape,
        "p50_ms": float(np.median(times[name])),
        "speedup": ratio.gain,
        "interval": [ratio.low, ratio.high],
    }


def main() -> None:
    """Measure in a folder that is thrown away, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instructions", action="store_true", help="count those of ReLU on an ARM core")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    before = json.loads(OUTPUT.read_text(encoding="utf-8")) if OUTPUT.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        new = {"arm": count_instructions(Path(name))} if chosen.instructions else measure(Path(name))
    results = {**before, **new}
    write_text(OUTPUT, dump_json(results))
    for row in () if chosen.instructions else results["rows"]:
        print(json.dumps(row))
    print(f"wrote {OUTPUT}")


if __name__ == "__main__":
    main()
