"""How far a model's outputs are from the original's, without labels, on samples that nothing is fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from edgekit.compress.feeding import BATCH, fed, groups
from edgekit.data import Sample
from edgekit.errors import DataError
from edgekit.model import TorchModel
from edgekit.tasks.measures import cosines, kl_divergences
from edgekit.tasks.text import columns_kept

_EMBEDS = ("sentence-embedding", "feature-extraction")
_DECIDES = ("text-classification", "token-classification", "image-classification", "text-generation")


@dataclass(frozen=True)
class Judge:
    """Compares models with the original one.

    The loss is what the task cares for: 1 - cosine of embeddings, per sentence or per token; KL(original ‖
    model) of class or next-token probabilities, in nats; for anything else the error's energy over the
    output's.

    Attributes:
        original: The model before every technique.
        samples: What it is judged on.
        reference: Its outputs, one array [positions, dim] per sample.
    """

    original: TorchModel
    samples: tuple[Sample, ...]
    reference: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, original: TorchModel, samples: Sequence[Sample]) -> Judge:
        """Run the original once over the samples."""
        return cls(original, tuple(samples), tuple(outputs(original, samples)))

    def loss(self, model: TorchModel) -> float:
        """Return the mean loss over the samples; lower is closer to the original.

        Samples whose positions are not the original's, because a new tokenizer cuts them otherwise, are left
        out where each position has an output of its own. Next tokens are compared among those that a trimmed
        vocabulary kept.

        Raises:
            DataError: No sample is left that could be compared.
        """
        columns = None
        if self.original.task == "text-generation":
            columns = columns_kept(self.original.preprocessor, model.preprocessor)
        references = [r if columns is None else r[:, columns] for r in self.reference]
        losses = [
            self._loss(reference, other)
            for reference, other in zip(references, outputs(model, self.samples), strict=True)
            if reference.shape == other.shape
        ]
        if not losses:
            raise DataError(
                "no sample has the same tokens under the new tokenizer, so no output can be compared",
                "Give more or shorter samples, or keep a larger vocabulary.",
            )
        return float(np.mean(losses))

    def _loss(self, reference: np.ndarray, other: np.ndarray) -> float:
        if self.original.task in _EMBEDS:
            return float(1 - cosines(reference, other).mean())
        if self.original.task in _DECIDES and reference.shape[-1] > 1:
            return float(kl_divergences(reference, other).mean())
        energy = float(np.square(reference).sum()) or 1.0
        return float(np.square(reference - other).sum()) / energy


def outputs(model: TorchModel, samples: Sequence[Sample], size: int = BATCH) -> list[np.ndarray]:
    """Return each sample's first output, without padding: float64 [positions, dim], in the samples' order."""
    found: dict[int, np.ndarray] = {}
    for chosen in groups(samples, size):
        inputs = fed(model, [samples[index] for index in chosen])
        with torch.no_grad():
            returned = model.module(**inputs)
        values = next(iter(returned.values())) if isinstance(returned, dict) else returned[0]
        mask = inputs.get("attention_mask")
        for row, index in enumerate(chosen):
            value = values[row].numpy().astype(np.float64)
            if mask is not None and value.ndim > 1 and len(value) == mask.shape[1]:
                value = value[mask[row].numpy().astype(bool)]
            found[index] = value.reshape(-1, value.shape[-1]) if value.ndim else value.reshape(1, 1)
    return [found[index] for index in range(len(samples))]
