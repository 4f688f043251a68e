"""Weights go to zero, as many as asked, where it matters least; the record says what that is good for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.compress import sparsity as room
from edgekit.compress.anatomy import layers_of, matrix_of
from edgekit.compress.low_rank import factorize
from edgekit.compress.sparsity import compensated, least, pruned, sparsify
from edgekit.compression import LowRankOptions, SparsityOptions
from edgekit.errors import ModelError, RecipeError
from edgekit.structure import difference
from tests.compress.families import CONFIGS, run_example, tiny_transformer
from tests.compress.samples import with_data

KINDS = sorted(CONFIGS)
METHODS = ("magnitude", "wanda", "sparsegpt", "random")
FOURS = SparsityOptions(pattern="2:4")


def _matrices(model):
    for layer in layers_of(model):
        for name in (*layer.family.qkv, layer.family.output, *layer.family.up, layer.family.down):
            yield matrix_of(layer.part(name))


@pytest.mark.parametrize("kind", KINDS)
def test_half_of_every_layer_goes_in_every_family(kind, tmp_path) -> None:
    model, data = with_data(tiny_transformer(kind), tmp_path, fit=12, judge=4)
    before = run_example(model)
    sparse = sparsify(model, SparsityOptions(), data)
    for weight in _matrices(sparse):
        assert float((weight == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    assert sparse.history[-1].facts["zeros"] == pytest.approx(0.5, abs=0.01)
    assert torch.equal(run_example(model), before)
    assert difference(model.module.model, sparse.module.model).empty


@pytest.mark.parametrize("method", METHODS)
def test_two_of_each_four_inputs_go(method, tmp_path) -> None:
    model, data = with_data(tiny_transformer("llama"), tmp_path, fit=12, judge=4)
    sparse = sparsify(model, SparsityOptions(method=method, pattern="2:4"), data)
    for weight in _matrices(sparse):
        assert torch.equal((weight.reshape(-1, 4) == 0).sum(1), torch.full((weight.numel() // 4,), 2))


def test_making_up_for_zeros_beats_magnitude_and_that_beats_random(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path)
    loss = {m: sparsify(model, SparsityOptions(method=m), data).history[-1].facts["loss"] for m in METHODS}
    assert loss["sparsegpt"] < loss["magnitude"] < loss["random"]


def test_the_record_says_what_it_is_good_for(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path, fit=8, judge=4)
    record = sparsify(model, SparsityOptions(share=0.8, method="magnitude"), data).history[-1]
    before, after = record.facts["matrices_before"], record.facts["matrices_after"]
    assert after["int8_deflated_bytes"] < 0.7 * before["int8_deflated_bytes"]
    assert after["float32_deflated_bytes"] < before["float32_deflated_bytes"]
    assert after["int8_bytes"] == before["int8_bytes"]
    assert record.bytes_after == record.bytes_before
    assert record.did.endswith("ONNX Runtime runs no faster.")
    assert any("none of the layers" in skip.why for skip in record.skipped), "the pooler stays"


def test_pairs_of_narrow_matrices_are_made_sparse_too(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path, fit=12, judge=4)
    pairs = factorize(model, LowRankOptions(parameters=0.8, multiple=4, measured=False), data)
    sparse = sparsify(pairs, SparsityOptions(method="magnitude"), data)
    halves = [n for n, p in sparse.module.named_parameters() if n.endswith((".down.weight", ".up.weight"))]
    assert halves
    weights = [sparse.module.get_parameter(name) for name in halves]
    assert all(float((w == 0).float().mean()) == pytest.approx(0.5, abs=0.02) for w in weights)


def test_the_same_seed_makes_the_same_zeros(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path, fit=8, judge=4)
    for method in ("random", "sparsegpt"):
        options = SparsityOptions(method=method)
        first, second = (sparsify(model, options, data).module.state_dict() for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)


WORTHS = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(0, 9999))


@given(case=WORTHS, share=st.floats(0.05, 0.95), by_row=st.booleans())
def test_exactly_the_share_goes_and_no_worthier_weight_than_any_that_stays(case, share, by_row) -> None:
    rows, fours, seed = case
    worth = torch.rand(rows, 4 * fours, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    gone = least(worth, SparsityOptions(share=share), by_row=by_row)
    parts = zip(worth, gone, strict=True) if by_row else [(worth.ravel(), gone.ravel())]
    for values, out in parts:
        assert int(out.sum()) == round(share * len(values))
        assert not out.any() or out.all() or values[out].max() <= values[~out].min()


@given(case=WORTHS)
def test_of_each_four_the_two_worthiest_stay(case) -> None:
    rows, fours, seed = case
    worth = torch.rand(rows, 4 * fours, generator=torch.Generator().manual_seed(seed))
    kept = ~least(worth, FOURS).reshape(-1, 4)
    assert torch.equal(kept.sum(1), torch.full((rows * fours,), 2))
    groups = worth.reshape(-1, 4)
    assert (groups.masked_fill(~kept, 2).amin(1) >= groups.masked_fill(kept, -1).amax(1)).all()


def _inputs(wide: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(wide, wide, generator=generator, dtype=torch.float64)
    return torch.randn(400, wide, generator=generator, dtype=torch.float64) @ mix


@pytest.mark.parametrize("block", [8, 128])
@pytest.mark.parametrize("options", [SparsityOptions(), FOURS], ids=["half", "2:4"])
def test_compensation_errs_less_on_the_inputs_than_zeros_alone(options, block, monkeypatch) -> None:
    monkeypatch.setattr(room, "_BLOCK", block)
    for seed in range(5):
        x = _inputs(24, seed)
        weight = torch.randn(16, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        made = compensated(weight, x.T @ x / len(x), options)
        assert int((made == 0).sum()) == weight.numel() // 2
        zeros_alone = torch.where(made == 0, 0.0, weight)
        error = [float((x @ (weight - other).T).square().sum()) for other in (made, zeros_alone)]
        assert error[0] < 0.8 * error[1]


def test_inputs_that_have_nothing_in_common_leave_nothing_to_make_up_for() -> None:
    weight = torch.randn(8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = compensated(weight, torch.eye(12, dtype=torch.float64), FOURS)
    torch.testing.assert_close(made, pruned(weight, weight.abs(), FOURS))


def test_the_last_column_is_settled_as_least_squares_would() -> None:
    """With one weight to go, what the others should be has a closed form."""
    x = _inputs(4, 1)
    own = x.T @ x / len(x)
    weight = torch.tensor([[0.3, 20.0, -30.0, 15.0]], dtype=torch.float64)
    made = compensated(weight, own, SparsityOptions(share=0.25))
    assert made[0, 0] == 0
    best = torch.linalg.lstsq(x[:, 1:], x @ weight.T).solution.T
    torch.testing.assert_close(made[:, 1:], best, rtol=5e-3, atol=5e-3)


def test_two_of_four_is_half(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path, fit=4, judge=4)
    with pytest.raises(RecipeError, match=r"sparsity.share = 0.6 does not go with pattern '2:4'"):
        sparsify(model, SparsityOptions(share=0.6, pattern="2:4"), data)


def test_a_model_without_matrices_is_refused(tmp_path) -> None:
    model, data = with_data(tiny_transformer("bert"), tmp_path, fit=4, judge=4)
    model.module.model = torch.nn.Identity()
    with pytest.raises(ModelError, match="no matrix product"):
        sparsify(model, SparsityOptions(), data)
