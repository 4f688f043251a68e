"""How far two sets of outputs are apart: plain numpy, float64, NaN stays NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.errors import ModelError
from edgekit.golden import Golden
from edgekit.tasks.base import Outputs

_MASK = "attention_mask"

PERFECT_DB = 150.0
"""The signal-to-noise ratio of equal outputs, which is unbounded: a float32 has 24 bits, 144.5 dB."""


@dataclass(frozen=True)
class SamplePair:
    """One sample's output from the float model and from another, padding left out.

    Attributes:
        reference: float64 [positions, dim]; an output without a sequence has one position.
        other: The same shape.
        labels: int64 [positions], or None where there are none.
    """

    reference: np.ndarray
    other: np.ndarray
    labels: np.ndarray | None = None


def sample_pairs(golden: Golden, outputs: Sequence[Outputs], name: str) -> list[SamplePair]:
    """Return one output's pairs, one per sample of the golden.

    Args:
        golden: What the float model gave.
        outputs: One mapping per batch of the golden.
        name: The output.

    Raises:
        ModelError: The output is missing or its shape is not the golden's.
    """
    masked = _runs_along_sequence(golden, name)
    pairs: list[SamplePair] = []
    for batch, got in zip(golden.batches, outputs, strict=True):
        reference = batch.outputs[name]
        if name not in got:
            raise ModelError(f"the model gives no output '{name}', only {', '.join(got)}")
        other = np.asarray(got[name])
        if other.shape != reference.shape:
            raise ModelError(
                f"output '{name}' has shape {other.shape}, the recorded one has {reference.shape}"
            )
        for index in range(batch.size):
            first, second = (_vectors(array[index], masked) for array in (reference, other))
            labels = None if batch.labels is None else np.reshape(batch.labels[index], -1)
            if masked:
                keep = batch.inputs[_MASK][index].astype(bool)
                first, second = first[keep], second[keep]
                labels = labels[keep] if labels is not None and labels.shape == keep.shape else labels
            pairs.append(SamplePair(first, second, labels))
    return pairs


def _runs_along_sequence(golden: Golden, name: str) -> bool:
    """Return whether axis 1 of an output is the sequence that the attention mask describes.

    Logits [batch, classes] may have as many classes as one batch has tokens, so two axes only count as a
    sequence where batches of different lengths agree.
    """
    lengths: set[int] = set()
    for batch in golden.batches:
        mask, output = batch.inputs.get(_MASK), batch.outputs[name]
        if mask is None or output.ndim < 2 or mask.shape != output.shape[:2]:
            return False
        lengths.add(mask.shape[1])
    return len(lengths) > 1 or golden.batches[0].outputs[name].ndim > 2


def _vectors(row: np.ndarray, masked: bool) -> np.ndarray:
    """One sample's output → float64 [positions, dim]."""
    shape = (len(row), -1) if masked else (-1, row.shape[-1] if row.ndim else 1)
    return row.reshape(shape).astype(np.float64)


def cosines(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Two arrays [rows, dim] → cosine of each pair of rows [rows].

    Two zero vectors are equal (1); a zero vector has no direction to share with another (0).
    """
    norms = np.linalg.norm(reference, axis=-1), np.linalg.norm(other, axis=-1)
    product = norms[0] * norms[1]
    dot = np.einsum("rd,rd->r", reference, other)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.where(product == 0, (norms[0] == norms[1]).astype(np.float64), dot / product)
    return np.clip(cosine, -1.0, 1.0)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation of two series, ties getting the mean of their ranks.

    1 where both are constant, as there is no order to lose; 0 where only one is. NaN where a value is NaN
    or there are fewer than two.

    Source: C. Spearman, "The proof and measurement of association between two things", 1904.
    """
    if len(a) < 2 or np.isnan(a).any() or np.isnan(b).any():
        return math.nan
    first, second = _ranks(a), _ranks(b)
    first, second = first - first.mean(), second - second.mean()
    spread = math.sqrt(float(first @ first) * float(second @ second))
    if spread == 0:
        return 1.0 if not first.any() and not second.any() else 0.0
    return float(np.clip(first @ second / spread, -1.0, 1.0))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse.reshape(-1)]


def kl_divergences(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Two arrays of logits [rows, classes] → KL(softmax(reference) ‖ softmax(other)) per row, in nats.

    Source: S. Kullback, R. A. Leibler, "On information and sufficiency", 1951.
    """
    with np.errstate(invalid="ignore"):
        p, q = _log_softmax(reference), _log_softmax(other)
        return np.asarray(np.maximum(np.sum(np.exp(p) * (p - q), axis=-1), 0.0))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """Return the signal-to-quantization-noise ratio 20·log10(‖x‖ / ‖x − y‖), in dB within ±`PERFECT_DB`."""
    with np.errstate(invalid="ignore"):
        noise = float(np.linalg.norm(np.ravel(reference - other)))
    signal = float(np.linalg.norm(np.ravel(reference)))
    if math.isnan(noise) or math.isnan(signal):
        return math.nan
    if noise == 0:
        return PERFECT_DB
    if signal == 0:
        return -PERFECT_DB
    return min(max(20 * (math.log10(signal) - math.log10(noise)), -PERFECT_DB), PERFECT_DB)


def max_relative_error(reference: np.ndarray, other: np.ndarray) -> float:
    """Return max|x − y| / max|x|; where x is all zero, max|x − y|."""
    if reference.size == 0:
        return 0.0
    with np.errstate(invalid="ignore"):
        return float(np.max(np.abs(reference - other)) / (np.max(np.abs(reference)) or 1.0))


def mean(values: np.ndarray) -> float:
    """Return the mean, NaN where there are no values."""
    return float(np.mean(values)) if len(values) else math.nan


def percentile(values: np.ndarray, percent: float) -> float:
    """Return a percentile, NaN where there are no values or one of them is NaN."""
    return float(np.percentile(values, percent)) if len(values) else math.nan
