"""NNCF's post-training quantization of the ONNX file."""

from __future__ import annotations

from benchmarks.job import Artifact, Job, graph_inputs

TITLE = "NNCF on ONNX"
ENVIRONMENT = "nncf"


def make(job: Job) -> Artifact:
    """Quantize as for a transformer, on all samples."""
    import nncf
    import onnx

    names = graph_inputs(job.float_onnx)
    samples = [{name: sample[name] for name in names} for sample in job.samples()]
    model = nncf.quantize(
        onnx.load(str(job.float_onnx)),
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(samples),
    )
    path = job.folder / "model.onnx"
    onnx.save(model, str(path))
    return Artifact(path)
