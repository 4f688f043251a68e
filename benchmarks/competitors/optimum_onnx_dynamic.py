"""optimum-onnx as `optimum-cli onnxruntime quantize --avx512_vnni --per_channel` does it: dynamic."""

from __future__ import annotations

from benchmarks.job import Artifact, Job

TITLE = "optimum-onnx dynamic (its command line)"
ENVIRONMENT = "optimum-onnx"


def export(job: Job) -> None:
    """Write optimum's own export."""
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    model = ORTModelForFeatureExtraction.from_pretrained(job.model, export=True)
    model.save_pretrained(job.folder / "float")


def make(job: Job) -> Artifact:
    """Quantize dynamically, per channel."""
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    quantizer = ORTQuantizer.from_pretrained(job.folder / "float", file_name="model.onnx")
    config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    quantizer.quantize(save_dir=job.folder, quantization_config=config)
    return Artifact(job.folder / "model_quantized.onnx")
