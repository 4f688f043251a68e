"""Removing a part is the same as silencing it, in every family; what is removed is really gone."""

from __future__ import annotations

import pytest
import torch

from edgekit.compress.anatomy import (
    FAMILIES,
    family_of,
    keep_heads,
    keep_neurons,
    layers_of,
    matrix_of,
    set_matrix,
)
from edgekit.compress.base import branch, parameters_of
from edgekit.errors import ModelError
from tests.compress.families import CONFIGS, run_example, tiny_transformer

KINDS = sorted(CONFIGS)


def _silence(matrix, columns) -> None:
    weight = matrix_of(matrix).clone()
    weight[:, columns] = 0
    set_matrix(matrix, weight)


def test_every_family_is_tried_here() -> None:
    same = {"xlm-roberta": "roberta", "camembert": "roberta"}
    assert {same.get(kind, kind) for kind in FAMILIES} == set(CONFIGS)


@pytest.mark.parametrize("kind", KINDS)
class TestFamily:
    def test_says_the_sizes_of_each_layer(self, kind) -> None:
        found = [(la.index, la.heads, la.head_dim, la.neurons) for la in layers_of(tiny_transformer(kind))]
        assert found == [(0, 4, 8, 48), (1, 4, 8, 48), (2, 4, 8, 48)]

    def test_removing_neurons_is_silencing_them(self, kind) -> None:
        model = tiny_transformer(kind)
        silenced, smaller = branch(model), branch(model)
        kept = [index for index in range(48) if index % 3]
        for layer in layers_of(silenced):
            _silence(layer.part(layer.family.down), [i for i in range(48) if i not in kept])
        for layer in layers_of(smaller):
            keep_neurons(layer, kept)
        torch.testing.assert_close(run_example(smaller), run_example(silenced), rtol=1e-5, atol=1e-5)
        assert parameters_of(smaller.module) < parameters_of(model.module)
        assert [layer.neurons for layer in layers_of(smaller)] == [32, 32, 32]

    def test_removing_heads_is_silencing_them(self, kind) -> None:
        model = tiny_transformer(kind)
        if family_of(model).fixed_heads:
            return
        silenced, smaller = branch(model), branch(model)
        share = layers_of(model)[0].heads // layers_of(model)[0].kv_heads
        kept = [1] if share == 2 else [0, 2, 3]
        columns = [i for i in range(32) if i // 8 // share not in kept]
        for layer in layers_of(silenced)[1:]:
            _silence(layer.part(layer.family.output), columns)
        for layer in layers_of(smaller)[1:]:
            keep_heads(layer, kept)
        torch.testing.assert_close(run_example(smaller), run_example(silenced), rtol=1e-5, atol=1e-5)
        assert [layer.heads for layer in layers_of(smaller)] == [4, *2 * [len(kept) * share]]

    def test_a_branch_leaves_the_model_as_it_was(self, kind) -> None:
        model = tiny_transformer(kind)
        before = run_example(model)
        for layer in layers_of(branch(model)):
            keep_neurons(layer, range(16))
        assert torch.equal(run_example(model), before)


def test_a_branch_shares_the_weights() -> None:
    model = tiny_transformer("bert")
    pairs = zip(model.module.parameters(), branch(model).module.parameters(), strict=True)
    assert all(first is second for first, second in pairs)


def test_an_unknown_architecture_is_refused_by_name() -> None:
    model = tiny_transformer("bert")
    model.module.model.config.model_type = "mystery"
    with pytest.raises(ModelError, match="'mystery' model are not known"):
        layers_of(model)
