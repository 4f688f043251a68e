"""What a task and a preprocessor are.

A task says which outputs matter, how to compare a model's outputs with the golden's, and how close they
have to be. A preprocessor turns the user's samples into a model's inputs; it needs neither torch nor
transformers, because an app has neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from edgekit.data import Kind, Sample
from edgekit.golden import Golden
from edgekit.record import Check, OutputError, Skip

Modality = Kind
Inputs = dict[str, np.ndarray]
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Gate:
    """A threshold with its reason."""

    name: str
    title: str
    comparison: Literal[">=", "<="]
    budget: float
    why: str
    unit: str = ""


@dataclass(frozen=True)
class Comparison:
    """What a task finds when it compares outputs with the golden.

    Attributes:
        checks: Measured values; those with a gate carry its budget.
        errors: The distribution behind them, per output.
    """

    checks: tuple[Check, ...]
    errors: tuple[OutputError, ...]


class Preprocessor(Protocol):
    """Turns samples into one batch of inputs."""

    @property
    def modality(self) -> Modality:
        """What the samples must be."""

    def sift(self, samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], tuple[Skip, ...]]:
        """Return the samples that can be used, and which were left out and why.

        Called once with all samples, so that a few odd ones are not taken for a wrong file.

        Raises:
            DataError: A sample is not of this modality, its label is not one that the model knows, or most
                samples mean nothing to the model.
        """

    def batch(self, samples: Sequence[Sample], *, length: int | None = None) -> Inputs:
        """Return the inputs of one batch, padded to its longest sample.

        Args:
            samples: At least one.
            length: For text: repeat or cut every sample to exactly this many tokens (for latency).

        Raises:
            DataError: A sample is not of this modality or has the wrong shape.
        """

    def labels(self, samples: Sequence[Sample], inputs: Inputs) -> np.ndarray | None:
        """Return the labels of a batch, int64, or None when a sample has none.

        Raises:
            DataError: A label is not one that the model knows.
        """

    def to_json(self) -> dict[str, Any]:
        """Return what an app has to do, as it is written to the manifest."""


class Task(Protocol):
    """What a model is for."""

    @property
    def name(self) -> str:
        """The key of `edgekit.tasks.TASKS`."""

    @property
    def modality(self) -> Modality | None:
        """What the samples are; None where the model decides."""

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The default thresholds, each with its reason."""

    @property
    def shown(self) -> tuple[str, ...]:
        """Names of further checks, which have no threshold until the request gives one.

        A check of a single output is called `<name>.<output>`.
        """

    def compare(self, golden: Golden, outputs: Sequence[Outputs]) -> Comparison:
        """Compare one output mapping per golden batch with the golden.

        Every gate's value is measured; further values may be shown. Padding does not count.
        """

    def within(self, max_drop: float, *, labelled: bool) -> dict[str, float]:
        """Return the thresholds, by check name, that an allowed loss of the task's main measure means.

        Args:
            max_drop: The loss against float, above 0 and below 1: 0.01 is a point.
            labelled: Whether accuracy can be measured.
        """


def gated(gate: Gate, measured: float) -> Check:
    """Return the check of a gate; NaN fails. `Check.with_budget` puts a request's threshold in."""
    return Check(gate.name, gate.title, float(measured), gate.unit, gate.comparison, gate.budget, gate.why)
