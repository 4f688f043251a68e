"""Layers go whole, and what is left is a model that its configuration builds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.compress import layers as room
from edgekit.compress.anatomy import layer_list, layers_of, matrix_of, set_matrix
from edgekit.compress.base import branch
from edgekit.compress.layers import drop_layers, every_kth, influences, with_layers
from edgekit.compression import LayerOptions
from edgekit.errors import ModelError, RecipeError
from edgekit.structure import difference
from tests.compress.families import CONFIGS, run_example, tiny_transformer
from tests.compress.samples import with_data

KINDS = sorted(CONFIGS)


def _silenced(model, index: int):
    """Return a branch in which a layer adds nothing to what runs through it."""
    silent = branch(model)
    layer = layers_of(silent)[index]
    for name in (layer.family.output, layer.family.down):
        matrix = layer.part(name)
        bias = None if matrix.bias is None else torch.zeros_like(matrix.bias)
        set_matrix(matrix, torch.zeros_like(matrix_of(matrix)), bias)
    return silent


@pytest.mark.parametrize("kind", KINDS)
class TestFamily:
    def test_the_configuration_builds_what_is_left(self, kind) -> None:
        smaller = with_layers(tiny_transformer(kind), (0, 2))
        inner = smaller.module.model
        config = type(inner.config).from_dict(inner.config.to_dict())
        fresh = type(inner)._from_config(config, attn_implementation="eager").eval()
        assert difference(fresh, inner).empty
        fresh.load_state_dict(inner.state_dict())
        for (
            name,
            values,
        ) in fresh.named_buffers():  # the tiny models' rotary frequencies are not computed ones
            values.copy_(inner.get_buffer(name))
        wanted = run_example(smaller)
        smaller.module.model = fresh
        assert torch.equal(run_example(smaller), wanted)

    def test_all_layers_are_the_model_itself(self, kind) -> None:
        model = tiny_transformer(kind)
        assert torch.equal(run_example(with_layers(model, (0, 1, 2))), run_example(model))

    def test_layers_run_in_their_order_without_the_dropped(self, kind) -> None:
        model = tiny_transformer(kind)
        wanted = [layer.module for layer in layers_of(model)]
        ran: list[int] = []
        smaller = with_layers(model, (0, 2))
        for index, layer in enumerate(layers_of(smaller)):
            layer.module.register_forward_hook(lambda *_, index=index: ran.append(index))
        run_example(smaller)
        assert ran == [0, 1]
        weights = [next(layer.module.parameters()) for layer in layers_of(smaller)]
        assert weights[1] is next(wanted[2].parameters())

    def test_a_search_leaves_the_model_as_it_was(self, kind, tmp_path) -> None:
        model, data = with_data(tiny_transformer(kind), tmp_path, fit=8, judge=4)
        before = run_example(model)
        smaller = drop_layers(model, LayerOptions(keep=2, choose="influence"), data)
        assert torch.equal(run_example(model), before)
        assert len(layers_of(model)) == 3
        assert len(layers_of(smaller)) == smaller.module.model.config.num_hidden_layers == 2
        assert len(smaller.history[-1].facts["influences"]) == 3


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "vit", "modernbert"])
def test_a_layer_that_adds_nothing_has_no_influence_and_goes_first(kind, tmp_path) -> None:
    model, data = with_data(_silenced(tiny_transformer(kind), 1), tmp_path)
    assert influences(model, data.fit)[1] == pytest.approx(0, abs=1e-9)
    for choose in ("influence", "similarity"):
        smaller = drop_layers(model, LayerOptions(keep=2, choose=choose), data)
        assert smaller.history[-1].facts["kept"] == [0, 2]
        assert smaller.history[-1].facts["loss"] == pytest.approx(0, abs=1e-9)


def test_similarity_takes_the_best_of_all_subsets(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path)
    facts = drop_layers(model, LayerOptions(keep=2, repair=False), data).history[-1].facts
    losses = {kept: data.judge.loss(with_layers(model, kept)) for kept in ((0, 1), (0, 2), (1, 2))}
    assert tuple(facts["kept"]) == min(losses, key=losses.__getitem__)
    assert facts["loss"] == pytest.approx(min(losses.values()))
    assert facts["random_mean_loss"] == pytest.approx(sum(losses.values()) / 3)
    assert facts["every_kth"]["loss"] == pytest.approx(losses[0, 1])
    assert facts["subsets"] == 3


def test_greedy_removal_is_no_worse_than_evenly_spaced(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(room, "ALL_SUBSETS", 1)
    model, data = with_data(tiny_transformer("gpt2"), tmp_path)
    facts = drop_layers(model, LayerOptions(keep=1), data).history[-1].facts
    assert "greedy" in facts["search"]
    assert facts["loss"] <= facts["every_kth"]["loss"]


def test_many_subsets_are_sifted_on_few_samples_first(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(room, "_CLOSELY", 2)
    model, data = with_data(tiny_transformer("bert"), tmp_path)
    facts = drop_layers(model, LayerOptions(keep=2), data).history[-1].facts
    assert (facts["subsets"], len(facts["best"])) == (3, 2)


@pytest.mark.parametrize(("choose", "kept"), [("first", [0, 1]), ("every-kth", [0, 1])])
def test_controls_look_at_nothing(choose, kept, tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path)
    options = LayerOptions(keep=2, choose=choose, repair=False)
    facts = drop_layers(model, options, replace(data, fit=())).history[-1].facts
    assert facts["kept"] == kept


@pytest.mark.parametrize("kind", ["bert", "distilbert", "vit", "llama", "gpt2", "modernbert"])
def test_layers_that_stay_learn_from_those_that_went(kind, tmp_path) -> None:
    model, data = with_data(tiny_transformer(kind), tmp_path, fit=48)
    facts = drop_layers(model, LayerOptions(keep=(0, 2)), data).history[-1].facts
    assert facts["loss"] < facts["loss_dropped"]
    assert any(fit["like_layer"] == 1 for fit in facts["fits"]), "layer 0 takes the place of layer 1"


def test_repair_leaves_the_model_that_it_was_given_alone(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path)
    before = [tensor.clone() for tensor in model.module.state_dict().values()]
    drop_layers(model, LayerOptions(keep=1), data)
    assert all(map(torch.equal, before, model.module.state_dict().values()))


def test_random_layers_are_the_same_for_the_same_seed(tmp_path) -> None:
    model, data = with_data(tiny_transformer("modernbert"), tmp_path, fit=4, judge=4)
    options = LayerOptions(keep=2, choose="random")
    kept = [
        drop_layers(model, options, replace(data, seed=seed)).history[-1].facts["kept"]
        for seed in (0, 0, 1, 2, 3, 4)
    ]
    assert kept[0] == kept[1]
    assert {tuple(k) for k in kept} == {(0, 1), (0, 2)}, "layer 0 stays, either other one may go"


def test_named_layers_are_kept(tmp_path) -> None:
    model, data = with_data(tiny_transformer("llama"), tmp_path)
    facts = drop_layers(model, LayerOptions(keep=(1, 2)), data).history[-1].facts
    assert (facts["kept"], facts["choose"]) == ([1, 2], "given")
    assert 0 < facts["parameters_after"] < facts["parameters_before"]


@given(count=st.integers(1, 60), data=st.data())
def test_evenly_spaced_layers_are_distinct_and_begin_with_the_first(count, data) -> None:
    number = data.draw(st.integers(1, count))
    kept = every_kth(count, number)
    assert len(set(kept)) == number
    assert list(kept) == sorted(kept)
    assert (kept[0], kept[-1] < count) == (0, True)
    steps = [b - a for a, b in pairwise(kept)]
    assert not steps or max(steps) - min(steps) <= 1


@pytest.mark.parametrize("keep", [4, (0, 3), (1, 0), (1, 1)])
def test_layers_that_are_not_there_are_refused(keep, tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path, judge=4)
    with pytest.raises(RecipeError, match=r"\[compress\] layers.keep"):
        drop_layers(model, LayerOptions(keep=keep), data)


def test_modernberts_first_layer_stays_the_first(tmp_path) -> None:
    model, data = with_data(tiny_transformer("modernbert"), tmp_path, judge=4)
    with pytest.raises(RecipeError, match="layer 0 has to stay the first"):
        drop_layers(model, LayerOptions(keep=(1, 2)), data)
    smaller = drop_layers(model, LayerOptions(keep=1), data)
    assert smaller.history[-1].facts["kept"] == [0]
    assert smaller.history[-1].skipped[0].what == "layer 0"


def test_layers_that_count_themselves_are_refused(tmp_path) -> None:
    model, data = with_data(tiny_transformer("gpt2"), tmp_path, judge=4)
    layers_of(model)[0].module.attn.scale_attn_by_inverse_layer_idx = True
    with pytest.raises(ModelError, match="by its own place"):
        drop_layers(model, LayerOptions(keep=2), data)


def test_a_list_of_layers_is_found_by_its_family() -> None:
    name, blocks = layer_list(tiny_transformer("vit"))
    assert (name, len(blocks)) == ("model.layers", 3)
