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
    """Every sample as a batch of its own, so that no padding is seen; can be read any number of times.

    Attributes:
        preprocessor: The model's.
        samples: In order.
        longest: Add the first text once more, repeated to the length of a static shape: what counts tokens
            then has its whole range, whatever the texts.
    """

    preprocessor: Preprocessor
    samples: Sequence[Sample]
    longest: bool = False

    def __iter__(self) -> Iterator[Inputs]:
        """Make the batches one after the other."""
        for sample in self.samples:
            yield self.preprocessor.batch([sample])
        if self._adds_longest():
            yield self.preprocessor.batch(self.samples[:1], length=_static_length(self.preprocessor))

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.samples) + self._adds_longest()

    def _adds_longest(self) -> bool:
        return self.longest and bool(self.samples) and _static_length(self.preprocessor) is not None


def _static_length(preprocessor: Preprocessor) -> int | None:
    return preprocessor.static_length if isinstance(preprocessor, TextPreprocessor) else None


def sample_batches(
    preprocessor: Preprocessor, samples: Sequence[Sample], *, batch: int | None = None
) -> Iterator[tuple[Inputs, np.ndarray | None]]:
    """Yield (inputs, labels) batches that hold every sample once; the same go together for every model.

    Args:
        preprocessor: The model's.
        samples: In order.
        batch: The only batch size that the graph takes.
    """
    start = count = 0
    while start < len(samples):
        size = batch or (_SIZES[count] if count < len(_SIZES) else _REST)
        chunk = samples[start : start + size]
        inputs = preprocessor.batch(chunk)
        yield inputs, preprocessor.labels(chunk, inputs)
        start, count = start + size, count + 1


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
    batches = list(sample_batches(preprocessor, samples, batch=batch))
    if isinstance(preprocessor, TextPreprocessor) and batch is None:
        lengths = {next(iter(inputs.values())).shape[1] for inputs, _ in batches}
        possible = range(preprocessor.min_length, preprocessor.max_length + 1)
        for length in (8, 5, 12, *possible):
            if len(lengths) < _FEWEST_LENGTHS and length not in lengths and length in possible:
                lengths.add(length)
                batches.append((preprocessor.batch(samples[:1], length=length), None))
    return tuple(batches)
