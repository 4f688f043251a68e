"""NNCF's post-training quantization of the OpenVINO model."""

from __future__ import annotations

from benchmarks.job import Artifact, Job

TITLE = "NNCF + OpenVINO, int8"
ENVIRONMENT = "nncf"


def make(job: Job) -> Artifact:
    """Convert, then quantize as for a transformer, on all samples."""
    import nncf
    import openvino

    samples = job.samples()
    model = nncf.quantize(
        openvino.convert_model(str(job.float_onnx)),
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(samples),
    )
    path = job.folder / "model.xml"
    openvino.save_model(model, str(path), compress_to_fp16=False)
    return Artifact(path, runtime="openvino")
