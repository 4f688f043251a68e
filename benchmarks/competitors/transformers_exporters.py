"""transformers' own exporter with its `OnnxRuntimeQuantizer`: ONNX Runtime's static, per channel."""

from __future__ import annotations

from benchmarks.job import Artifact, Job

TITLE = "transformers.exporters, OnnxRuntimeQuantizer static"
ENVIRONMENT = "onnxruntime"


def make(job: Job) -> Artifact:
    """Export and quantize, which is one call there."""
    import onnx_ir
    import torch
    from onnxruntime.quantization import QuantType
    from transformers import AutoModel
    from transformers.exporters import OnnxConfig, OnnxExporter, OnnxRuntimeQuantizer, OnnxRuntimeStaticConfig

    model = AutoModel.from_pretrained(job.model).eval()
    samples = [{name: torch.from_numpy(row) for name, row in s.items()} for s in job.samples()]
    tokens = torch.ones((2, 16), dtype=torch.int64)
    example = {
        "input_ids": tokens,
        "attention_mask": tokens.clone(),
        "token_type_ids": torch.zeros_like(tokens),
    }
    config = OnnxConfig(
        dynamic=True,
        quantizer=OnnxRuntimeQuantizer(
            OnnxRuntimeStaticConfig(
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True
            ),
            calibration_dataset=samples,
        ),
    )
    exported = OnnxExporter().export(model, example, config)
    path = job.folder / "model.onnx"
    onnx_ir.save(exported.program, path)
    return Artifact(path, includes_export=True)
