"""Classification of texts, images and tokens: logits [..., classes], compared by decision and by softmax.

Where a sample may have several labels, see `multi_label`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit.golden import Golden
from edgekit.record import Check, OutputError
from edgekit.tasks.base import Comparison, Gate, Modality, Outputs, gated
from edgekit.tasks.measures import SamplePair, kl_divergences, mean, sample_pairs
from edgekit.tasks.samples import IGNORED

ONE_SIDED_95 = 1.645
"""Standard errors that a chance result exceeds once in twenty times, on one side."""

_AGREEMENT = Gate(
    "top1_agreement",
    "Same decision as the float model",
    ">=",
    0.97,
    "int8 may flip decisions that the float model makes by a hair; more than 3 in 100 is damage an app shows",
)
_KL = Gate(
    "kl_mean",
    "Distance of the class probabilities, mean KL",
    "<=",
    0.02,
    "at 0.02 nats the probabilities differ by at most 10 points (Pinsker's inequality), "
    "so thresholds that an app sets keep their meaning",
    "nats",
)
_ACCURACY_DROP = Gate(
    "accuracy_drop",
    "Accuracy lost to quantization",
    "<=",
    1.0,
    "a point below the float model is the customary bar for int8 (MLPerf Inference asks for 99 % of fp32)",
    "points",
)


@dataclass(frozen=True)
class Classification:
    """One label per sample: logits [batch, classes]; or per token: [batch, sequence, classes].

    A single logit is the score of one class against the other, so its sign is the decision.
    """

    name: str
    modality: Modality | None
    gates: tuple[Gate, ...] = (_AGREEMENT, _KL, _ACCURACY_DROP)
    shown: tuple[str, ...] = ("accuracy_float", "accuracy_quantized")

    def compare(self, golden: Golden, outputs: Sequence[Outputs]) -> Comparison:
        """Compare by top-1 agreement and KL, and by accuracy where the golden has labels.

        Padding does not count, nor do positions labelled -100 for accuracy. Without labels there are no
        checks of accuracy.
        """
        agreement, kl, drop = self.gates
        name = golden.output_names[0]
        pairs = sample_pairs(golden, outputs, name)
        reference = _two_classes(np.concatenate([pair.reference for pair in pairs]))
        other = _two_classes(np.concatenate([pair.other for pair in pairs]))
        divergences = kl_divergences(reference, other)
        checks = [
            _at_least_one_flip(gated(agreement, _agreement(reference, other)), len(reference)),
            gated(kl, mean(divergences)),
        ]
        checks += _accuracy_checks(drop, reference, other, _labels(pairs))
        ends = np.cumsum([len(pair.reference) for pair in pairs])
        per_sample = sorted(mean(part) for part in np.split(divergences, ends[:-1]))
        return Comparison(tuple(checks), (OutputError(name, "kl_nats", tuple(per_sample)),))

    def within(self, max_drop: float, *, labelled: bool) -> dict[str, float]:
        """Return the thresholds of an allowed loss: of accuracy, or without labels of equal decisions.

        Where that share of decisions may differ, accuracy can fall by no more.
        """
        return {"accuracy_drop": 100 * max_drop} if labelled else {"top1_agreement": 1 - max_drop}


def _labels(pairs: Sequence[SamplePair]) -> np.ndarray:
    """Return one label per position; positions of samples without labels are ignored ones."""
    rows = [
        np.full(len(pair.reference), IGNORED, np.int64) if pair.labels is None else pair.labels
        for pair in pairs
    ]
    return np.concatenate(rows)


def _two_classes(logits: np.ndarray) -> np.ndarray:
    """Logits of one class → logits of "no" and "yes"; others stay."""
    return np.concatenate([np.zeros_like(logits), logits], axis=-1) if logits.shape[-1] == 1 else logits


def _agreement(reference: np.ndarray, other: np.ndarray) -> float:
    if not len(reference) or not np.isfinite(other).all() or not np.isfinite(reference).all():
        return math.nan
    return mean(reference.argmax(axis=-1) == other.argmax(axis=-1))


def _at_least_one_flip(check: Check, count: int) -> Check:
    """Let one decision differ also where it is more than the budget's share."""
    if check.budget is None or not count or 1 - 1 / count >= check.budget:
        return check
    return replace(check, budget=1 - 1 / count, why=f"one decision of only {count} may differ; {check.why}")


def _accuracy_checks(gate: Gate, reference: np.ndarray, other: np.ndarray, labels: np.ndarray) -> list[Check]:
    """Return both accuracies and the drop between them.

    The budget of the drop grows by what chance explains on this many samples: 1.645 standard errors of a
    paired difference of proportions. Source: A. Agresti, "Categorical Data Analysis", section on matched
    pairs (the Wald interval that belongs to McNemar's test).
    """
    counts = labels != IGNORED
    total = int(counts.sum())
    if not total:
        return []
    truth = labels[counts]
    float_right = reference[counts].argmax(axis=-1) == truth
    right = other[counts].argmax(axis=-1) == truth
    lost, won = int((float_right & ~right).sum()), int((right & ~float_right).sum())
    drop = 100 * (lost - won) / total if np.isfinite(other).all() else math.nan
    error = 100 * math.sqrt(lost + won - (lost - won) ** 2 / total) / total
    check = gated(gate, drop)
    if error and check.budget is not None:
        why = (
            f"{check.why}; to its {check.budget:g} come {ONE_SIDED_95} standard errors of {error:.2f}, "
            f"what chance explains on {total} labels"
        )
        check = replace(check, budget=check.budget + ONE_SIDED_95 * error, why=why)
    said = f"on {total} labels of the user's data"
    return [
        Check("accuracy_float", "Accuracy of the float model", mean(float_right), why=said),
        Check("accuracy_quantized", "Accuracy of this model", mean(right), why=said),
        check,
    ]
