"""ONNX Runtime's `quantize_dynamic`, per channel, on the plain export."""

from __future__ import annotations

from benchmarks.job import Artifact, Job

TITLE = "ONNX Runtime dynamic, per channel"
ENVIRONMENT = "onnxruntime"


def make(job: Job) -> Artifact:
    """Weights int8 per column; activations are quantized as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = job.folder / "model.onnx"
    quantize_dynamic(str(job.float_onnx), str(path), per_channel=True, weight_type=QuantType.QInt8)
    return Artifact(path)
