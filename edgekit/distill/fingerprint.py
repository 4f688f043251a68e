"""What tells whether a model or a set of samples is the same as the last time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import nn

from edgekit.data import Sample, content_digest
from edgekit.model import TorchModel
from edgekit.store import sha256_json
from edgekit.tasks.text import TextPreprocessor


def samples_sha256(samples: Sequence[Sample]) -> str:
    """Return the digest of the contents of samples in their order, labels left out; images are read.

    Raises:
        DataError: An image cannot be read.
    """
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(content_digest(sample.value))
    return digest.hexdigest()


def model_sha256(model: TorchModel) -> str:
    """Return the digest of what a model's outputs follow from.

    That is its origin and task, its preprocessor with the tokenizer, and its module as it is now: the kind of
    every part, its plain numbers and flags (heads, strides, epsilons), and the bytes of its tensors.
    """
    digest = hashlib.sha256()
    said = [model.source_sha256, model.task, *model.input_names, *model.output_names]
    feeder = model.preprocessor
    tokenizer = feeder.tokenizer.to_str() if isinstance(feeder, TextPreprocessor) else ""
    digest.update(sha256_json([said, feeder.to_json(), tokenizer]).encode())
    for name, part in model.module.named_modules():
        digest.update(f"{name}\0{type(part).__qualname__}\0{_plain(part)}\n".encode())
    for name, tensor in [*model.module.named_parameters(), *model.module.named_buffers()]:
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _plain(part: nn.Module) -> list[tuple[str, int | float]]:
    return sorted((k, v) for k, v in vars(part).items() if isinstance(v, int | float) and k[0] != "_")
