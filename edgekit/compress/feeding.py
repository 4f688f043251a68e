"""Samples -> batches of a PyTorch model's inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from edgekit.data import Sample
from edgekit.model import TorchModel

BATCH = 16
"""Samples that run together: enough to keep matrix products busy, few enough for little padding."""


def groups(samples: Sequence[Sample], size: int = BATCH) -> Iterator[list[int]]:
    """Yield the samples' indices in groups, texts of like length together so that little is padded."""
    order = sorted(range(len(samples)), key=lambda index: length_of(samples[index]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def fed(model: TorchModel, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """Return samples as one batch of the model's inputs."""
    inputs = model.preprocessor.batch(samples)
    return {name: torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in model.input_names}


def length_of(sample: Sample) -> int:
    """Return by what samples are sorted so that little is padded: characters or words, 0 without text."""
    return len(sample.value) if isinstance(sample.value, (str, list)) else 0
