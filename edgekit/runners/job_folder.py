"""A job as a folder of plain files, for a program that has no edgekit: C, JavaScript, another Python.

`job.txt` has one `key value` per line (see `write_job`); inputs and outputs are tensor files, whose format
`child` describes; `result.json` is written last, so its absence means that the run did not end well.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import RunnerFailedError
from edgekit.runners.base import Counts, Job, Result, Times
from edgekit.runners.child import read_tensors, write_tensors


def write_job(job: Job, folder: Path) -> None:
    """Fill an empty folder with a job.

    The lines of `job.txt`: `model FILE`, `float FILE` (only with a float model), `threads N`, `repeats N`,
    `warm_up N`, `runs N`, `seconds_per_point S`, `option KEY VALUE` (any number), `output NAME` (each),
    `batch FILE` (each), `point SHAPE FILE` (each). Files are relative to the folder; the models are hard
    links where possible.

    Args:
        job: What to run.
        folder: Exists and is empty.
    """
    lines = [f"model {_bring(job.model, folder / 'model.onnx')}"]
    measure = job.measure
    if measure is not None and measure.float_model is not None:
        lines.append(f"float {_bring(measure.float_model, folder / 'float.onnx')}")
    lines += [f"threads {job.threads}", f"repeats {job.repeats}"]
    lines += [f"warm_up {measure.warm_up if measure else 0}", f"runs {measure.runs if measure else 0}"]
    lines += [f"seconds_per_point {measure.seconds_per_point if measure else 0:g}"]
    lines += [f"option {key} {value}" for key, value in job.session_options.items()]
    lines += [f"output {name}" for name in job.outputs]
    for kind in ("in", "points"):
        (folder / kind).mkdir()
    for index, batch in enumerate(job.batches):
        write_tensors(folder / "in" / f"{index:04d}.ekt", dict(batch))
        lines.append(f"batch in/{index:04d}.ekt")
    for index, (point, inputs) in enumerate(measure.points.items() if measure else ()):
        write_tensors(folder / "points" / f"{index:04d}.ekt", dict(inputs))
        lines.append(f"point {point} points/{index:04d}.ekt")
    (folder / "job.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_result(job: Job, folder: Path, runner: str) -> Result:
    """Return what a program wrote into a job folder.

    Args:
        job: The job that was written there.
        folder: The folder.
        runner: Name of the runner, for messages.

    Raises:
        RunnerFailedError: The result is missing or incomplete.
    """
    try:
        told: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        outputs = tuple(_outputs(job, folder, index) for index in range(len(job.batches)))
        return Result(
            outputs=outputs,
            deterministic=told["deterministic"],
            runtime_version=told["runtime_version"],
            cpu=told.get("cpu", ""),
            cpu_features=tuple(told.get("cpu_features", ())),
            load_ms=told.get("load_ms"),
            peak_memory_bytes=told.get("peak_memory_bytes"),
            times=tuple(
                Times(entry["point"], tuple(entry["float_ms"]), tuple(entry["shipped_ms"]))
                for entry in told.get("times", ())
            ),
            counts=tuple(
                Counts(entry["point"], entry["float"], entry["shipped"]) for entry in told.get("counts", ())
            ),
            facts=told.get("facts", {}),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunnerFailedError(runner, "failed", f"its result cannot be read: {error}") from None


def _outputs(job: Job, folder: Path, index: int) -> dict[str, np.ndarray]:
    found = read_tensors(folder / "out" / f"{index:04d}.ekt")
    missing = [name for name in job.outputs if name not in found]
    if missing:
        raise ValueError(f"the output '{missing[0]}' is missing")
    return {name: found[name] for name in job.outputs}


def _bring(model: Path, target: Path) -> str:
    """Put a model, with its external data, into the folder; return its name there.

    External data keeps its name, since the model says it.
    """
    for source, place in ((model, target), (data := _data_of(model), target.with_name(data.name))):
        if source.is_file():
            try:
                os.link(source.resolve(), place)
            except OSError:  # another file system, or one without hard links
                shutil.copyfile(source, place)
    return target.name


def _data_of(model: Path) -> Path:
    return model.with_name(model.name + ".data")
