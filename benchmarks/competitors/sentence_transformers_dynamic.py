"""sentence-transformers' exporter: `export_dynamic_quantized_onnx_model` for AVX512-VNNI."""

from __future__ import annotations

from benchmarks.job import Artifact, Job

TITLE = "sentence-transformers' exporter, dynamic"
ENVIRONMENT = "sentence-transformers"


def make(job: Job) -> Artifact:
    """Load with the ONNX backend, which exports, then quantize."""
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    model = SentenceTransformer(str(job.model), backend="onnx", model_kwargs={"export": True})
    export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(job.folder))
    return Artifact(job.folder / "onnx" / "model_qint8_avx512_vnni.onnx", includes_export=True)
