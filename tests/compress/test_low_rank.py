"""Matrices become pairs under a budget, only where that is smaller and faster, and the record says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.compress import low_rank as room
from edgekit.compress import wanted_table
from edgekit.compress.anatomy import layers_of, matrix_of, set_matrix
from edgekit.compress.base import branch, parameters_of
from edgekit.compress.low_rank import factorize, smaller_ranks, wanted_pairs
from edgekit.compression import CompressOptions, LowRankOptions
from edgekit.errors import RecipeError
from edgekit.latency_table import LatencyTable
from edgekit.structure import LowRankLinear, difference, rebuild
from tests.compress.families import CONFIGS, run_example, tiny_transformer
from tests.compress.samples import with_data

KINDS = sorted(CONFIGS)


def _options(share: float, **others) -> LowRankOptions:
    return LowRankOptions(**{"parameters": share, "multiple": 4, "measured": False, **others})


def _pairs(model) -> dict[str, int]:
    return {
        name.removeprefix("model."): part.down.out_features
        for name, part in model.module.named_modules()
        if isinstance(part, LowRankLinear)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_is_factorized_within_its_budget_and_built_again(kind, tmp_path) -> None:
    model, data = with_data(tiny_transformer(kind), tmp_path, fit=12, judge=4)
    before = run_example(model)
    smaller = factorize(model, _options(0.8), data)
    facts = smaller.history[-1].facts
    assert 0.6 < facts["share_of_parameters"] <= 0.8
    assert facts["ranks"] == _pairs(smaller)
    gone = parameters_of(model.module) - parameters_of(smaller.module)
    assert facts["parameters_before"] - facts["parameters_after"] == gone > 0
    assert torch.equal(run_example(model), before)
    inner = smaller.module.model
    fresh = type(inner)._from_config(inner.config, attn_implementation="eager").eval()
    rebuild(fresh, difference(fresh, inner), "structure.json")
    fresh.load_state_dict(inner.state_dict(), assign=True)
    for name, values in fresh.named_buffers():  # the tiny models' rotary frequencies are not computed ones
        values.copy_(inner.get_buffer(name))
    wanted = run_example(smaller)
    smaller.module.model = fresh
    assert torch.equal(run_example(smaller), wanted)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_matrices_that_have_the_rank_lose_nothing(kind, tmp_path) -> None:
    thin = branch(tiny_transformer(kind))
    for layer in layers_of(thin):
        for name in (*layer.family.qkv, layer.family.output, *layer.family.up, layer.family.down):
            left, values, right = torch.linalg.svd(matrix_of(layer.part(name)), full_matrices=False)
            set_matrix(layer.part(name), left[:, :4] * values[:4] @ right[:4])
    model, data = with_data(thin, tmp_path, fit=24, judge=8)
    smaller = factorize(model, _options(0.35), data)
    assert smaller.history[-1].facts["loss"] < 1e-7
    torch.testing.assert_close(run_example(smaller), run_example(model), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("weighting", ["activation", "fisher"])
def test_looking_at_the_data_beats_plain_svd_at_the_same_ranks(weighting, tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path)
    facts = factorize(model, _options(0.7, weighting=weighting), data).history[-1].facts
    assert facts["loss"] == min(facts["parallel_loss"], facts["sequential_loss"])
    assert facts["loss"] < facts["plain_loss"]


def test_plain_svd_is_a_control_that_looks_at_no_gradients(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path)
    facts = factorize(model, _options(0.7, weighting="plain"), data).history[-1].facts
    assert facts["loss"] == facts["plain_loss"]
    assert facts["order"] == "parallel"


def test_the_same_data_make_the_same_weights_in_any_memory(tmp_path, monkeypatch) -> None:
    model, data = with_data(tiny_transformer("llama"), tmp_path, fit=16, judge=4)
    first = factorize(model, _options(0.7), data).module.state_dict()
    monkeypatch.setattr(room, "_MOMENTS_BYTES", 20_000)
    second = factorize(model, _options(0.7), data).module.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def _table(model, options, slow) -> LatencyTable:
    times = {
        (a, rank, b): 1.0 if rank == 0 else (2.0 if slow(a, rank, b) else 0.5)
        for a, rank, b in wanted_pairs(model, options)
    }
    return LatencyTable(pairs_ms=times, kind="int8")


def test_only_faster_pairs_are_kept(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path, fit=16, judge=4)
    options = _options(0.9, measured=True)
    table = _table(model, options, lambda a, rank, b: a == b or rank > 8)
    smaller = factorize(model, options, replace(data, latency=table))
    assert smaller.history[-1].facts["ranks"]
    assert all(rank <= 8 and "dense" in name for name, rank in _pairs(smaller).items())
    assert not any("attention" in name for name in _pairs(smaller))
    (skip,) = (s for s in smaller.history[-1].skipped if s.what == "matrices 32 → 32")
    assert "takes 2.00 times as long (int8)" in skip.why


def test_nothing_is_factorized_where_nothing_is_faster(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path, fit=16, judge=4)
    options = _options(0.9, measured=True)
    table = _table(model, options, lambda *_: True)
    record = factorize(model, options, replace(data, latency=table)).history[-1]
    assert record.did.startswith("Factorized nothing")
    assert record.bytes_after == record.bytes_before
    assert record.facts["share_of_parameters"] == 1


def test_without_times_it_cannot_be_known_what_is_faster(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path, judge=4)
    with pytest.raises(RecipeError, match=r"\[compress\] low_rank.measured: no times"):
        factorize(model, _options(0.9, measured=True), data)


def test_a_budget_that_cannot_be_met_names_the_least(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path, fit=8, judge=4)
    with pytest.raises(RecipeError, match=r"parameters = 0.05 cannot be met: the least is 0\.2"):
        factorize(model, _options(0.05), data)


def test_ranks_that_make_nothing_smaller_are_refused(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path, fit=8, judge=4)
    with pytest.raises(RecipeError, match="multiple = 32: no such rank"):
        factorize(model, _options(0.5, multiple=32), data)


def test_excluded_matrices_stay_whole(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path, fit=8, judge=4)
    smaller = factorize(model, _options(0.8, exclude=("*.attention.*",)), data)
    assert not any(".attention." in name for name in _pairs(smaller))
    with pytest.raises(RecipeError, match="no matrix is called 'query'"):
        factorize(model, _options(0.8, exclude=("query",)), data)


@given(st.tuples(st.integers(8, 600), st.integers(8, 600)), st.sampled_from([1, 4, 32]))
def test_ranks_are_multiples_that_make_the_pair_smaller(shape, multiple) -> None:
    ranks = smaller_ranks(shape, multiple)
    assert len(ranks) <= 12
    assert all(rank % multiple == 0 and rank * sum(shape) < shape[0] * shape[1] for rank in ranks)
    assert bool(ranks) == (multiple * sum(shape) < shape[0] * shape[1])


def test_the_times_it_asks_for_are_those_of_every_shape_and_rank() -> None:
    model = tiny_transformer("bert")
    pairs = wanted_pairs(model, _options(0.8, measured=True, multiple=8))
    assert pairs == ((32, 0, 32), (32, 8, 32), (32, 0, 48), (32, 8, 48), (32, 16, 48),
                     (48, 0, 32), (48, 8, 32), (48, 16, 32))  # fmt: skip
    assert wanted_pairs(model, _options(0.8)) == ()
    options = CompressOptions(low_rank=_options(0.8, measured=True, multiple=8))
    request = wanted_table(model, options, "low_rank")
    assert request is not None
    assert request.pairs == pairs
