"""The table of times holds what was asked for, of graphs whose products run in int8 kernels."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import onnx
import pytest
from hypothesis import given, settings

from edgekit.errors import ModelError, RecipeError
from edgekit.latency_table import TableRequest
from edgekit.profile import available, load_profile
from edgekit.runtime import open_session
from edgekit.validate.width_graphs import Builder, attention, feed_forward, pair
from edgekit.validate.width_table import measure_table, monotone

TINY = TableRequest(
    hidden=32, head_dim=8, heads=(1, 2, 4), ffn=(16, 32, 64), pairs=((32, 0, 64), (32, 16, 64))
)
FLOATS = st.lists(st.floats(0, 100), min_size=1, max_size=20)


@settings(max_examples=50, deadline=None)
@given(FLOATS)
def test_smoothed_values_rise_keep_their_mean_and_leave_rising_ones_alone(values) -> None:
    smooth = monotone(values)
    assert len(smooth) == len(values)
    assert all(a <= b + 1e-9 for a, b in pairwise(smooth))
    assert np.mean(smooth) == pytest.approx(np.mean(values))
    assert monotone(sorted(values)) == sorted(values)


def test_inverted_neighbours_share_their_mean() -> None:
    assert monotone([1.0, 3.0, 2.0, 4.0]) == [1.0, 2.5, 2.5, 4.0]


class TestTable:
    def test_it_holds_what_was_asked_for(self) -> None:
        table = measure_table(TINY, load_profile("cpu-x86"), sequence=16, runs=10)
        assert list(table.ffn_ms) == [16, 32, 64]
        assert list(table.heads_ms) == [1, 2, 4]
        assert set(table.pairs_ms) == set(TINY.pairs)
        times = [*table.ffn_ms.values(), *table.heads_ms.values(), *table.pairs_ms.values()]
        assert all(ms > 0 for ms in times)
        assert list(table.ffn_ms.values()) == sorted(table.ffn_ms.values())
        assert (table.batch, table.sequence) == (1, 16)
        assert "uint8 x int8 for cpu-x86 in ONNX Runtime" in table.kind
        assert "median of 10 turns" in table.kind

    def test_a_wide_block_takes_longer_than_a_narrow_one(self) -> None:
        request = TableRequest(hidden=128, head_dim=32, ffn=(64, 2048), heads=(1, 16))
        table = measure_table(request, load_profile("cpu-x86"), sequence=64, runs=15)
        assert table.ffn_ms[2048] > 4 * table.ffn_ms[64]
        assert table.heads_ms[16] > 3 * table.heads_ms[1]

    def test_of_many_widths_those_between_lie_on_lines(self) -> None:
        widths = tuple(range(16, 16 * 61, 16))
        request = TableRequest(hidden=16, head_dim=8, ffn=widths)
        table = measure_table(request, load_profile("cpu-x86"), sequence=8, runs=10)
        assert tuple(table.ffn_ms) == widths
        assert list(table.ffn_ms.values()) == sorted(table.ffn_ms.values())

    def test_nothing_asked_for_is_an_empty_table(self) -> None:
        table = measure_table(TableRequest(hidden=32, head_dim=8), load_profile("cpu-x86"))
        assert (table.ffn_ms, table.heads_ms, table.pairs_ms) == ({}, {}, {})

    def test_the_cpu_of_another_target_is_said_not_to_be_this_one(self) -> None:
        table = measure_table(replace(TINY, pairs=()), load_profile("arm64"), sequence=8, runs=10)
        assert "not the target's CPU" in table.kind

    def test_a_target_that_is_no_cpu_is_refused(self) -> None:
        whole = next(p for p in map(load_profile, available()) if p.quantization.scope == "whole-graph")
        with pytest.raises(RecipeError, match=f"{whole.name} is no CPU"):
            measure_table(TINY, whole)

    def test_an_activation_that_is_not_known_is_refused(self) -> None:
        with pytest.raises(ModelError, match="'xielu' cannot be timed"):
            measure_table(replace(TINY, activation="xielu"), load_profile("cpu-x86"))


def _ops(model: bytes, tmp_path) -> list[str]:
    """Return the op types of a graph as the runtime runs it."""
    open_session(model, optimized_path=tmp_path / "optimized.onnx")
    return [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]


@pytest.mark.parametrize(
    ("gated", "activation", "products"),
    [(False, "gelu", 2), (False, "gelu_new", 2), (False, "relu", 2), (True, "silu", 2), (False, "tanh", 2)],
)
class TestFeedForward:
    def test_its_products_run_in_int8(self, gated, activation, products, tmp_path) -> None:
        request = replace(TINY, gated=gated, activation=activation)
        builder = Builder(load_profile("cpu-x86"), 1, 16, 32)
        ops = _ops(builder.finished(feed_forward(request, 48)(builder)), tmp_path)
        assert ops.count("QGemm") == products
        assert "Gemm" not in ops

    def test_it_gives_rows_as_wide_as_it_takes(self, gated, activation, products) -> None:
        request = replace(TINY, gated=gated, activation=activation)
        builder = Builder(load_profile("cpu-x86"), 2, 8, 32)
        session = open_session(builder.finished(feed_forward(request, 48)(builder)))
        (out,) = session.run(None, {"x": np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)})
        assert out.shape == (16, 32)
        assert np.isfinite(out).all()
        assert out.std() > 0.01


@pytest.mark.parametrize("share", [1, 2])
class TestAttention:
    def _made(self, share: int) -> bytes:
        builder = Builder(load_profile("cpu-x86"), 2, 8, 32)
        return builder.finished(attention(replace(TINY, kv_share=share), 4)(builder))

    def test_its_projections_run_in_int8_and_its_scores_in_float(self, share, tmp_path) -> None:
        ops = _ops(self._made(share), tmp_path)
        assert ops.count("QGemm") == 2  # queries, keys and values are one product
        assert "Softmax" in ops
        assert "Gemm" not in ops

    def test_tokens_of_one_sample_do_not_see_those_of_another(self, share) -> None:
        session = open_session(self._made(share))
        x = np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)
        (first,) = session.run(None, {"x": x})
        x[8:] += 1
        (second,) = session.run(None, {"x": x})
        np.testing.assert_array_equal(first[:8], second[:8])
        assert not np.allclose(first[8:], second[8:])
        assert np.isfinite(first).all()


def test_a_pair_is_two_products_and_a_whole_matrix_one(tmp_path) -> None:
    for rank, products in ((0, 1), (16, 2)):
        builder = Builder(load_profile("cpu-x86"), 1, 8, 32)
        assert _ops(builder.finished(pair(32, rank, 64)(builder)), tmp_path).count("QGemm") == products


@pytest.mark.parametrize("target", available())
def test_every_cpu_target_can_be_timed(target) -> None:
    profile = load_profile(target)
    if profile.quantization.scope == "kernels":
        table = measure_table(replace(TINY, heads=(2,), ffn=(16,)), profile, sequence=8, runs=10)
        assert table.ffn_ms[16] > 0
        assert target in table.kind
