"""ONNX Runtime's `quantize_static` with the choices that its documentation advises for x86 with VNNI."""

from __future__ import annotations

from benchmarks.competitors import onnxruntime_static_stock
from benchmarks.job import Artifact, Job

TITLE = "ONNX Runtime static, U8S8, per channel"
ENVIRONMENT = "onnxruntime"


def make(job: Job) -> Artifact:
    """Stock but for unsigned activations and one scale per column of a weight."""
    from onnxruntime.quantization import QuantType

    return onnxruntime_static_stock.make(
        job, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True
    )
