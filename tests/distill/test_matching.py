"""Layers are matched by depth or by origin; what is seen of them is what the model computes with."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgekit.compress.anatomy import keep_heads, layers_of
from edgekit.compress.base import branch
from edgekit.compress.layers import with_layers
from edgekit.distill.matching import Projections, layer_map, watched
from edgekit.errors import ModelError
from edgekit.structure import LowRankLinear
from tests.compress.families import CONFIGS, run_example, tiny_transformer

KINDS = sorted(CONFIGS)
CAUSAL = ("llama", "mistral", "qwen2", "qwen3", "gpt2")
ROTATED = ("llama", "mistral", "qwen2", "qwen3", "modernbert")


class TestLayerMap:
    @pytest.mark.parametrize(
        ("student", "teacher", "expected"),
        [
            (4, 12, (2, 5, 8, 11)),
            (6, 6, (0, 1, 2, 3, 4, 5)),
            (4, 6, (1, 2, 4, 5)),
            (1, 6, (5,)),
            (4, 2, (0, 0, 1, 1)),
        ],
    )
    def test_spaces_layers_evenly(self, student, teacher, expected) -> None:
        assert layer_map(student, teacher, None) == expected

    @given(student=st.integers(1, 40), teacher=st.integers(1, 40))
    def test_goes_up_to_the_last_layer_and_never_down(self, student, teacher) -> None:
        found = layer_map(student, teacher, None)
        assert len(found) == student
        assert found[-1] == teacher - 1
        assert list(found) == sorted(found)
        assert found[0] >= 0
        if student <= teacher:
            assert len(set(found)) == student

    @pytest.mark.parametrize(
        ("kept", "expected"),
        [((0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5)), ((0, 2, 5), (1, 4, 5)), ((1, 2), (1, 5)), ((3,), (5,))],
    )
    def test_a_kept_layer_does_the_work_of_those_dropped_behind_it(self, kept, expected) -> None:
        assert layer_map(len(kept), 6, kept) == expected

    @pytest.mark.parametrize("kept", [(), (0,), (0, 0), (2, 1), (0, 6), (-1, 2), (0, 1, 2)])
    def test_refuses_layers_that_the_student_cannot_have_had(self, kept) -> None:
        with pytest.raises(
            ModelError, match=r"the student's 2 layers cannot be layers \[.*\] of the teacher's 6"
        ):
            layer_map(2, 6, kept)

    def test_a_student_whose_dropped_layers_did_nothing_gives_what_it_is_matched_with(self) -> None:
        teacher = tiny_transformer("llama")
        silent = layers_of(teacher)[1]
        for name in (silent.family.output, silent.family.down):
            nn.init.zeros_(silent.part(name).weight)
        student = with_layers(teacher, (0, 2))
        matched = layer_map(2, 3, (0, 2))
        with (
            watched(student, range(2), hidden=True, relations=False) as mine,
            watched(teacher, matched, hidden=True, relations=False) as theirs,
        ):
            run_example(student)
            run_example(teacher)
        for place, like in enumerate(matched):
            torch.testing.assert_close(mine.seen.hidden[place], theirs.seen.hidden[like])


def _inputs(model: Any) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in model.example_inputs.items()}


def _input_of(part: nn.Module, run: Callable[[], object]) -> torch.Tensor:
    """Return what a part is given when `run` runs."""
    found: list[torch.Tensor] = []
    handle = part.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    try:
        run()
    finally:
        handle.remove()
    return found[0]


@pytest.mark.parametrize("kind", KINDS)
class TestEveryFamily:
    def test_hidden_states_are_what_the_next_layer_is_given(self, kind) -> None:
        model = tiny_transformer(kind)
        with watched(model, (0, 2), hidden=True, relations=False) as watch:
            given_next = _input_of(layers_of(model)[1].module, lambda: run_example(model))
        assert sorted(watch.seen.hidden) == [0, 2]
        assert watch.seen.hidden[0].ndim == 3
        assert torch.equal(watch.seen.hidden[0], given_next)
        assert not watch.seen.queries
        assert not watch.seen.keys
        assert not watch.seen.values

    def test_attention_made_of_what_was_seen_is_the_models(self, kind) -> None:
        """Where no place counts, softmax(Q·Kᵀ/√d)·V is what the projection behind attention gets."""
        model = tiny_transformer(kind)
        inner = model.module.get_submodule("model")
        inputs = {name: value for name, value in _inputs(model).items() if name != "attention_mask"}
        if kind in ROTATED:  # every token at place 0: no rotation
            inputs["position_ids"] = torch.zeros_like(inputs["input_ids"])
        if kind == "mpnet":
            nn.init.zeros_(inner.get_parameter("encoder.relative_attention_bias.weight"))
        layer = layers_of(model)[1]
        with torch.no_grad(), watched(model, (1,), hidden=False, relations=True) as watch:
            got = _input_of(layer.part(layer.family.output), lambda: inner(**inputs))
        seen = watch.seen
        assert not seen.hidden
        batch, sequence, _ = seen.queries[1].shape
        q, k, v = (
            x[1].view(batch, sequence, -1, layer.head_dim).transpose(1, 2)
            for x in (seen.queries, seen.keys, seen.values)
        )
        assert (q.shape[1], k.shape[1], v.shape[1]) == (layer.heads, layer.kv_heads, layer.kv_heads)
        if kind == "qwen3":
            q, k = layer.part("self_attn.q_norm")(q), layer.part("self_attn.k_norm")(k)
        k, v = (x.repeat_interleave(layer.heads // layer.kv_heads, dim=1) for x in (k, v))
        scores = q @ k.transpose(2, 3) / math.sqrt(layer.head_dim)
        if kind in CAUSAL:
            later = torch.ones(sequence, sequence, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        made = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, sequence, -1)
        torch.testing.assert_close(made, got.view(batch, sequence, -1), rtol=1e-4, atol=1e-5)

    def test_gradients_flow_from_what_was_seen_into_the_layers_before(self, kind) -> None:
        model = tiny_transformer(kind)
        first, second = (layer.module for layer in layers_of(model)[:2])
        for part in (first, second):
            part.requires_grad_(True)
        with watched(model, (0, 1), hidden=True, relations=True) as watch:
            for states in ("hidden", "queries", "keys", "values"):
                model.module.zero_grad()
                model.module(**_inputs(model))
                getattr(watch.seen, states)[1].square().sum().backward()
                assert any(p.grad is not None and p.grad.any() for p in first.parameters()), states
                assert any(p.grad is not None and p.grad.any() for p in second.parameters()), states

    def test_watching_changes_nothing_and_leaves_nothing(self, kind) -> None:
        model = tiny_transformer(kind)
        before = run_example(model)
        with watched(model, range(3), hidden=True, relations=True) as watch:
            assert torch.equal(run_example(model), before)
        seen = watch.seen
        assert sorted(seen.values) == [0, 1, 2]
        run_example(model)
        assert watch.seen is seen


class TestWatched:
    def test_each_forward_is_seen_anew(self) -> None:
        model = tiny_transformer("bert")
        inputs = _inputs(model)
        with torch.no_grad(), watched(model, (1,), hidden=True, relations=True) as watch:
            assert not watch.seen.hidden
            model.module(**inputs)
            first = watch.seen
            kept = first.hidden[1].clone()
            model.module(**{name: value[:1, :4] for name, value in inputs.items()})
            assert watch.seen.hidden[1].shape == (1, 4, 32)
            assert watch.seen.keys[1].shape == (1, 4, 32)
            assert torch.equal(first.hidden[1], kept)

    def test_two_models_are_seen_apart(self) -> None:
        teacher = tiny_transformer("bert")
        student = with_layers(teacher, (0, 1))
        with (
            watched(student, (1,), hidden=True, relations=False) as mine,
            watched(teacher, (2,), hidden=True, relations=False) as theirs,
        ):
            run_example(student)
            assert not theirs.seen.hidden
            run_example(teacher)
        assert list(mine.seen.hidden) == [1]
        assert list(theirs.seen.hidden) == [2]

    def test_a_copy_is_not_what_is_watched(self) -> None:
        model = tiny_transformer("bert")
        other = replace(model, module=copy.deepcopy(model.module))
        with watched(model, (0,), hidden=True, relations=False) as watch:
            run_example(other)
        assert not watch.seen.hidden

    def test_fewer_heads_are_seen_as_they_are(self) -> None:
        for kind in ("modernbert", "gpt2", "bert"):
            model = branch(tiny_transformer(kind))
            keep_heads(layers_of(model)[1], [0, 2])
            with watched(model, range(2), hidden=False, relations=True) as watch:
                run_example(model)
            assert [watch.seen.values[index].shape[-1] for index in range(2)] == [32, 16], kind

    def test_matrices_of_low_rank_are_seen_too(self) -> None:
        model = tiny_transformer("bert")
        block = layers_of(model)[0].module
        block.get_submodule("attention.self").query = LowRankLinear(32, 4, 32, bias=True)
        block.get_submodule("output").dense = LowRankLinear(48, 4, 32, bias=True)
        with watched(model, (0,), hidden=True, relations=True) as watch:
            run_example(model)
        assert watch.seen.queries[0].shape == watch.seen.hidden[0].shape == (2, 9, 32)

    def test_hooks_are_gone_after_an_error(self) -> None:
        model = tiny_transformer("bert")
        with pytest.raises(RuntimeError), watched(model, (0,), hidden=True, relations=True):
            raise RuntimeError
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())

    @pytest.mark.parametrize("layer", [3, -1])
    def test_a_layer_that_is_not_there_is_named(self, layer) -> None:
        model = tiny_transformer("bert")
        with (
            pytest.raises(ModelError, match=f"bert has no layer {layer}: its 3 are counted from 0"),
            watched(model, (0, layer), hidden=True, relations=False),
        ):
            pass

    def test_an_architecture_that_is_unknown_is_refused(self) -> None:
        model = tiny_transformer("bert")
        model.module.get_submodule("model").config.model_type = "albert"
        with (
            pytest.raises(ModelError, match="the layers of a 'albert' model are not known"),
            watched(model, (0,), hidden=True, relations=False),
        ):
            pass


class TestProjections:
    def test_equal_widths_stay_as_they_are(self) -> None:
        projections = Projections([(8, 8), (6, 8)], seed=0)
        states = torch.randn(2, 3, 8)
        assert torch.equal(projections.project(0, states), states)
        assert projections.project(1, torch.randn(2, 3, 6)).shape == (2, 3, 8)
        assert [tuple(p.shape) for p in projections.parameters()] == [(8, 6)]

    def test_wider_states_keep_their_angles_and_their_mean_square(self) -> None:
        states = torch.randn(10, 6, generator=torch.Generator().manual_seed(1))
        wide = Projections([(6, 24)], seed=0).project(0, states).detach()
        torch.testing.assert_close(wide.square().mean(dim=1), states.square().mean(dim=1))
        torch.testing.assert_close(wide @ wide.T, 4 * states @ states.T, rtol=1e-4, atol=1e-4)

    def test_narrower_states_keep_their_mean_square_on_average(self) -> None:
        states = torch.randn(4000, 24, generator=torch.Generator().manual_seed(1))
        narrow = Projections([(24, 6)], seed=0).project(0, states).detach()
        assert float(narrow.square().mean()) == pytest.approx(1, abs=0.05)

    def test_the_seed_alone_decides_and_the_global_generator_is_left_alone(self) -> None:
        widths = [(6, 8), (6, 8)]
        torch.manual_seed(5)
        state = torch.get_rng_state()
        one, same, other = (list(Projections(widths, seed=seed).parameters()) for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
        assert not torch.equal(one[0], other[0])
        assert not torch.equal(one[0], one[1])

    def test_learn_along_from_states_in_half_precision(self) -> None:
        projections = Projections([(6, 8)], seed=0)
        states = torch.randn(5, 6).bfloat16().requires_grad_()
        projected = projections.project(0, states)
        assert projected.dtype == torch.float32
        projected.square().sum().backward()
        assert states.grad is not None
        assert all(p.grad is not None and p.grad.any() for p in projections.parameters())

    def test_are_restored_from_their_state(self) -> None:
        one, other = Projections([(6, 8), (8, 8)], seed=1), Projections([(6, 8), (8, 8)], seed=2)
        other.load_state_dict(one.state_dict())
        states = torch.randn(5, 6)
        assert torch.equal(one.project(0, states), other.project(0, states))
