"""What a unit is worth: no worth where it does nothing, true worth where the truth can be computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgekit.compress.anatomy import matrix_of, set_matrix
from edgekit.compress.base import batches, branch
from edgekit.compress.importance import look, parts_of, rank
from edgekit.compress.surgeon import eliminate
from edgekit.errors import ModelError
from tests.compress.families import CONFIGS, tiny_transformer
from tests.compress.samples import samples_of, with_data

METHODS = ("surgeon", "fisher", "activation", "magnitude", "random")


@pytest.fixture
def tiny(tmp_path):
    def make(kind: str, **sizes):
        return with_data(tiny_transformer(kind), tmp_path, **{"fit": 16, "judge": 4, **sizes})

    return make


def _mask_gradient(model, data, loss) -> float:
    """Return the largest gradient of a loss between a model and itself with respect to masks of ones."""
    part, largest = parts_of(model)[1], 0.0
    matrix = model.module.get_submodule(part.matrix)
    for inputs in batches(model, data.fit):
        with torch.no_grad():
            target = next(iter(model.module(**inputs).values()))
        mask = torch.ones(part.units, requires_grad=True)
        handle = matrix.register_forward_pre_hook(lambda _, args, mask=mask: (args[0] * mask,))
        output = next(iter(model.module(**inputs).values()))
        handle.remove()
        largest = max(largest, float(torch.autograd.grad(loss(output, target), mask)[0].abs().max()))
    return largest


class TestFisher:
    def test_a_model_against_itself_has_no_gradient_but_this_tells_worths(self, tiny) -> None:
        model, data = tiny("bert")
        assert _mask_gradient(model, data, torch.nn.functional.mse_loss) == 0.0
        worths = rank(model, parts_of(model), "fisher", data)
        assert all(ranking.lost[0] > 0 for ranking in worths.values())

    @pytest.mark.parametrize("task", ["feature-extraction", "token-classification"])
    def test_labels_and_directions_both_tell_worths(self, tiny, task) -> None:
        model, data = tiny("llama")
        worths = rank(replace(model, task=task), parts_of(model), "fisher", data)
        assert all(ranking.lost[0] > 0 for ranking in worths.values())

    def test_it_is_the_energy_of_the_jacobian(self, tiny) -> None:
        model, data = tiny("bert", fit=64)
        data = replace(data, fit=data.fit[:1] * 1024)  # one sample with 1024 and more random directions
        part = parts_of(model)[1]
        found = rank(model, [part], "fisher", data)[part.matrix]
        mask = torch.ones(part.units)
        (inputs,) = batches(model, data.fit[:1])
        matrix = model.module.get_submodule(part.matrix)

        def masked(mask: torch.Tensor) -> torch.Tensor:
            handle = matrix.register_forward_pre_hook(lambda _, args: (args[0] * mask,))
            output = next(iter(model.module(**inputs).values()))
            handle.remove()
            return output

        jacobian = torch.autograd.functional.jacobian(masked, mask)
        truth = jacobian.reshape(-1, part.units).square().sum(0).double().numpy()
        worth = np.empty(part.units)
        worth[list(found.order)] = -np.diff(found.lost)
        # 2048 directions leave an error of √(2 / 2048), 3%.
        np.testing.assert_allclose(worth, truth, rtol=0.2)

    def test_padding_counts_for_nothing(self, tiny) -> None:
        model, data = tiny("bert")
        part = parts_of(model)[1]
        seen = look(model, [part], data)[part.matrix]
        assert seen.tokens == sum(len(sample.value["input_ids"]) for sample in data.fit)
        assert seen.samples == len(data.fit)


@pytest.mark.parametrize("method", METHODS[:-1])
@pytest.mark.parametrize("kind", ["bert", "llama", "gpt2", "modernbert"])
def test_silent_units_are_worth_nothing_and_go_first(tiny, kind, method) -> None:
    model, data = tiny(kind)
    silenced = branch(model)
    for part in parts_of(silenced):
        matrix = silenced.module.get_submodule(part.matrix)
        weight = matrix_of(matrix).clone()
        weight[:, : part.columns] = 0  # unit 0
        set_matrix(matrix, weight)
    for ranking in rank(silenced, parts_of(silenced), method, data).values():
        units = len(ranking.order)
        assert ranking.order[-1] == 0
        assert ranking.lost[units - 1] == pytest.approx(0, abs=1e-9 * ranking.lost[0])
        assert ranking.lost[units] == 0
        assert all(a >= b >= 0 for a, b in zip(ranking.lost, ranking.lost[1:], strict=False))
        assert sorted(ranking.order) == list(range(units))


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_every_family_can_be_ranked(tiny, kind) -> None:
    model, data = tiny(kind)
    rankings = rank(model, parts_of(model), "fisher", data)
    groups = 2 if kind in ("llama", "mistral", "qwen2", "qwen3") else 4
    assert [len(ranking.order) for ranking in rankings.values()] == [groups, 48] * 3
    assert all(ranking.lost[0] > 0 for ranking in list(rankings.values())[:-2])


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_order(tiny, method) -> None:
    model, data = tiny("bert")
    first, second = (rank(model, parts_of(model), method, data) for _ in range(2))
    assert first == second


def test_second_moments_of_one_part_at_a_time_give_the_same_order(tiny) -> None:
    model, data = tiny("bert")
    together = rank(model, parts_of(model), "surgeon", data)
    apart = {part.matrix: rank(model, [part], "surgeon", data)[part.matrix] for part in parts_of(model)}
    assert {name: r.order for name, r in together.items()} == {name: r.order for name, r in apart.items()}
    for name, ranking in together.items():
        np.testing.assert_allclose(ranking.lost, apart[name].lost, rtol=1e-5)


def test_random_is_another_order_with_another_seed(tiny) -> None:
    model, data = tiny("bert")
    parts = parts_of(model)
    first, second = (rank(model, parts, "random", replace(data, seed=seed)) for seed in (0, 1))
    assert first[parts[1].matrix].order != second[parts[1].matrix].order


@pytest.mark.parametrize("method", ["surgeon", "fisher", "activation", "magnitude"])
def test_worths_that_are_not_finite_are_refused(tiny, method) -> None:
    model, data = tiny("bert")
    part = parts_of(model)[1]
    matrix = model.module.get_submodule(part.matrix)
    set_matrix(matrix, torch.full_like(matrix_of(matrix), float("nan")))
    with pytest.raises(ModelError, match="not finite"):
        rank(model, parts_of(model), method, data)


class TestSurgeon:
    def test_what_is_lost_is_what_least_squares_cannot_make_up(self) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(400, 12)) @ (np.eye(12) + 0.2 * rng.normal(size=(12, 12)))
        reader = rng.normal(size=(12, 5))
        order, lost = eliminate(
            torch.tensor(x.T @ x / 400), torch.tensor(reader), torch.eye(5, dtype=torch.float64), 1
        )
        for count in (11, 8, 4):
            kept = sorted(order[:count])
            refitted = np.linalg.lstsq(x[:, kept], x @ reader, rcond=None)[0]
            error = np.square(x[:, kept] @ refitted - x @ reader).sum() / 400
            assert lost[count] == pytest.approx(error, rel=0.1)

    def test_one_of_two_equal_inputs_is_free(self) -> None:
        x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x[:, 5] = 2 * x[:, 1]
        spread, reader = x.T @ x / 300, torch.ones(6, 3, dtype=torch.float64)
        order, lost = eliminate(spread, reader, torch.eye(3, dtype=torch.float64), 1)
        assert order[-1] in (1, 5)
        assert lost[5] < 0.01 * lost[4]

    def test_columns_of_a_unit_go_together(self) -> None:
        x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x[:, 2:4] *= 0.01
        order, lost = eliminate(x.T @ x / 300, torch.eye(6).double(), torch.eye(6).double(), 2)
        assert order[-1] == 1
        assert len(lost) == 4

    def test_outputs_that_do_not_matter_make_an_input_worthless(self) -> None:
        steepness = torch.diag(torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
        order, lost = eliminate(torch.eye(3).double(), torch.eye(3).double(), steepness, 1)
        assert order[-1] == 1
        assert lost[2] == pytest.approx(0, abs=1e-12)
        assert lost[1] == pytest.approx(1, rel=0.01)


def test_samples_of_one_length_and_of_many_can_be_looked_at(tiny) -> None:
    model, data = tiny("vit")
    part = parts_of(model)[0]
    seen = look(model, [part], replace(data, fit=samples_of(model, 3)))[part.matrix]
    assert (seen.samples, seen.tokens) == (3, 3 * 17)
