"""Embeddings: one vector per text (`sentence-embedding`) or per token (`feature-extraction`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.golden import Golden
from edgekit.record import Check, OutputError
from edgekit.tasks.base import Comparison, Gate, Modality, Outputs, gated
from edgekit.tasks.measures import SamplePair, cosines, mean, percentile, sample_pairs, spearman

RANKED_SAMPLES = 512
"""Most samples whose similarities are ranked: they make 130 816 pairs, and the work grows with the square."""

_COSINE_MEAN = "Cosine similarity to the float model, mean"
_COSINE_P05 = "Cosine similarity to the float model, 5th percentile"

_SENTENCE_GATES = (
    Gate(
        "cosine_mean",
        _COSINE_MEAN,
        ">=",
        0.990,
        "well-placed int8 reaches 0.994 to 0.998 on all-MiniLM-L6-v2; less than 0.99 says that the placement "
        "or a range is wrong",
    ),
    Gate(
        "cosine_p05",
        _COSINE_P05,
        ">=",
        0.985,
        "a mean hides single texts that break; 19 of 20 have to stay within 10 degrees",
    ),
    Gate(
        "rank_correlation",
        "Rank correlation of pairwise similarities",
        ">=",
        0.98,
        "search and clustering use the order of the similarities, not the vectors themselves",
    ),
)

_TOKEN_GATES = (
    Gate(
        "cosine_mean",
        _COSINE_MEAN,
        ">=",
        0.98,
        "single token vectors carry more rounding noise than their pooled mean, where it averages out",
    ),
    Gate("cosine_p05", _COSINE_P05, ">=", 0.95, "19 of 20 tokens have to stay within 18 degrees"),
)


@dataclass(frozen=True)
class SentenceEmbedding:
    """One output [batch, dim]; what counts is its direction and the order of similarities."""

    name: str = "sentence-embedding"
    modality: Modality | None = "text"
    gates: tuple[Gate, ...] = _SENTENCE_GATES
    shown: tuple[str, ...] = ("cosine_min",)

    def compare(self, golden: Golden, outputs: Sequence[Outputs]) -> Comparison:
        """Compare by cosine per sample and by the rank correlation of pairwise cosines."""
        return _compare(self.gates, golden, outputs)

    def within(self, max_drop: float, *, labelled: bool) -> dict[str, float]:
        """Return the thresholds of an allowed loss: that much of mean cosine and rank correlation."""
        return {"cosine_mean": 1 - max_drop, "rank_correlation": 1 - max_drop}


@dataclass(frozen=True)
class FeatureExtraction:
    """One output [batch, sequence, dim], compared token by token without the padding."""

    name: str = "feature-extraction"
    modality: Modality | None = None
    gates: tuple[Gate, ...] = _TOKEN_GATES
    shown: tuple[str, ...] = ("cosine_min",)

    def compare(self, golden: Golden, outputs: Sequence[Outputs]) -> Comparison:
        """Compare by cosine per token."""
        return _compare(self.gates, golden, outputs)

    def within(self, max_drop: float, *, labelled: bool) -> dict[str, float]:
        """Return the threshold of an allowed loss: that much of the mean cosine."""
        return {"cosine_mean": 1 - max_drop}


def _compare(gates: tuple[Gate, ...], golden: Golden, outputs: Sequence[Outputs]) -> Comparison:
    """Compare every output; of several, the worst figure counts."""
    checks: list[Check] = []
    errors: list[OutputError] = []
    measured: dict[str, list[float]] = {gate.name: [] for gate in gates}
    lowest: list[float] = []
    for name in golden.output_names:
        pairs = sample_pairs(golden, outputs, name)
        per_sample = [cosines(pair.reference, pair.other) for pair in pairs]
        every = np.concatenate(per_sample)
        measured["cosine_mean"].append(mean(every))
        measured["cosine_p05"].append(percentile(every, 5))
        lowest.append(percentile(every, 0))
        if "rank_correlation" in measured:
            measured["rank_correlation"].append(_rank_correlation(pairs))
        errors.append(OutputError(name, "cosine", tuple(sorted(mean(values) for values in per_sample))))
    # np.min and not min(): the built-in loses a NaN
    checks += [gated(gate, float(np.min(measured[gate.name]))) for gate in gates]
    checks.append(Check("cosine_min", "Cosine similarity to the float model, lowest", float(np.min(lowest))))
    return Comparison(tuple(checks), tuple(errors))


def _rank_correlation(pairs: list[SamplePair]) -> float:
    """Return the Spearman correlation of all pairwise cosines, of at most `RANKED_SAMPLES` samples."""

    def similarities(vectors: list[np.ndarray]) -> np.ndarray:
        rows = np.concatenate(vectors)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            rows = rows / np.where(norms == 0, 1.0, norms)
        return np.asarray((rows @ rows.T)[np.triu_indices(len(rows), k=1)])

    ranked = pairs[:RANKED_SAMPLES]
    return spearman(similarities([p.reference for p in ranked]), similarities([p.other for p in ranked]))
