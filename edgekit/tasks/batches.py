"""From held-out samples to the golden's batches: several batch sizes and lengths, with real padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.data import Sample
from edgekit.tasks.base import Inputs, Preprocessor
from edgekit.tasks.text import TextPreprocessor

_SIZES = (1, 2, 1)
_REST = 8
_FEWEST_LENGTHS = 3


@dataclass(frozen=True)
class SingleBatches:
    """Every sample as a batch of its own, so that no padding is seen; can be read any number of times."""

    preprocessor: Preprocessor
    samples: Sequence[Sample]

    def __iter__(self) -> Iterator[Inputs]:
        """Make the batches one after the other."""
        return (self.preprocessor.batch([sample]) for sample in self.samples)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)


def golden_batches(
    preprocessor: Preprocessor, samples: Sequence[Sample], *, batch: int | None = None
) -> tuple[tuple[Inputs, np.ndarray | None], ...]:
    """Return (inputs, labels) batches that hold every sample once.

    A few batches of one and two samples come first, then batches of eight, whose texts differ in length and
    so are padded. Where texts give fewer than three lengths, cut or repeated copies of the first are added,
    as far as the model's shortest and longest length allow.

    Args:
        preprocessor: The model's.
        samples: Held-out samples, at least eight.
        batch: The only batch size that the graph takes; then all batches are of the one shape.
    """
    batches: list[tuple[Inputs, np.ndarray | None]] = []
    start = 0
    while start < len(samples):
        size = batch or (_SIZES[len(batches)] if len(batches) < len(_SIZES) else _REST)
        chunk = samples[start : start + size]
        inputs = preprocessor.batch(chunk)
        batches.append((inputs, preprocessor.labels(chunk, inputs)))
        start += size
    if isinstance(preprocessor, TextPreprocessor) and batch is None:
        lengths = {next(iter(inputs.values())).shape[1] for inputs, _ in batches}
        possible = range(preprocessor.min_length, preprocessor.max_length + 1)
        for length in (8, 5, 12, *possible):
            if len(lengths) < _FEWEST_LENGTHS and length not in lengths and length in possible:
                lengths.add(length)
                batches.append((preprocessor.batch(samples[:1], length=length), None))
    return tuple(batches)
