"""What the losses were: means for the next point, and which samples made one that is not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from edgekit.data import Sample
from edgekit.distill.protocol import Batch
from edgekit.errors import TrainingError


@dataclass(frozen=True)
class Seen:
    """The losses of one forward, by name."""

    batch: Batch
    terms: Mapping[str, float]


@dataclass
class Tally:
    """Sums of the losses of the steps since the last point."""

    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0

    def add(self, seen: Sequence[Seen]) -> float:
        """Add the forwards of a step, each by its share of the samples, and return the loss of the step."""
        samples = sum(len(each.batch.indices) for each in seen)
        loss = 0.0
        for each in seen:
            for name, value in each.terms.items():
                part = value * len(each.batch.indices) / samples
                self.sums[name] = self.sums.get(name, 0.0) + part
                loss += part
        self.steps += 1
        return loss

    def means(self) -> dict[str, float]:
        """Return the mean of each loss over the steps."""
        return {name: total / self.steps for name, total in self.sums.items()}


def fetched(
    forwards: Sequence[tuple[Batch, Mapping[str, torch.Tensor]]], norm: torch.Tensor
) -> tuple[list[Seen], float]:
    """Return the losses of a step's forwards and the gradient's norm as numbers.

    The device is waited for once.
    """
    tensors = [norm, *chain.from_iterable(terms.values() for _, terms in forwards)]
    values = iter(torch.stack([tensor.detach().float() for tensor in tensors]).tolist())
    length = next(values)
    return [Seen(batch, {name: next(values) for name in terms}) for batch, terms in forwards], length


def unsound(seen: Sequence[Seen], norm: float) -> tuple[str, tuple[Batch, ...]] | None:
    """Return what is not finite in a step, and the batches it came up in; None where all is well."""
    for each in seen:
        for name, value in each.terms.items():
            if not math.isfinite(value):
                return f"the loss '{name}' is {value}", (each.batch,)
    if not math.isfinite(norm):
        return f"the norm of the gradient is {norm}", tuple(each.batch for each in seen)
    return None


def stopped(step: int, what: str, batches: Sequence[Batch], best: Path, advice: str) -> TrainingError:
    """Return the error for a step that cannot be done.

    Args:
        step: Its number, from 1.
        what: Is not finite.
        batches: Where it came up.
        best: File of the best weights so far.
        advice: What else to try, after "start again in another folder with".
    """
    indices = [index for batch in batches for index in batch.indices]
    listed = ", ".join(map(str, indices[:8])) + (f" and {len(indices) - 8} more" if indices[8:] else "")
    where = f" (samples {listed}; the first begins {_beginning(batches[0].samples[0])})" if batches else ""
    return TrainingError(
        f"training stopped at step {step}: {what}{where}",
        f"The best weights so far are kept in {best}. Look at these samples, or start again in another "
        f"folder with {advice}.",
    )


def _beginning(sample: Sample) -> str:
    value = sample.value
    if isinstance(value, Path):
        return repr(value.name)
    if isinstance(value, Mapping):
        return ", ".join(
            f"{name} {np.asarray(array).reshape(-1)[:6].tolist()}" for name, array in value.items()
        )
    text = value if isinstance(value, str) else " ".join(map(str, value))
    return repr(text[:60] + ("…" if text[60:] else ""))
