"""The reference: torch's own export of the encoder with mean pooling and normalization, in fp32."""

from __future__ import annotations

import shutil

from benchmarks.job import Artifact, Job

TITLE = "fp32, plain export"
ENVIRONMENT = "onnxruntime"
OPSET = 20


def export(job: Job) -> None:
    """Write the plain fp32 graph that others start from."""
    import torch
    from transformers import AutoModel

    class SentenceEncoder(torch.nn.Module):
        """Tokens [batch, length] → unit vectors [batch, dim]."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = AutoModel.from_pretrained(job.model).eval()

        def forward(self, input_ids, attention_mask, token_type_ids):
            hidden = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(mean, dim=-1)

    tokens = torch.ones((2, 16), dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=512)}
    torch.onnx.export(
        SentenceEncoder(),
        (tokens, tokens.clone(), torch.zeros_like(tokens)),
        str(job.float_onnx),
        dynamo=True,
        opset_version=OPSET,
        external_data=False,
        input_names=names,
        output_names=["sentence_embedding"],
        dynamic_shapes=dict.fromkeys(names, axes),
    )


def make(job: Job) -> Artifact:
    """Nothing is quantized."""
    path = job.folder / "model.onnx"
    shutil.copyfile(job.float_onnx, path)
    return Artifact(path)
