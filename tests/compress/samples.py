"""Samples for the tiny transformers: arrays that go in as they are, so that no tokenizer is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.compress.base import Data
from edgekit.compress.judge import Judge
from edgekit.data import Sample
from edgekit.model import TorchModel


class Arrays:
    """A preprocessor for samples that are input name -> array without the batch axis; texts are padded."""

    def batch(self, samples: Any, *, length: int | None = None) -> dict[str, np.ndarray]:
        longest = max(len(next(iter(sample.value.values()))) for sample in samples)
        return {
            name: np.stack([_padded(sample.value[name], longest) for sample in samples])
            for name in samples[0].value
        }


def _padded(values: np.ndarray, longest: int) -> np.ndarray:
    return values if values.ndim > 1 else np.pad(values, (0, longest - len(values)))


def samples_of(model: TorchModel, count: int, seed: int = 1) -> tuple[Sample, ...]:
    """Return random samples of several lengths for a tiny transformer."""
    rng = np.random.default_rng(seed)
    if "pixel_values" in model.input_names:
        images = rng.normal(size=(count, 3, 16, 16)).astype(np.float32)
        return tuple(Sample({"pixel_values": image}) for image in images)
    found = []
    for index in range(count):
        ids = rng.integers(3, 60, 5 + index % 5)
        found.append(Sample({"input_ids": ids, "attention_mask": np.ones_like(ids)}))
    return tuple(found)


def with_data(model: TorchModel, scratch: Path, fit: int = 48, judge: int = 16) -> tuple[TorchModel, Data]:
    """Return the model with a preprocessor, and data of its own."""
    model = replace(model, preprocessor=Arrays())
    samples = samples_of(model, fit + judge)
    return model, Data(samples[:fit], Judge.of(model, samples[fit:]), scratch)
