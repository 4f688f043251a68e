"""Run a graph on the golden's inputs and compare, by the task's own measure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import GateError, ModelError
from edgekit.golden import Golden
from edgekit.model import OnnxModel
from edgekit.record import Check, Clock, StepRecord
from edgekit.runtime import open_session, usable_cores
from edgekit.tasks import task_named
from edgekit.tasks.base import Comparison
from edgekit.tasks.parity import float_checks

Outputs = dict[str, np.ndarray]


def run_golden(session: Any, golden: Golden, model: Path) -> tuple[Outputs, ...]:
    """Return the session's outputs on each batch of the golden.

    Args:
        session: An open `onnxruntime.InferenceSession`.
        golden: Recorded inputs.
        model: The file, for messages.

    Raises:
        ModelError: The graph's inputs are not the golden's, or the runtime fails on them.
    """
    wanted = {value.name for value in session.get_inputs()}
    recorded = set(golden.batches[0].inputs)
    if not wanted <= recorded:
        raise ModelError(
            f"{model} wants the input '{min(wanted - recorded)}', which the golden does not have"
        )
    missing = set(golden.output_names) - {value.name for value in session.get_outputs()}
    if missing:
        raise ModelError(f"{model} has no output '{min(missing)}', which the golden recorded")
    names = list(golden.output_names)
    results = []
    for batch in golden.batches:
        feed = {name: value for name, value in batch.inputs.items() if name in wanted}
        try:
            found = session.run(names, feed)
        except Exception as error:  # the runtime raises a family of its own, all derived from Exception
            shapes = {name: value.shape for name, value in feed.items()}
            raise ModelError(f"{model} fails on inputs of shape {shapes}: {error}") from None
        results.append(dict(zip(names, found, strict=True)))
    return tuple(results)


def check_float(model: OnnxModel, golden: Golden) -> tuple[tuple[Check, ...], StepRecord]:
    """Check the exported float graph against PyTorch, at both optimization levels of the runtime.

    Raises:
        GateError: The graph differs from PyTorch; the worst check is named.
    """
    clock = Clock()
    checks: list[Check] = []
    for optimize, level in ((False, "disabled"), (True, "all")):
        session = open_session(model.only.path, optimize=optimize, threads=usable_cores())
        checks += float_checks(golden, run_golden(session, golden, model.only.path), level)
    failed = [check for check in checks if not check.passed]
    if failed:
        worst = failed[0]
        raise GateError(
            f"the exported graph does not match PyTorch: {worst.title} is {worst.measured:.3g},"
            f" allowed {worst.comparison} {worst.budget:g}",
            "The export itself is wrong, so nothing was quantized. Please report the model.",
        )
    record = clock.record(
        "export",
        "float-parity",
        f"the float graph matches PyTorch on {golden.samples} samples at both optimization levels",
        checks=len(checks),
        shapes=[list(shape) for shape in golden.shapes()],
    )
    return tuple(checks), record


def compare_quantized(
    model: Path, golden: Golden, *, threads: int, session_options: Mapping[str, str]
) -> Comparison:
    """Compare a shipped graph with the golden by its task's measure."""
    session = open_session(model, threads=threads, session_options=session_options)
    return task_named(golden.task).compare(golden, run_golden(session, golden, model))
