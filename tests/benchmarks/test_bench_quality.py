"""Quality figures: perfect where nothing changed, and blind to no damage."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality import compare, embed, pooled, recall_at_1


@pytest.fixture
def embeddings():
    """Queries and their answers near them: [2 x 20, 8]."""
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((20, 8))
    rows = np.concatenate([queries, queries + 0.05 * rng.standard_normal((20, 8))])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_reference_compared_with_itself_loses_nothing(embeddings) -> None:
    assert compare(embeddings, embeddings) == pytest.approx(
        {"rank_correlation": 1.0, "cosine_mean": 1.0, "cosine_p05": 1.0, "recall_at_1": 1.0}
    )


def test_noise_lowers_every_figure(embeddings) -> None:
    noisy = embeddings + 0.5 * np.random.default_rng(1).standard_normal(embeddings.shape)
    found = compare(embeddings, noisy / np.linalg.norm(noisy, axis=1, keepdims=True))
    assert all(value < 0.97 for value in found.values())
    assert found["cosine_p05"] < found["cosine_mean"]


def test_recall_counts_the_queries_whose_own_answer_is_nearest() -> None:
    queries = np.eye(4)
    answers = np.eye(4)[[0, 1, 3, 2]]
    assert recall_at_1(np.concatenate([queries, answers])) == 0.5


def test_a_graph_that_ends_in_tokens_is_averaged_and_one_that_ends_in_a_sentence_is_not() -> None:
    tokens = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    pooler = np.array([[9.0, 0.0]])
    sentence = np.array([[0.0, 2.0]])
    even = np.full((1, 2), np.sqrt(0.5))
    assert np.allclose(pooled({"last_hidden_state": tokens, "pooler_output": pooler}), even)
    assert np.allclose(pooled({"token_embeddings": tokens, "sentence_embedding": sentence}), [[0.0, 1.0]])


def test_texts_are_embedded_one_by_one() -> None:
    texts = [{"input_ids": np.full((1, length), length)} for length in (3, 5)]
    run = lambda inputs: [np.array([[inputs["input_ids"].shape[1], 4.0]])]  # noqa: E731
    rows = embed(run, ["sentence_embedding"], texts)
    assert np.allclose(rows, [[0.6, 0.8], [5 / np.hypot(5, 4), 4 / np.hypot(5, 4)]])
