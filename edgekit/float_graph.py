"""What happens once per float graph: export, proof against PyTorch, rewrites, calibration.

Targets of one opset and IR version start from the same float graph. All of them are exported before the first
is worked on: nothing after that needs PyTorch, and the caller can let go of the module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit.golden import Golden
from edgekit.mixed import TUNING_SAMPLES, record_tuning_golden
from edgekit.model import ModelFacts, OnnxModel, TorchModel
from edgekit.optimize import optimize
from edgekit.preflight import UserData, calibrates
from edgekit.profile import StaticShape, TargetProfile
from edgekit.quantize import Calibration
from edgekit.quantize.audit import CalibrationAudit, audit_calibration
from edgekit.quantize.run import CalibrationRun, run_calibration
from edgekit.recipe import Recipe
from edgekit.record import Progress, silent
from edgekit.reference import Reference
from edgekit.runtime import let_go
from edgekit.store import sha256_file
from edgekit.tasks import request_gates
from edgekit.tasks.base import Preprocessor
from edgekit.tasks.batches import SingleBatches, golden_batches
from edgekit.to_onnx import export_model, record_golden
from edgekit.to_onnx.static_shape import with_static_shape
from edgekit.validate import check_float


@dataclass(frozen=True)
class Job:
    """One export under way: what every float graph and every target is made from.

    Attributes:
        recipe: The request, with its task and digests filled in.
        model: What is known of the model beside its weights.
        data: The user's samples.
        scratch: Folder for files that go away with the job.
        progress: Told of each stage as it begins.
        calibration_run: Statistics to take or to keep, and a memory budget.
    """

    recipe: Recipe
    model: ModelFacts
    data: UserData
    scratch: Path
    progress: Progress = silent
    calibration_run: CalibrationRun = field(default_factory=CalibrationRun)

    @property
    def max_length(self) -> int | None:
        """Longest token sequence that the model takes; None for a model without sequences."""
        return getattr(self.model.preprocessor, "max_length", None)


@dataclass(frozen=True)
class Exported:
    """A float graph fresh from PyTorch, with PyTorch's outputs to prove it by.

    Attributes:
        model: The graph, in a folder of its own.
        golden: Held-out inputs with the PyTorch outputs.
        preprocessor: Makes this graph's inputs.
        calibrated: Whether a target needs its statistics.
        original: Of a compressed model: the original's graph, and its outputs for the same samples.
    """

    model: OnnxModel
    golden: Golden
    preprocessor: Preprocessor
    calibrated: bool
    original: Original | None = None


@dataclass(frozen=True)
class Original:
    """What a compressed model is measured against.

    Attributes:
        model: The original's float graph, for speed and size.
        golden: The compressed model's inputs with the original's outputs.
    """

    model: OnnxModel
    golden: Golden


@dataclass(frozen=True)
class FloatGraph:
    """The float graph that several targets start from.

    Attributes:
        exported: As it was exported.
        baseline: What speed and size are compared with: the original, where the model was compressed.
        model: After the rewrites that every target wants.
        golden: The golden's file.
        preprocessor: Makes this graph's inputs.
        gates: Thresholds of the request, by check name.
        calibration: Statistics of its tensors; None where nothing is quantized.
        tuning: Calibration samples with the float graph's outputs, to try forms on; None likewise.
        audit: What calibration tells about itself; None where there is none.
    """

    exported: OnnxModel
    baseline: OnnxModel
    model: OnnxModel
    golden: Path
    preprocessor: Preprocessor
    gates: Mapping[str, float]
    calibration: Calibration | None
    tuning: Golden | None = None
    audit: CalibrationAudit | None = None


FloatKey = tuple[int, int, tuple[str, ...], StaticShape | None, bool]
"""Opset, IR version, rewrites, shape, whether every tensor is observed: targets that have them in common
start from one float graph."""


def float_key(profile: TargetProfile) -> FloatKey:
    """Return which float graph a target starts from."""
    onnx, whole = profile.onnx, profile.quantization.scope == "whole-graph"
    return onnx.opset, onnx.ir_version, profile.optimize.rewrites, onnx.static_shape, whole


def export_float_graphs(
    job: Job, model: TorchModel, original: TorchModel, profiles: tuple[TargetProfile, ...]
) -> dict[FloatKey, Exported]:
    """Export what profiles start from, in the profiles' order, and record what PyTorch gives.

    Args:
        job: The export under way.
        model: The model to export.
        original: As it was before it was compressed; the same value where it was not.
        profiles: The targets' rules.

    Raises:
        EdgekitError: The model cannot be exported, or the data is unfit.
    """
    wanted: dict[FloatKey, bool] = {}
    for profile in profiles:
        key = float_key(profile)
        wanted[key] = wanted.get(key, False) or calibrates(job.recipe, profile)
    return {key: _export(job, model, original, key, calibrated=needed) for key, needed in wanted.items()}


def _export(
    job: Job, model: TorchModel, original: TorchModel, key: FloatKey, *, calibrated: bool
) -> Exported:
    opset, ir_version, rewrites, shape, _ = key
    shaped = (f"{shape.batch}x{shape.sequence}",) if shape else ()
    folder = job.scratch / "-".join((f"opset{opset}", f"ir{ir_version}", *shaped, *rewrites))
    folder.mkdir()
    given = model
    if shape is not None:
        model = with_static_shape(model, shape, job.data.held_out[0])
    job.progress("export", f"exporting to opset {opset}, IR {ir_version}", None)
    # The golden first: data that the model cannot take, or outputs that are not finite, show at once.
    batch = shape.batch if shape else None
    golden = record_golden(model, golden_batches(model.preprocessor, job.data.held_out, batch=batch))
    exported = export_model(model, folder, opset=opset, ir_version=ir_version)
    before = None
    if original is not given:
        before = _export_original(job, original, key, golden, model.preprocessor, folder)
    return Exported(exported, golden, model.preprocessor, calibrated, before)


def _export_original(
    job: Job, original: TorchModel, key: FloatKey, own: Golden, preprocessor: Preprocessor, folder: Path
) -> Original:
    opset, ir_version, _, shape, _ = key
    if shape is not None:
        original = with_static_shape(original, shape, job.data.held_out[0])
    job.progress("export", "exporting the original, to compare with", None)
    place = folder / "original"
    place.mkdir()
    exported = export_model(original, place, opset=opset, ir_version=ir_version)
    reference = Reference.of(original, job.data.held_out, shape.batch if shape else None)
    return Original(exported, reference.golden_for(own, preprocessor))


def make_float_graph(job: Job, key: FloatKey, start: Exported) -> FloatGraph:
    """Prove an exported graph against PyTorch, optimize it, prove it again, and calibrate it where needed.

    Raises:
        EdgekitError: The graph is not the model, or the data is unfit.
    """
    _, _, rewrites, shape, whole = key
    folder, preprocessor, golden = start.model.only.path.parent, start.preprocessor, start.golden
    job.progress("export", "comparing the float graph with PyTorch", None)
    exported = start.model.with_step(check_float(start.model, golden)[1])
    job.progress("optimize", "rewriting the float graph", None)
    optimized = optimize(exported, folder / "optimized.onnx", rewrites)
    if sha256_file(optimized.only.path) != sha256_file(exported.only.path):
        optimized = optimized.with_step(check_float(optimized, golden)[1])
    baseline = start.original.model if start.original else exported
    golden = start.original.golden if start.original else golden
    golden_path = folder / "golden.npz"
    golden.save(golden_path)
    gates = request_gates(job.recipe, golden)
    if not start.calibrated:
        return FloatGraph(exported, baseline, optimized, golden_path, preprocessor, gates, None)
    samples, run = job.data.calibration, job.calibration_run
    said = f"reading {run.statistics}" if run.statistics else f"running {len(samples)} samples"
    job.progress("calibrate", said, None)
    let_go()
    singles = SingleBatches(preprocessor, samples, longest=whole)
    calibration = run_calibration(optimized, singles, run, folder, every_tensor=whole)
    calibration = replace(calibration, trained=job.model.trained)
    audit = audit_calibration(calibration, job.recipe.calibration.samples)
    batch = shape.batch if shape else None
    tried_on = golden_batches(preprocessor, samples[:TUNING_SAMPLES], batch=batch)
    tuning = record_tuning_golden(optimized, job.model.task, tried_on)
    return FloatGraph(
        exported, baseline, optimized, golden_path, preprocessor, gates, calibration, tuning, audit
    )
