"""What benchmarks of students share: one training by a recipe, and how figures differ over seeds."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.data import Sample
from edgekit.distill.cache import teacher_cache
from edgekit.distill.objective import Objective, wanted_outputs
from edgekit.distill.training import TrainingPlan, train
from edgekit.distill.weights import weights_of
from edgekit.distillation import LossOptions
from edgekit.machine import read_machine, versions
from edgekit.model import TorchModel
from edgekit.store import dump_json, write_text

PLAN: dict[str, Any] = {
    "accumulate": 1,
    "warm_up": 0.05,
    "decay": "linear",
    "weight_decay": 0.01,
    "beta2": 0.999,
    "ema": 0.0,
    "clip_norm": 1.0,
    "precision": "fp32",
    "evaluate_every": 0,
    "patience": 0,
    "best_from": 0,
    "checkpoint_every": 0,
}
"""What `edgekit distill` does where nothing is said, but for evaluations."""


def last_student(
    student: TorchModel,
    teacher: TorchModel,
    samples: Sequence[Sample],
    losses: Mapping[str, Any],
    schedule: Mapping[str, Any],
    cache: Path,
) -> TorchModel:
    """Return a student after its last step, whatever came of it.

    `edgekit distill` keeps the weights that are closest to the teacher, which is no fair choice for a control
    that never sees the teacher.

    Args:
        student: Left as it is.
        teacher: As it was loaded.
        samples: What the student learns from; their labels count where all have one.
        losses: `[distill.losses]`; none of them is on the layers.
        schedule: What differs from a training in fp32 without accumulation and average, by `TrainingPlan`.
        cache: Folder for the teacher's outputs, for all students.
    """
    options = LossOptions(**losses)
    labelled = all(sample.label is not None for sample in samples)
    weights = weights_of(teacher.task, options, labelled=labelled, layered=False)
    targets = teacher_cache(teacher, samples, wanted_outputs(teacher.task, options), cache)
    plan = TrainingPlan(**{**PLAN, **schedule})
    evaluations = itertools.count()
    with tempfile.TemporaryDirectory() as folder:
        trained = train(
            student,
            samples,
            Objective(teacher, targets, student, weights, options, None, plan.seed),
            plan,
            evaluate=lambda _: {"evaluations": next(evaluations)},
            watch="evaluations",
            folder=Path(folder),
            identity={},
        )
    return trained.student


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return the mean of what the seeds gave, the lowest and the highest."""
    found = np.array(list(values), np.float64)
    return {"mean": float(found.mean()), "low": float(found.min()), "high": float(found.max())}


def over_seeds(runs: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return runs by seed with the spread of each of their figures."""
    names = next(iter(runs.values()))
    return {"runs": dict(runs), **{name: spread(run[name] for run in runs.values()) for name in names}}


def kept_rows(output: Path, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows that an earlier run of the same sizes left, so that one may measure them one by one."""
    if not output.exists():
        return {}
    document = json.loads(output.read_text(encoding="utf-8"))
    return dict(document["rows"]) if document["sizes"] == json.loads(json.dumps(sizes)) else {}


def write_results(output: Path, command: str, sizes: Mapping[str, Any], **facts: Any) -> None:
    """Write what was measured, with the command, the sizes, the machine and the versions."""
    document = {
        "command": command,
        "sizes": dict(sizes),
        "machine": read_machine().to_json(),
        "versions": versions(),
        **facts,
    }
    write_text(output, dump_json(document))
