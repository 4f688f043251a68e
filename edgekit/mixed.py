"""Static int8 within an accuracy budget: when all layers together lose too much, the worst stay float.

What each layer loses is measured, not guessed: it alone is quantized and the model's outputs are compared.
Layers go back to float in the order of accuracy gained per multiply-add that becomes slow again, as few as
the budget allows.

Multiply-adds stand for milliseconds, so that the same recipe makes the same file on a busy machine and on
another one. They are counted over the calibration data, and they stand well: against the time that
`edgekit explain` predicts each layer to lose in float, their correlation is 0.99 on all-MiniLM-L6-v2 at 1x128
(0.92 at 1x16, where fixed costs weigh more), and 0.91 to 0.96 on a small convolutional net.

A layer goes straight to float and not to dynamic int8 first: with one layer alone in int8, dynamic int8 loses
2.3 to 8 times the energy that static int8 loses (the first layers of all-MiniLM-L6-v2), since it has neither
smoothing nor rounding that makes up for errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit import graph as g
from edgekit.golden import Golden, GoldenBatch
from edgekit.model import OnnxModel
from edgekit.profile import TargetProfile
from edgekit.quantize import Calibration, quantize
from edgekit.quantize.plan import Plan, make_plan, rectified
from edgekit.recipe import QuantizeOptions
from edgekit.record import Check, Clock, Progress, silent
from edgekit.runtime import open_session, usable_cores
from edgekit.tasks import task_named
from edgekit.tasks.base import Inputs
from edgekit.validate.parity import run_golden

if TYPE_CHECKING:
    import onnx_ir as ir

TUNING_SAMPLES = 64
"""Calibration samples that forms are tried on: enough to rank them, few enough to run dozens of times."""

# Trials of how many layers go back; beyond half of them "int8" would be a name only.
_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)


@dataclass(frozen=True)
class LayerLoss:
    """What one layer's quantization costs.

    Attributes:
        nodes: Its nodes: the products of one activation, or one convolution.
        output_error: Energy of the model outputs' error over their energy, this layer alone quantized.
        multiply_adds: Per calibration sample, what becomes float again if it is reverted.
    """

    nodes: tuple[str, ...]
    output_error: float
    multiply_adds: int

    @property
    def gain(self) -> float:
        """Error that goes per multiply-add that becomes slow."""
        return self.output_error / self.multiply_adds


def record_tuning_golden(
    model: OnnxModel, task: str, batches: Sequence[tuple[Inputs, np.ndarray | None]]
) -> Golden:
    """Return calibration inputs with the float graph's outputs: what trials are compared with.

    The held-out golden is left alone: choosing layers by it would be marking one's own work.

    Args:
        model: The float graph.
        task: Name of the task.
        batches: (inputs, labels) of calibration samples.
    """
    session = open_session(model.only.path, threads=usable_cores())
    names = [value.name for value in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}
    recorded = []
    for inputs, labels in batches:
        found = session.run(names, {k: v for k, v in inputs.items() if k in wanted})
        recorded.append(GoldenBatch(inputs, dict(zip(names, found, strict=True)), labels))
    return Golden(task, tuple(recorded))


def quantize_within(
    model: OnnxModel,
    calibration: Calibration,
    profile: TargetProfile,
    options: QuantizeOptions,
    path: Path,
    *,
    tuning: Golden,
    gates: Mapping[str, float],
    progress: Progress = silent,
) -> tuple[OnnxModel, OnnxModel | None]:
    """Quantize; where the gates fail on the tuning golden, leave as few layers in float as make them hold.

    Args:
        model: The float graph.
        calibration: Its statistics.
        profile: The target.
        options: Choices of the request.
        path: The file to write; the one with layers in float goes beside it.
        tuning: What `record_tuning_golden` recorded.
        gates: Thresholds by check name that come before the profile's and the task's.
        progress: Told when layers are tried.

    Returns:
        The model with every layer quantized, and the one with layers in float; None where it is not needed,
        or no count of layers helps: then the gates on held-out data say what fails.
    """
    overrides = {**profile.policy.gates, **gates}
    full = quantize(model, calibration, profile, options, path)
    failed = _failed(path, tuning, overrides)
    if not failed:
        return full, None
    clock = Clock()
    progress("quantize", f"{profile.name}: {failed[0].name} missed, measuring every layer", None)
    losses = layer_losses(model, calibration, profile, options, path.with_suffix(".trial.onnx"), tuning)
    worst_first = sorted(losses, key=lambda loss: loss.gain, reverse=True)
    tried = []
    for count in (c for c in _COUNTS if c <= len(losses) // 2):
        reverted = [name for loss in worst_first[:count] for name in loss.nodes]
        narrower = options.model_copy(update={"exclude": (*options.exclude, *map(escape, reverted))})
        mixed = quantize(model, calibration, profile, narrower, path.with_suffix(".mixed.onnx"))
        failed = _failed(mixed.only.path, tuning, overrides)
        tried.append({"reverted": count, "failed": [check.name for check in failed]})
        if not failed:
            record = clock.record(
                "quantize",
                "mixed",
                f"left {count} of {len(losses)} layers in float, so that the gates hold",
                reverted=reverted,
                losses=[_fact(loss) for loss in worst_first],
            )
            return full, mixed.with_step(record)
    did = f"no count of up to {len(losses) // 2} layers in float makes the gates hold; all stay quantized"
    losses_fact = [_fact(loss) for loss in worst_first]
    return full.with_step(clock.record("quantize", "mixed", did, tried=tried, losses=losses_fact)), None


def layer_losses(
    model: OnnxModel,
    calibration: Calibration,
    profile: TargetProfile,
    options: QuantizeOptions,
    path: Path,
    tuning: Golden,
) -> tuple[LayerLoss, ...]:
    """Measure each layer alone: quantize it, leave the rest, compare the outputs.

    Args:
        model: The float graph.
        calibration: Its statistics.
        profile: The target.
        options: Choices of the request.
        path: Scratch file.
        tuning: Inputs with the float graph's outputs.
    """
    rules = profile.quantization
    plan = make_plan(
        g.load(model.only.path),
        matmul_ops=rules.matmul_ops,
        conv_ops=rules.conv_ops,
        embeddings=False,
        exclude=options.exclude,
    )
    layers = _layers(plan, calibration)
    every = [name for names, _ in layers for name in names]
    alone = _with_float_embeddings(profile)
    losses = []
    for names, multiply_adds in layers:
        others = tuple(escape(name) for name in every if name not in names)
        narrowed = options.model_copy(update={"exclude": (*options.exclude, *others)})
        quantize(model, calibration, alone, narrowed, path)
        losses.append(LayerLoss(names, output_error(path, tuning), multiply_adds))
    path.unlink(missing_ok=True)
    return tuple(losses)


def _with_float_embeddings(profile: TargetProfile) -> TargetProfile:
    """Return the profile with embeddings in float, so that a layer's loss is its own."""
    rules = profile.quantization.model_copy(update={"embeddings": "float"})
    return profile.model_copy(update={"quantization": rules})


def output_error(path: Path, tuning: Golden) -> float:
    """Return the energy of a graph's output errors over the outputs' energy, all outputs together."""
    found = run_golden(open_session(path, threads=usable_cores()), tuning, path)
    error = energy = 0.0
    for batch, outputs in zip(tuning.batches, found, strict=True):
        for name, expected in batch.outputs.items():
            error += float(np.sum((outputs[name].astype(np.float64) - expected) ** 2))
            energy += float(np.sum(expected.astype(np.float64) ** 2))
    return error / energy if energy else 0.0


def _layers(plan: Plan, calibration: Calibration) -> list[tuple[tuple[str, ...], int]]:
    """Return each layer's nodes with the multiply-adds that they took per calibration sample."""
    groups = [group.nodes for group in plan.linear] + [(node,) for node in (*plan.convs, *plan.on_codes)]
    return [
        (tuple(node.name or "" for node in nodes), sum(_multiply_adds(node, calibration) for node in nodes))
        for nodes in groups
    ]


def _multiply_adds(node: ir.Node, calibration: Calibration) -> int:
    """Return every weight's uses: once per vector that a product reads, per position that a Conv makes."""
    weight = g.constant(node.inputs[1])
    value = rectified(node.outputs[0]) if node.op_type == "Conv" else node.inputs[0]
    stats = calibration.tensors.get(value.name or "") if value is not None else None
    vectors = stats.count / max(calibration.samples, 1) if stats else 1.0
    return round(weight.size * max(vectors, 1.0)) if weight is not None else 1


def _failed(path: Path, tuning: Golden, overrides: Mapping[str, float]) -> list[Check]:
    session = open_session(path, threads=usable_cores())
    checks = task_named(tuning.task).compare(tuning, run_golden(session, tuning, path)).checks
    budgeted = (check.with_budget(overrides) for check in checks)
    return [check for check in budgeted if not check.passed]


def _fact(loss: LayerLoss) -> dict[str, object]:
    return {
        "nodes": list(loss.nodes),
        "output_error": float(f"{loss.output_error:.3e}"),
        "multiply_adds": loss.multiply_adds,
    }
