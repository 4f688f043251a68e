"""OpenVINO in bf16: nothing is quantized, the runtime computes in bfloat16; weights are stored as fp16."""

from __future__ import annotations

from benchmarks.job import Artifact, Job

TITLE = "OpenVINO, bf16"
ENVIRONMENT = "nncf"


def make(job: Job) -> Artifact:
    """Convert; bfloat16 is asked for when the model is compiled."""
    import openvino

    path = job.folder / "model.xml"
    openvino.save_model(openvino.convert_model(str(job.float_onnx)), str(path))
    return Artifact(path, runtime="openvino", options={"INFERENCE_PRECISION_HINT": "bf16"})
