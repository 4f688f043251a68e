"""Classification with any number of labels per sample: logits [batch, labels], compared label by label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.golden import Golden
from edgekit.record import OutputError
from edgekit.tasks.base import Comparison, Gate, Modality, Outputs, gated
from edgekit.tasks.measures import kl_divergences, mean, sample_pairs

_F1 = Gate(
    "label_f1",
    "Same labels as the float model, F1",
    ">=",
    0.97,
    "most labels are absent most of the time, so only those that either model gives count: of 100, about 3 "
    "may be lost or won",
)
_KL = Gate(
    "kl_mean",
    "Distance of the label probabilities, mean KL",
    "<=",
    0.02,
    "at 0.02 nats a probability differs by at most 10 points (Pinsker's inequality), so thresholds that an "
    "app sets keep their meaning",
    "nats",
)


@dataclass(frozen=True)
class MultiLabel:
    """Every label is a decision of its own: the sigmoid of its logit, given from one half up.

    Labels of the user's data are not used: a sample of it has one, and here it may have many.
    """

    name: str
    modality: Modality | None
    gates: tuple[Gate, ...] = (_F1, _KL)
    shown: tuple[str, ...] = ()

    def compare(self, golden: Golden, outputs: Sequence[Outputs]) -> Comparison:
        """Compare by the F1 of the labels given, those of the float model taken for the truth, and by KL."""
        f1, kl = self.gates
        name = golden.output_names[0]
        pairs = sample_pairs(golden, outputs, name)
        given = [(pair.reference, pair.other) for pair in pairs]
        divergences = [mean(kl_divergences(_two_classes(a), _two_classes(b))) for a, b in given]
        checks = (gated(f1, _f1(given)), gated(kl, mean(np.array(divergences))))
        return Comparison(checks, (OutputError(name, "kl_nats", tuple(sorted(divergences))),))

    def within(self, max_drop: float, *, labelled: bool) -> dict[str, float]:
        """Return the thresholds of an allowed loss: that much of the F1."""
        return {"label_f1": 1 - max_drop}


def _two_classes(logits: np.ndarray) -> np.ndarray:
    """Logits of any shape → [values, 2]: "no" and "yes", whose softmax is the sigmoid."""
    flat = np.reshape(logits, (-1, 1))
    return np.concatenate([np.zeros_like(flat), flat], axis=-1)


def _f1(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return 2·both / (float's + other's) over all labels of all samples; 1 where neither gives any.

    Source: C. J. van Rijsbergen, "Information Retrieval", 1979; micro-averaged.
    """
    if not all(np.isfinite(array).all() for pair in pairs for array in pair):
        return math.nan
    both = sum(int(((a > 0) & (b > 0)).sum()) for a, b in pairs)
    either = sum(int((a > 0).sum() + (b > 0).sum()) for a, b in pairs)
    return 2 * both / either if either else 1.0
