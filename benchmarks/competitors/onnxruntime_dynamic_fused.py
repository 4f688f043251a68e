"""ONNX Runtime's transformers optimizer, then `quantize_dynamic`, per channel.

The optimizer knows attention only as eager modelling code leaves it through the older TorchScript exporter.
"""

from __future__ import annotations

from benchmarks.job import Artifact, Job

TITLE = "ONNX Runtime dynamic, per channel, on its fused graph"
ENVIRONMENT = "onnxruntime"


def export(job: Job) -> None:
    """Write a graph in the form that the optimizer's patterns match."""
    import torch
    from transformers import AutoModel

    class Tokens(torch.nn.Module):
        """Tokens [batch, length] → hidden states [batch, length, dim]."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = AutoModel.from_pretrained(job.model, attn_implementation="eager").eval()

        def forward(self, input_ids, attention_mask, token_type_ids):
            found = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            )
            return found.last_hidden_state

    tokens = torch.ones((2, 16), dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    torch.onnx.export(
        Tokens().eval(),
        (tokens, tokens.clone(), torch.zeros_like(tokens)),
        str(job.folder / "eager.onnx"),
        dynamo=False,
        opset_version=17,
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes={name: {0: "batch", 1: "sequence"} for name in [*names, "last_hidden_state"]},
    )


def make(job: Job) -> Artifact:
    """Fuse, then quantize."""
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer

    fused, path = job.folder / "fused.onnx", job.folder / "model.onnx"
    made = optimizer.optimize_model(
        str(job.folder / "eager.onnx"), model_type="bert", num_heads=12, hidden_size=384
    )
    counts = made.get_fused_operator_statistics()
    made.save_model_to_file(str(fused))
    quantize_dynamic(
        str(fused),
        str(path),
        per_channel=True,
        weight_type=QuantType.QInt8,
        # ONNX's shape inference stops at ONNX Runtime's own operators; without a type it refuses to go on.
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )
    return Artifact(path, note=f"{counts.get('Attention', 0)} Attention nodes fused")
