"""Width pruning: what is asked for comes out, budgets are kept, and impossible requests are refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from edgekit.compress.anatomy import layers_of, matrix_of, set_matrix
from edgekit.compress.base import branch, parameters_of
from edgekit.compress.costs import multiply_adds, table_request, total
from edgekit.compress.importance import parts_of
from edgekit.compress.judge import Judge
from edgekit.compress.width import prune_width
from edgekit.compression import WidthOptions
from edgekit.errors import ModelError, RecipeError
from edgekit.latency_table import LatencyTable
from edgekit.structure import difference, rebuild
from tests.compress.families import CONFIGS, run_example, tiny_transformer
from tests.compress.samples import with_data

KINDS = sorted(CONFIGS)
SHARED = ("llama", "mistral", "qwen2", "qwen3")


@pytest.fixture
def tiny(tmp_path):
    return lambda kind: with_data(tiny_transformer(kind), tmp_path, fit=24, judge=8)


def _table(model, **changes) -> LatencyTable:
    request = table_request(model, 16)
    ffn = {width: 0.1 + 0.01 * width for width in request.ffn}
    heads = {count: 0.2 + 0.1 * count for count in request.heads}
    return replace(LatencyTable(ffn, heads, kind="made up"), **changes)


def _options(**changes) -> WidthOptions:
    return WidthOptions(**{"multiple": 16, "repair": False, **changes})


@pytest.mark.parametrize("kind", KINDS)
class TestFamily:
    def test_every_layer_gets_the_widths_asked_for(self, tiny, kind) -> None:
        model, data = tiny(kind)
        heads = None if kind == "mpnet" else 2
        smaller = prune_width(model, _options(ffn=32, heads=heads), data)
        found = [(layer.heads, layer.neurons) for layer in layers_of(smaller)]
        assert found == [(heads or 4, 32)] * 3
        assert parameters_of(smaller.module) < parameters_of(model.module)
        assert [(layer.heads, layer.neurons) for layer in layers_of(model)] == [(4, 48)] * 3

    def test_the_configuration_alone_says_an_even_width(self, tiny, kind) -> None:
        model, data = tiny(kind)
        smaller = prune_width(model, _options(ffn=32), data)
        inner = smaller.module.get_submodule("model")
        fresh = type(inner)._from_config(inner.config, attn_implementation="eager")
        assert difference(fresh, inner).empty
        original = model.module.get_submodule("model").config
        assert getattr(original, layers_of(model)[0].family.width) == 48

    def test_uneven_widths_survive_saving_and_loading(self, tiny, kind) -> None:
        model, data = tiny(kind)
        smaller = prune_width(model, _options(multiply_adds=0.8, multiple=8), data)
        inner = smaller.module.get_submodule("model")
        fresh = type(inner)._from_config(inner.config, attn_implementation="eager").eval()
        structure = difference(fresh, inner)
        assert not structure.empty
        rebuild(fresh, structure, "structure.json")
        fresh.load_state_dict(inner.state_dict())
        for (
            name,
            buffer,
        ) in inner.named_buffers():  # rotary frequencies, which the tiny models have odd ones of
            fresh.get_buffer(name).copy_(buffer)
        module = copy.copy(smaller.module)
        module._modules = {**smaller.module._modules, "model": fresh}
        assert torch.equal(run_example(replace(smaller, module=module)), run_example(smaller))

    def test_a_budget_of_multiply_adds_is_kept_and_nearly_used(self, tiny, kind) -> None:
        model, data = tiny(kind)
        smaller = prune_width(model, _options(multiply_adds=0.75), data)
        facts = smaller.history[-1].facts
        assert 0.65 < facts["multiply_adds_after"] / facts["multiply_adds_before"] <= 0.75
        assert facts["heads_after"] == [layer.heads for layer in layers_of(smaller)]
        assert facts["ffn_after"] == [layer.neurons for layer in layers_of(smaller)]

    def test_silent_units_can_go_and_nothing_changes(self, tiny, kind) -> None:
        model, data = tiny(kind)
        silenced = branch(model)
        for part in parts_of(silenced):
            matrix = silenced.module.get_submodule(part.matrix)
            weight = matrix_of(matrix).clone()
            half = part.units // 2 if part.kind == "heads" else 16
            weight[:, : half * part.columns] = 0
            set_matrix(matrix, weight)
        heads = None if kind == "mpnet" else 2
        options = _options(ffn=32, heads=heads, importance="surgeon")
        smaller = prune_width(silenced, options, replace(data, judge=Judge.of(silenced, data.judge.samples)))
        torch.testing.assert_close(run_example(smaller), run_example(silenced), rtol=1e-4, atol=1e-5)
        assert smaller.history[-1].facts["loss"] == pytest.approx(0, abs=1e-9)


class TestBudget:
    def test_a_share_of_the_time_is_kept_by_the_table(self, tiny) -> None:
        model, data = tiny("bert")
        smaller = prune_width(model, _options(time=0.75), replace(data, latency=_table(model)))
        facts = smaller.history[-1].facts
        assert facts["predicted_by"] == "made up"
        before = 3 * (0.1 + 0.48 + 0.2 + 0.4)
        assert facts["predicted_ms_before"] == pytest.approx(before)
        assert facts["predicted_ms_after"] <= 0.75 * before

    def test_what_costs_much_goes_first(self, tiny) -> None:
        model, data = tiny("bert")
        dear_heads = _table(model, heads_ms={1: 1.0, 2: 20.0, 3: 30.0, 4: 40.0})
        smaller = prune_width(model, _options(time=0.5), replace(data, latency=dear_heads))
        facts = smaller.history[-1].facts
        assert sum(facts["heads_after"]) < 9
        assert facts["ffn_after"] == [48, 48, 48]

    def test_an_uneven_allocation_loses_less_than_an_even_one_of_random_units(self, tiny) -> None:
        model, data = tiny("llama")
        options = _options(multiply_adds=0.7, repair=True)
        careful = prune_width(model, options, data).history[-1].facts["loss"]
        control = prune_width(model, options.model_copy(update={"importance": "random"}), data)
        assert careful < control.history[-1].facts["loss"]

    def test_heads_that_share_keys_and_values_go_as_groups(self, tiny) -> None:
        model, data = tiny("llama")
        smaller = prune_width(model, _options(multiply_adds=0.5), data)
        assert {layer.heads // layer.kv_heads for layer in layers_of(smaller)} == {2}

    def test_heads_that_are_fixed_stay_and_the_record_says_why(self, tiny) -> None:
        model, data = tiny("mpnet")
        smaller = prune_width(model, _options(multiply_adds=0.8), data)
        assert smaller.history[-1].facts["heads_after"] == [4, 4, 4]
        assert "position biases" in smaller.history[-1].skipped[0].why

    def test_multiply_adds_are_those_of_the_products(self, tiny) -> None:
        model, _ = tiny("llama")  # 4 heads of 8 on 2 shared, 48 gated neurons, 32 wide
        cost, parts = multiply_adds(10), parts_of(model)
        projections = 10 * (32 * 32 + 2 * 32 * 16 + 32 * 32)
        scores = 2 * 10 * 10 * 32
        assert cost(parts[0], parts[0].units) == projections + scores
        assert cost(parts[1], 48) == 10 * 3 * 32 * 48
        assert total(cost, parts) == 3 * (projections + scores + 10 * 3 * 32 * 48)

    def test_the_table_that_is_asked_for_is_the_one_that_is_needed(self, tiny) -> None:
        model, _ = tiny("llama")
        request = table_request(model, 16)
        assert (request.heads, request.ffn, request.kv_share) == ((2, 4), (16, 32, 48), 2)
        assert (request.hidden, request.head_dim, request.gated, request.activation) == (32, 8, True, "silu")
        assert table_request(tiny("gpt2")[0], 16).activation == "gelu_new"
        assert table_request(tiny("mpnet")[0], 16).heads == (4,)


class TestRepair:
    def test_the_loss_after_repair_is_no_larger_and_is_in_the_record(self, tiny) -> None:
        model, data = tiny("vit")
        record = prune_width(model, _options(ffn=16, heads=2, repair=True), data).history[-1]
        assert record.facts["loss"] < record.facts["loss_pruned"]
        assert record.facts["loss_before"] == pytest.approx(0, abs=1e-9)
        assert len(record.facts["repaired"]) + len(record.skipped) == 6
        assert "6 of 12 heads and 96 of 144 neurons" in record.did

    def test_the_same_request_gives_the_same_weights(self, tiny) -> None:
        model, data = tiny("bert")
        first, second = (prune_width(model, _options(ffn=16, repair=True), data) for _ in range(2))
        pairs = zip(first.module.parameters(), second.module.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


class TestRefusals:
    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ({}, "says nothing of how much"),
            ({"ffn": 32, "time": 0.5}, "says ffn or heads and time"),
            ({"multiply_adds": 0.5, "time": 0.5}, "says time and multiply_adds"),
            ({"ffn": 30}, "width.ffn = 30 is no multiple of 16"),
            ({"ffn": 64}, "width.ffn = 64: layer 0 has 48 neurons"),
            ({"heads": 5}, "width.heads = 5: layer 0 has 4 heads"),
            ({"heads": 3}, "width.heads = 3 is no multiple of 2"),
            ({"multiply_adds": 0.01}, "width.multiply_adds = 0.01 cannot be met: the least is 0"),
            ({"time": 0.5}, "needs times measured in ONNX Runtime"),
        ],
    )
    def test_an_impossible_request_is_refused_by_its_key(self, tiny, asked, message) -> None:
        model, data = tiny("llama")
        with pytest.raises(RecipeError, match=message):
            prune_width(model, _options(**asked), data)

    def test_a_table_without_the_widths_is_refused(self, tiny) -> None:
        model, data = tiny("bert")
        with pytest.raises(RecipeError, match="no entry for 16 neurons"):
            prune_width(model, _options(time=0.5), replace(data, latency=_table(model, ffn_ms={48: 1.0})))

    def test_fixed_heads_cannot_be_asked_for(self, tiny) -> None:
        model, data = tiny("mpnet")
        with pytest.raises(RecipeError, match="heads cannot be removed here"):
            prune_width(model, _options(heads=2), data)

    def test_an_unknown_architecture_is_refused_by_name(self, tiny) -> None:
        model, data = tiny("bert")
        model.module.get_submodule("model").config.model_type = "mystery"
        with pytest.raises(ModelError, match="'mystery' model"):
            prune_width(model, _options(ffn=16), data)
