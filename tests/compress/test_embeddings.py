"""A factorized table: exact at full rank, closest where it counts, and refused where it would not help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.compress.base import Data
from edgekit.compress.embeddings import cosine_rotation, factorize_embeddings, factors, smoothed, token_counts
from edgekit.compress.vocabulary import trim_vocabulary
from edgekit.compression import EmbeddingOptions, VocabularyOptions
from edgekit.data import Sample
from edgekit.errors import ModelError, RecipeError
from edgekit.model import ModelRef, TorchModel
from edgekit.source import load
from edgekit.structure import LowRankEmbedding, difference, rebuild
from tests.compress.families import tiny_transformer

TEXTS = tuple(Sample(text) for text in ("the cat sat on the mat", "a dog runs with other dogs", "the sea"))
TABLES = st.tuples(st.integers(2, 20), st.integers(2, 9), st.integers(0, 2**32 - 1))


def table_of(shape: tuple[int, int, int]) -> tuple[torch.Tensor, np.ndarray]:
    tokens, dim, seed = shape
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 50, (tokens,), generator=generator).numpy()
    return torch.randn(tokens, dim, generator=generator), smoothed(counts)


def error(rows: torch.Tensor, weights: np.ndarray, product: torch.Tensor) -> float:
    return float(((rows - product).double().square().sum(1) * torch.from_numpy(weights)).sum())


class TestTheProduct:
    @given(shape=TABLES)
    def test_of_full_rank_is_the_table(self, shape) -> None:
        rows, weights = table_of(shape)
        found = factors(rows, weights, rows.shape[1])
        assert torch.allclose(found.table @ found.widen, rows.double(), atol=1e-10)

    @given(shape=TABLES, rank=st.integers(1, 9), nudge=st.integers(0, 99))
    def test_is_closer_than_its_neighbours_and_than_the_even_one(self, shape, rank, nudge) -> None:
        rows, weights = table_of(shape)
        rank = min(rank, rows.shape[1])
        found = factors(rows, weights, rank)
        best = error(rows, weights, found.table @ found.widen)
        even = factors(rows, smoothed(np.zeros(len(rows))), rank)
        assert best <= error(rows, weights, even.table @ even.widen) + 1e-9
        noise = torch.Generator().manual_seed(nudge)
        other = found.widen + 0.01 * torch.randn(found.widen.shape, generator=noise, dtype=torch.float64)
        fitted = torch.linalg.lstsq(other.T, rows.double().T).solution.T
        assert best <= error(rows, weights, fitted @ other) + 1e-9

    @given(shape=TABLES, rank=st.integers(1, 9))
    def test_loses_the_energy_of_the_directions_that_went(self, shape, rank) -> None:
        rows, weights = table_of(shape)
        rank = min(rank, rows.shape[1])
        found = factors(rows, weights, rank)
        singular = torch.linalg.svdvals(rows.double() * torch.from_numpy(weights).sqrt()[:, None])
        lost = error(rows, weights, found.table @ found.widen)
        assert lost == pytest.approx(float(singular[rank:].square().sum()), abs=1e-9)

    @settings(max_examples=20)
    @given(size=st.integers(1, 40))
    def test_is_rotated_without_loss(self, size) -> None:
        rotation = cosine_rotation(size)
        assert torch.allclose(rotation @ rotation.T, torch.eye(size, dtype=torch.float64), atol=1e-12)

    def test_spreads_the_energy_of_a_row_over_its_numbers(self) -> None:
        generator = torch.Generator().manual_seed(0)
        steep = torch.randn(200, 16, generator=generator) * 2.0 ** -torch.arange(16)
        found = factors(steep, smoothed(np.zeros(200)), 16)
        plain = steep.abs().amax(1) / steep.norm(dim=1)
        rotated = found.table.abs().amax(1) / found.table.norm(dim=1)
        assert rotated.mean() < 0.7 * plain.mean()


class TestAFactorizedModel:
    @pytest.fixture(scope="class")
    def model(self, tiny_bert_dir: Path, tmp_path_factory) -> TorchModel:
        return load(ModelRef(str(tiny_bert_dir)), None, scratch=tmp_path_factory.mktemp("scratch"))

    @pytest.fixture
    def data(self, tmp_path: Path) -> Data:
        return Data(TEXTS, None, tmp_path)  # nothing here judges

    def test_counts_the_tokens_that_the_model_reads(self, model) -> None:
        counts = token_counts(model, TEXTS, 500)
        ids = model.preprocessor.tokenizer.token_to_id
        assert counts[ids("[CLS]")] == counts[ids("[SEP]")] == 3
        assert counts[ids("the")] == 3
        assert counts[ids("[PAD]")] == 0

    def test_is_smaller_and_does_what_the_product_says(self, model, data) -> None:
        new = factorize_embeddings(model, EmbeddingOptions(rank=8), data)
        table = new.module.model.get_input_embeddings()
        assert isinstance(table, LowRankEmbedding)
        old = model.module.model.get_input_embeddings().weight
        facts = new.history[-1].facts
        assert facts["parameters_before"] - facts["parameters_after"] == old.numel() - 8 * sum(old.shape)
        product = factors(old.detach(), smoothed(token_counts(model, TEXTS, len(old))), 8)
        rows = table(torch.arange(len(old)))
        assert torch.allclose(rows, (product.table @ product.widen).float(), atol=1e-5)
        assert type(model.module.model.get_input_embeddings()) is torch.nn.Embedding

    def test_keeps_more_of_the_tokens_in_the_data_than_the_even_control(self, model, data) -> None:
        kept = {
            weighting: factorize_embeddings(model, EmbeddingOptions(rank=8, weighting=weighting), data)
            .history[-1]
            .facts["energy_kept"]
            for weighting in ("frequency", "uniform")
        }
        assert kept["frequency"]["occurrences"] > kept["uniform"]["occurrences"] + 0.05
        assert kept["frequency"]["tokens"] < kept["uniform"]["tokens"]

    def test_is_told_by_its_structure(self, model, data) -> None:
        import copy

        new = factorize_embeddings(model, EmbeddingOptions(rank=8), data).module
        structure = difference(model.module, new)
        assert structure.low_rank == {"model.embeddings.word_embeddings": 8}
        again = copy.deepcopy(model.module)
        rebuild(again, structure, "here")
        again.load_state_dict(new.state_dict())
        ids = torch.tensor([[2, 9, 60, 3]])
        with torch.no_grad():
            assert torch.equal(again.model.get_input_embeddings()(ids), new.model.get_input_embeddings()(ids))

    def test_can_have_its_vocabulary_trimmed_afterwards(self, model, data, tmp_path) -> None:
        (tmp_path / "corpus.txt").write_text("the cat sat on the mat\n")
        low = factorize_embeddings(model, EmbeddingOptions(rank=8), data)
        options = VocabularyOptions(tokens=130, data=str(tmp_path / "corpus.txt"))
        new = trim_vocabulary(low, options, data).module.model.get_input_embeddings()
        assert new.num_embeddings == len(new.table.weight) == new.table.num_embeddings == 130

    def test_the_same_data_makes_the_same_bytes(self, model, data) -> None:
        once, again = (
            factorize_embeddings(model, EmbeddingOptions(rank=8), data).module.state_dict() for _ in range(2)
        )
        assert all(torch.equal(once[name], again[name]) for name in once)

    def test_a_rank_that_saves_nothing_is_refused_with_the_largest_that_does(self, model, data) -> None:
        with pytest.raises(RecipeError, match="no smaller") as refused:
            factorize_embeddings(model, EmbeddingOptions(rank=32), data)
        most = int(refused.value.hint.split()[2])
        new = factorize_embeddings(model, EmbeddingOptions(rank=most), data)
        facts = new.history[-1].facts
        assert facts["parameters_after"] < facts["parameters_before"]
        with pytest.raises(RecipeError, match="no smaller"):
            factorize_embeddings(model, EmbeddingOptions(rank=most + 1), data)

    def test_a_second_factorization_is_refused(self, model, data) -> None:
        new = factorize_embeddings(model, EmbeddingOptions(rank=8), data)
        with pytest.raises(ModelError, match="of rank 8 already"):
            factorize_embeddings(new, EmbeddingOptions(rank=4), data)

    def test_a_table_that_is_also_the_head_is_refused(self, data) -> None:
        tied = tiny_transformer("gpt2")
        tied.module.model.tie_weights()
        with pytest.raises(ModelError, match="same table"):
            factorize_embeddings(tied, EmbeddingOptions(rank=4), data)

    def test_a_model_of_images_is_refused(self, data) -> None:
        with pytest.raises(ModelError, match="no table of token embeddings"):
            factorize_embeddings(replace(tiny_transformer("vit"), name="vit"), EmbeddingOptions(rank=4), data)
