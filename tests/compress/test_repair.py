"""Least squares behind removed units: exact where it can be, never worse on held-out samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgekit.compress.anatomy import keep_heads, keep_neurons, layers_of, matrix_of, set_matrix
from edgekit.compress.base import branch
from edgekit.compress.importance import parts_of
from edgekit.compress.judge import Judge
from edgekit.compress.least_squares import Sums, solve
from edgekit.compress.repair import repair
from edgekit.errors import DataError
from tests.compress.families import CONFIGS, run_example, tiny_transformer
from tests.compress.samples import samples_of, with_data

KINDS = sorted(CONFIGS)


def _sums(x: np.ndarray, y: np.ndarray, s: np.ndarray, *, biased: bool = True) -> tuple[Sums, Sums]:
    rows = [torch.tensor(values, dtype=torch.float32) for values in (x, y, s)]
    return tuple(Sums.of(*(r[a::2] for r in rows), biased=biased) for a in range(2))


class TestSolve:
    def test_a_relation_that_is_there_is_found(self) -> None:
        rng = np.random.default_rng(0)
        x, weight, bias = rng.normal(size=(400, 6)), rng.normal(size=(6, 3)), rng.normal(size=3)
        solution = solve(_sums(x, x @ weight + bias, np.zeros((400, 3))), torch.zeros(7, 3).double(), 0.0)
        np.testing.assert_allclose(solution.weight[:-1].numpy(), weight, atol=1e-3)
        np.testing.assert_allclose(solution.weight[-1].numpy(), bias, atol=1e-3)
        assert solution.error[1] < 1e-5 < solution.error[0]

    def test_the_streams_distance_is_added_to_the_target(self) -> None:
        rng = np.random.default_rng(0)
        x, y, s = rng.normal(size=(400, 4)), rng.normal(size=(400, 2)), rng.normal(size=(400, 2))
        kept = torch.zeros(5, 2).double()
        both = solve(_sums(x, y, s), kept, 1.0)
        summed = solve(_sums(x, y + s, np.zeros_like(s)), kept, 0.0)
        torch.testing.assert_close(both.weight, summed.weight, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(both.error, summed.error, rtol=1e-4)

    def test_few_noisy_samples_leave_the_weights_nearly_as_they_are(self) -> None:
        rng = np.random.default_rng(0)
        x, kept = rng.normal(size=(24, 20)), rng.normal(size=(21, 2))
        y = x @ kept[:-1] + kept[-1] + 3 * rng.normal(size=(24, 2))
        solution = solve(_sums(x, y, np.zeros_like(y)), torch.tensor(kept), 0.0)
        assert solution.ridge == 1.0
        np.testing.assert_allclose(solution.weight[:-1].numpy(), kept[:-1], atol=2.0)

    def test_without_a_bias_none_is_made(self) -> None:
        x = np.random.default_rng(0).normal(size=(100, 4))
        sums = _sums(x, x[:, :2], np.zeros((100, 2)), biased=False)
        assert solve(sums, torch.zeros(4, 2).double(), 0.0).weight.shape == (4, 2)

    def test_the_error_is_the_mean_over_the_rows_that_choose(self) -> None:
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(60, 3)), rng.normal(size=(60, 2))
        kept = rng.normal(size=(4, 2))
        solution = solve(_sums(x, y, np.zeros_like(y)), torch.tensor(kept), 0.0)
        expected = np.square(x[1::2] @ kept[:-1] + kept[-1] - y[1::2]).sum(1).mean()
        assert solution.error[0] == pytest.approx(expected, rel=1e-5)


def _duplicated(kind, tmp_path):
    """Return a model of which every second neuron is a copy of the one before, with data."""
    model, data = with_data(tiny_transformer(kind), tmp_path)
    twin = branch(model)
    for layer in layers_of(twin):
        index = torch.arange(layer.neurons) // 2 * 2
        for name in layer.family.up:
            matrix = layer.part(name)
            both = torch.cat([index, index + layer.neurons]) if layer.family.gate_in_up else index
            bias = getattr(matrix, "bias", None)
            set_matrix(matrix, matrix_of(matrix)[both], None if bias is None else bias.detach()[both])
    return twin, replace(data, judge=Judge.of(twin, data.judge.samples))


@pytest.mark.parametrize("kind", KINDS)
def test_copies_of_neurons_can_go_and_repair_finds_the_same_outputs(kind, tmp_path) -> None:
    model, data = _duplicated(kind, tmp_path)
    smaller = branch(model)
    for layer in layers_of(smaller):
        keep_neurons(layer, range(0, 48, 2))
    before = data.judge.loss(smaller)
    parts = [part for part in parts_of(model) if part.kind == "ffn"]
    done = repair(model, smaller, parts, data)
    assert before > 1e-3
    assert done.loss < 0.05 * before
    assert done.loss == pytest.approx(data.judge.loss(done.model))
    assert len(done.fits) + len(done.skipped) == 3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mpnet"])
def test_repair_never_makes_the_held_out_loss_larger(kind, tmp_path) -> None:
    model, data = with_data(tiny_transformer(kind), tmp_path)
    smaller = branch(model)
    for layer in layers_of(smaller)[1:]:
        keep_heads(layer, range(layer.kv_heads // 2))
        keep_neurons(layer, range(16))
    before, weights = data.judge.loss(smaller), run_example(smaller)
    parts = [part for part in parts_of(model) if part.layer.index]
    done = repair(model, smaller, parts, data)
    assert done.loss <= before
    assert done.fits
    assert [fit["loss"] for fit in done.fits] == sorted((fit["loss"] for fit in done.fits), reverse=True)
    assert torch.equal(run_example(smaller), weights)  # what was given is as it was


def test_a_fit_to_other_data_than_the_judges_is_refused(tmp_path) -> None:
    """All samples to fit are the same one: whatever it teaches does not hold for others."""
    model, data = with_data(tiny_transformer("llama"), tmp_path)
    smaller = branch(model)
    keep_neurons(layers_of(smaller)[2], range(40))
    odd = samples_of(model, 1, seed=9)[0]
    same = replace(odd, value={name: array[:1] for name, array in odd.value.items()})
    part = parts_of(model)[-1]
    before = data.judge.loss(smaller)
    done = repair(model, smaller, [part], replace(data, fit=(same,) * 8))
    assert done.loss <= before
    assert not done.fits
    assert done.model is smaller
    assert "neurons of layer 2" in done.skipped[0].what


def test_nothing_to_repair_is_nothing_done(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path)
    done = repair(model, model, [], data)
    assert (done.model, done.fits, done.skipped) == (model, (), ())
    assert done.loss == pytest.approx(0, abs=1e-9)


def test_too_few_samples_are_refused(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path)
    smaller = branch(model)
    keep_neurons(layers_of(smaller)[0], range(16))
    with pytest.raises(DataError, match="no sample"):
        repair(model, smaller, [parts_of(model)[1]], replace(data, fit=()))
