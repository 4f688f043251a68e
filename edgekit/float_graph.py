"""What happens once per float graph: export, proof against PyTorch, rewrites, calibration.

Targets of one opset and IR version start from the same float graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.golden import Golden
from edgekit.mixed import TUNING_SAMPLES, record_tuning_golden
from edgekit.model import OnnxModel, TorchModel
from edgekit.optimize import optimize
from edgekit.preflight import UserData, calibrates
from edgekit.profile import StaticShape, TargetProfile
from edgekit.quantize import Calibration
from edgekit.quantize.audit import CalibrationAudit, audit_calibration
from edgekit.quantize.run import CalibrationRun, run_calibration
from edgekit.recipe import Recipe
from edgekit.record import Progress, silent
from edgekit.store import sha256_file
from edgekit.tasks import request_gates
from edgekit.tasks.batches import SingleBatches, golden_batches
from edgekit.to_onnx import export_model, record_golden
from edgekit.to_onnx.static_shape import with_static_shape
from edgekit.validate import check_float


@dataclass(frozen=True)
class Job:
    """One export under way: what every float graph and every target is made from.

    Attributes:
        recipe: The request, with its task and digests filled in.
        model: The model as it was loaded.
        data: The user's samples.
        scratch: Folder for files that go away with the job.
        progress: Told of each stage as it begins.
        calibration_run: Statistics to take or to keep, and a memory budget.
    """

    recipe: Recipe
    model: TorchModel
    data: UserData
    scratch: Path
    progress: Progress = silent
    calibration_run: CalibrationRun = field(default_factory=CalibrationRun)

    @property
    def max_length(self) -> int | None:
        """Longest token sequence that the model takes; None for a model without sequences."""
        return getattr(self.model.preprocessor, "max_length", None)


@dataclass(frozen=True)
class FloatGraph:
    """The float graph that several targets start from.

    Attributes:
        exported: As it was exported: what speed and size are compared with.
        model: After the rewrites that every target wants.
        golden: The golden's file.
        gates: Thresholds of the request, by check name.
        calibration: Statistics of its tensors; None where nothing is quantized.
        tuning: Calibration samples with the float graph's outputs, to try forms on; None likewise.
        audit: What calibration tells about itself; None where there is none.
        source: The model with the preprocessor that makes this graph's inputs; None for the job's own.
    """

    exported: OnnxModel
    model: OnnxModel
    golden: Path
    gates: Mapping[str, float]
    calibration: Calibration | None
    tuning: Golden | None = None
    audit: CalibrationAudit | None = None
    source: TorchModel | None = None


FloatKey = tuple[int, int, tuple[str, ...], StaticShape | None, bool]
"""Opset, IR version, rewrites, shape, whether every tensor is observed: targets that have them in common
start from one float graph."""


def float_key(profile: TargetProfile) -> FloatKey:
    """Return which float graph a target starts from."""
    onnx, whole = profile.onnx, profile.quantization.scope == "whole-graph"
    return onnx.opset, onnx.ir_version, profile.optimize.rewrites, onnx.static_shape, whole


def make_float_graphs(job: Job, profiles: tuple[TargetProfile, ...]) -> dict[FloatKey, FloatGraph]:
    """Return the float graphs that profiles start from, in the profiles' order."""
    wanted: dict[FloatKey, bool] = {}
    for profile in profiles:
        key = float_key(profile)
        wanted[key] = wanted.get(key, False) or calibrates(job.recipe, profile)
    return {key: make_float_graph(job, key, calibrated=needed) for key, needed in wanted.items()}


def make_float_graph(job: Job, key: FloatKey, *, calibrated: bool) -> FloatGraph:
    """Export, prove against PyTorch, optimize, prove again, and calibrate where a target needs it.

    Raises:
        EdgekitError: The model cannot be exported, the graph is not the model, or the data is unfit.
    """
    opset, ir_version, rewrites, shape, whole = key
    shaped = (f"{shape.batch}x{shape.sequence}",) if shape else ()
    folder = job.scratch / "-".join((f"opset{opset}", f"ir{ir_version}", *shaped, *rewrites))
    folder.mkdir()
    source = job.model if shape is None else with_static_shape(job.model, shape, job.data.held_out[0])
    job.progress("export", f"exporting to opset {opset}, IR {ir_version}", None)
    # The golden first: data that the model cannot take, or outputs that are not finite, show at once.
    batch = shape.batch if shape else None
    golden = record_golden(source, golden_batches(source.preprocessor, job.data.held_out, batch=batch))
    exported = export_model(source, folder, opset=opset, ir_version=ir_version)
    golden_path = folder / "golden.npz"
    golden.save(golden_path)
    job.progress("export", "comparing the float graph with PyTorch", None)
    exported = exported.with_step(check_float(exported, golden)[1])
    job.progress("optimize", "rewriting the float graph", None)
    optimized = optimize(exported, folder / "optimized.onnx", rewrites)
    if sha256_file(optimized.only.path) != sha256_file(exported.only.path):
        optimized = optimized.with_step(check_float(optimized, golden)[1])
    gates = request_gates(job.recipe, golden)
    if not calibrated:
        return FloatGraph(exported, optimized, golden_path, gates, None, source=source)
    samples, run = job.data.calibration, job.calibration_run
    said = f"reading {run.statistics}" if run.statistics else f"running {len(samples)} samples"
    job.progress("calibrate", said, None)
    singles = SingleBatches(source.preprocessor, samples, longest=whole)
    calibration = run_calibration(optimized, singles, run, folder, every_tensor=whole)
    audit = audit_calibration(calibration, job.recipe.calibration.samples)
    tried_on = golden_batches(source.preprocessor, samples[:TUNING_SAMPLES], batch=batch)
    tuning = record_tuning_golden(optimized, job.model.task, tried_on)
    return FloatGraph(exported, optimized, golden_path, gates, calibration, tuning, audit, source)
