"""edgekit for cpu-x86, by its own stages: export; then optimize, calibrate and quantize, which are timed."""

from __future__ import annotations

import json

from benchmarks.job import Artifact, Job

TITLE = "**edgekit** static, `cpu-x86`"
ENVIRONMENT = None  # the environment that runs the harness
TARGET = "cpu-x86"


def export(job: Job) -> None:
    """Write edgekit's float graph with its signature."""
    from edgekit.model import ModelRef
    from edgekit.profile import load_profile
    from edgekit.source import load
    from edgekit.store import workspace
    from edgekit.to_onnx import export_model

    onnx = load_profile(TARGET).onnx
    with workspace() as scratch:
        model = load(ModelRef(str(job.model)), None, scratch=scratch)
        made = export_model(model, job.folder / "float", opset=onnx.opset, ir_version=onnx.ir_version)
    signature = json.dumps(made.only.signature.to_json())
    (job.folder / "signature.json").write_text(signature, encoding="utf-8")


def make(job: Job) -> Artifact:
    """Optimize, calibrate on the texts as they are (no padding), quantize."""
    from edgekit.model import Graph, OnnxModel, Signature
    from edgekit.optimize import optimize
    from edgekit.profile import load_profile
    from edgekit.quantize import calibrate, quantize
    from edgekit.recipe import QuantizeOptions

    profile = load_profile(TARGET)
    signature = Signature.from_json(json.loads((job.folder / "signature.json").read_text(encoding="utf-8")))
    graph = Graph("model", job.folder / "float" / "float.onnx", signature)
    exported = OnnxModel((graph,), profile.onnx.opset, profile.onnx.ir_version)
    optimized = optimize(exported, job.folder / "optimized.onnx")
    names = [spec.name for spec in signature.inputs]
    calibration = calibrate(optimized, ({n: sample[n] for n in names} for sample in job.samples()))
    made = quantize(optimized, calibration, profile, QuantizeOptions(), job.folder / "model.onnx")
    return Artifact(made.only.path, options=dict(profile.runtime.session_options))
