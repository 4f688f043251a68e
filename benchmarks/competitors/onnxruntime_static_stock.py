"""ONNX Runtime's `quantize_static` as it comes: pre-processing, then every default (QDQ, S8S8, MinMax)."""

from __future__ import annotations

from benchmarks.job import Artifact, Feeds, Job, graph_inputs

TITLE = "ONNX Runtime static, stock"
ENVIRONMENT = "onnxruntime"


def make(job: Job, **options: object) -> Artifact:
    """Quantize by the defaults.

    Args:
        job: The job.
        **options: Arguments of `quantize_static` that are not left as they are.
    """
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, path, note = job.folder / "preprocessed.onnx", job.folder / "model.onnx", ""
    try:
        quant_pre_process(str(job.float_onnx), str(source))
    except Exception as error:  # it is documented as optional, and says here what it stumbles over
        source, note = job.float_onnx, f"quant_pre_process fails: {error}"
    quantize_static(str(source), str(path), Feeds(job.samples(), graph_inputs(source)), **options)
    return Artifact(path, note=note)
