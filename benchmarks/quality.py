"""How close an artifact's embeddings are to the float model's, and what that does to retrieval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgekit.tasks.measures import cosines, spearman

Run = Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]
"""Inputs of one text → the graph's outputs."""


def embed(run: Run, names: Sequence[str], tokens: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Embed texts one by one, as an application does: [texts, dim], unit vectors.

    Args:
        run: The artifact.
        names: Of its outputs, in order.
        tokens: Inputs of each text, [1, length].
    """
    return np.concatenate([pooled(dict(zip(names, run(text), strict=True))) for text in tokens])


def pooled(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Outputs of one unpadded text → its unit vector [1, dim].

    Where a graph ends in tokens [1, length, dim] instead of a sentence, they are averaged here.
    """
    vectors = outputs.get("sentence_embedding")
    if vectors is None:
        vectors = next(value.mean(axis=1) for value in outputs.values() if value.ndim == 3)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms == 0, 1, norms), np.float64)


def compare(reference: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Return the figures of quality.

    Args:
        reference: Embeddings of the float model, queries first, then their answers: [2 x pairs, dim].
        other: The artifact's, the same shape.
    """
    cosine = cosines(reference, other)
    return {
        "rank_correlation": spearman(_similarities(reference), _similarities(other)),
        "cosine_mean": float(cosine.mean()),
        "cosine_p05": float(np.percentile(cosine, 5)),
        "recall_at_1": recall_at_1(other),
    }


def recall_at_1(embeddings: np.ndarray) -> float:
    """Return how often a query's own answer is the nearest of all: queries, then answers [2 x pairs, dim]."""
    queries, answers = np.split(embeddings, 2)
    nearest = np.argmax(queries @ answers.T, axis=1)
    return float(np.mean(nearest == np.arange(len(queries))))


def _similarities(embeddings: np.ndarray) -> np.ndarray:
    return np.asarray((embeddings @ embeddings.T)[np.triu_indices(len(embeddings), k=1)])
