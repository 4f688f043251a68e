"""The values of a training: what a step is given, what it minimises, what is told of it, what comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from edgekit.data import Sample
from edgekit.model import TorchModel


@dataclass(frozen=True)
class Batch:
    """What one forward of the student was given.

    Attributes:
        indices: Of the samples, among all that are trained on.
        inputs: The student's, on the CPU.
        samples: The same samples.
        prompt_tokens: Where the student wrote the texts itself, how many tokens of each sample it went on
            from; 0 where the samples are given as they are.
    """

    indices: tuple[int, ...]
    inputs: dict[str, torch.Tensor]
    samples: tuple[Sample, ...]
    prompt_tokens: int = 0


class Objective(Protocol):
    """What training minimises."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """Return what is trained along with the student and thrown away."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state of it, for a checkpoint."""

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Take what `state_dict` returned."""

    def watching(self, student: TorchModel) -> AbstractContextManager[Any]:
        """Look at the copy of the student that is trained, and be on its device, while the block lasts."""

    def given(self, batch: Batch) -> Batch:
        """Return what the student is given in a batch's place; what is random is torch's to draw."""

    def __call__(
        self, outputs: Mapping[str, torch.Tensor], batch: Batch, share_done: float
    ) -> dict[str, torch.Tensor]:
        """Return the weighted losses of a batch by name, each a mean over its samples.

        Args:
            outputs: The student's, in fp32, on its device.
            batch: What it was given; under several processes, this process's share of a batch.
            share_done: Part of the training that is over, from 0 to below 1.
        """


@dataclass(frozen=True)
class Point:
    """One evaluation on the way.

    Attributes:
        step: Steps done.
        samples: Samples seen, counting each time.
        losses: Mean of each weighted loss since the point before, in the main process; empty at step 0.
        learning_rate: Of the last step; of the first one at step 0.
        quality: What `evaluate` returned.
        seconds: Training time up to here, over all runs that led here.
    """

    step: int
    samples: int
    losses: dict[str, float]
    learning_rate: float
    quality: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes:
        student: With the best weights, on the CPU, in eval mode, without gradients.
        points: Every evaluation, the first before any step.
        best_step: Steps after which the weights were the best; 0 where training made nothing better.
        steps_run: Steps done.
        stopped_early: Whether patience ended before the steps did.
    """

    student: TorchModel
    points: tuple[Point, ...]
    best_step: int
    steps_run: int
    stopped_early: bool
