"""Modules that compute in float what 8-bit kernels compute in codes: the same numbers, and gradients."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from edgekit.distill.fake_quant import (
    BlockScales,
    CodedEmbedding,
    CodedLinear,
    InputCodes,
    rounded,
    weight_scale,
    with_codes,
    without_codes,
)
from edgekit.quantize.blocks import BLOCK, MIDDLE, block_codes
from edgekit.quantize.schemes import ActivationScheme, dequantize_weight, quantize_product_weight
from tests.distill.learners import net

SCHEMES = [ActivationScheme(dtype, symmetric) for dtype in ("uint8", "int8") for symmetric in (False, True)]
finite = st.floats(-1e4, 1e4, width=32)
ranges = st.tuples(finite, finite).map(sorted)


def _codes(scheme, low, high, *, safe=False):
    affine = scheme.affine(low, high)
    return affine, InputCodes(affine.scale, affine.zero_point, scheme.qmin, scheme.qmax, safe)


def _rounded(x, codes):
    scale = torch.tensor(codes.scale, dtype=torch.float32)
    return rounded(x, scale, torch.tensor(float(codes.zero_point)), codes.lowest, codes.highest)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@given(ends=ranges, values=hnp.arrays(np.float32, (3, 7), elements=finite))
def test_activations_are_rounded_as_the_quantizer_does_to_the_bit(scheme, ends, values):
    affine, codes = _codes(scheme, *ends)
    found = _rounded(torch.from_numpy(values), codes).numpy()
    np.testing.assert_array_equal(found, affine.fake(values))


@given(ends=ranges, values=hnp.arrays(np.float32, 50, elements=finite))
def test_the_gradient_is_1_where_the_range_holds_a_value_and_0_outside(ends, values):
    affine, codes = _codes(SCHEMES[0], *ends)
    x = torch.from_numpy(values).requires_grad_()
    _rounded(x, codes).sum().backward()
    half = affine.scale / 2
    inside = (values > affine.low - half * 0.99) & (values < affine.high + half * 0.99)
    outside = (values < affine.low - half * 1.01) | (values > affine.high + half * 1.01)
    assert x.grad is not None
    assert (x.grad.numpy()[inside] == 1).all()
    assert (x.grad.numpy()[outside] == 0).all()


def test_what_is_clipped_is_seen_in_both_directions():
    affine, codes = _codes(SCHEMES[0], -1.0, 1.5)
    x = torch.tensor([-5.0, affine.low, 0.3, affine.high, 5.0], requires_grad=True)
    out = _rounded(x, codes)
    out.sum().backward()
    assert out[0] == out[1]
    assert out[3] == out[4]
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


# Odd and even K, zeros, numbers beyond float16's range on both ends.
magnitudes = st.sampled_from([0.0, 1e-40, 1e-30, 1e-9, 1e-3, 1.0, 50.0, 1e7])
weights = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=st.floats(-1, 1, width=32)),
        hnp.arrays(np.float32, shape[0], elements=magnitudes.map(np.float32)),
    )
)


@pytest.mark.parametrize("safe", [False, True])
@given(made=weights)
def test_scales_of_weights_are_those_that_the_quantizer_finds_again(safe, made):
    weight = (made[0] * made[1][:, None]).astype(np.float32)
    codes, scale = quantize_product_weight(weight.T, per_channel=True, saturation_safe=safe)
    found = weight_scale(torch.from_numpy(weight), saturation_safe=safe)
    np.testing.assert_array_equal(found[:, 0].numpy(), scale)
    real = rounded(torch.from_numpy(weight), found, torch.zeros_like(found), -127, 127).numpy()
    np.testing.assert_array_equal(real, dequantize_weight(codes.T, scale, 0))


@pytest.mark.parametrize("safe", [False, True])
def test_a_product_is_that_of_the_codes_and_every_weight_learns(safe):
    torch.manual_seed(0)
    plain = nn.Linear(9, 5)
    affine, codes = _codes(SCHEMES[0], -2.0, 3.0, safe=safe)
    coded, x = CodedLinear.of(plain, codes), torch.randn(4, 9)
    quantized, scale = quantize_product_weight(
        plain.weight.detach().numpy().T, per_channel=True, saturation_safe=safe
    )
    wanted = affine.fake(x.numpy()) @ (quantized * scale) + plain.bias.detach().numpy()
    np.testing.assert_allclose(coded(x).detach().numpy(), wanted, rtol=1e-5, atol=1e-6)
    coded(x).sum().backward()
    assert coded.weight.grad is not None
    assert coded.weight.grad.abs().min() > 0


def test_weights_learn_to_make_up_for_coarse_codes():
    torch.manual_seed(0)
    teacher, x = nn.Linear(16, 4), torch.rand(256, 16)
    student = CodedLinear.of(copy.deepcopy(teacher), InputCodes(1 / 3, 0, 0, 3, saturation_safe=False))
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    lost = []
    for _ in range(60):
        loss = (student(x) - teacher(x).detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lost.append(float(loss.detach()))
    assert lost[-1] < 0.9 * lost[0]


def test_half_precision_around_it_leaves_codes_and_gradients_what_they_are():
    torch.manual_seed(0)
    affine, codes = _codes(SCHEMES[0], -2.0, 2.0)
    coded = CodedLinear.of(nn.Linear(8, 4), codes)
    x = torch.randn(5, 8).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = coded(x)
    out.float().sum().backward()
    exact = coded(torch.from_numpy(affine.fake(x.detach().float().numpy())))
    torch.testing.assert_close(out.float(), exact, rtol=0.02, atol=0.02)
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    assert coded.weight.grad is not None


def test_rows_in_8_bits_are_those_that_the_file_will_hold():
    torch.manual_seed(0)
    plain = nn.Embedding(20, 12)
    ids = torch.tensor([[3, 7], [3, 0]])
    codes, scale = quantize_product_weight(
        plain.weight.detach().numpy().T, per_channel=True, saturation_safe=False
    )
    wanted = (codes * scale).T[ids.numpy()]
    np.testing.assert_array_equal(CodedEmbedding.of(plain, None)(ids).detach().numpy(), wanted)


@pytest.mark.parametrize("columns", [64, 70], ids=["whole blocks", "a short last block"])
@pytest.mark.parametrize("shifted", [0.0, 3.0], ids=["no zero points", "zero points"])
def test_rows_in_4_bits_are_those_that_the_file_will_hold(columns, shifted):
    torch.manual_seed(0)
    plain = nn.Embedding(20, columns)
    plain.weight.data += shifted
    found = block_codes(plain.weight.detach().numpy())
    assert (found.zero_point is not None) == bool(shifted)
    zero = np.full(found.scale.shape, MIDDLE, np.uint8) if found.zero_point is None else found.zero_point
    coded, ids = CodedEmbedding.of(plain, BlockScales(BLOCK, found.scale, zero)), torch.tensor([5, 5, 19])
    np.testing.assert_array_equal(coded(ids).detach().numpy(), found.real()[ids.numpy()])
    coded(ids).sum().backward()
    assert coded.weight.grad is not None
    assert set(coded.weight.grad[5].unique().tolist()) <= {0.0, 2.0}


def test_codes_come_and_go_and_the_weights_between_are_kept():
    plain = net()
    _, codes = _codes(SCHEMES[0], -1.0, 1.0)
    coded = with_codes(plain, {"first": codes, "last": codes}, {})
    assert isinstance(coded.module.get_submodule("last"), CodedLinear)
    assert not isinstance(plain.module.get_submodule("last"), CodedLinear)
    tied = [coded.module.get_submodule(name).get_parameter("weight") for name in ("first", "last")]
    assert tied[0] is tied[1]
    with torch.no_grad():
        tied[0].add_(1)
    back = without_codes(coded, plain)
    assert {type(part) for part in back.module.modules()} == {type(part) for part in plain.module.modules()}
    torch.testing.assert_close(back.module.first.weight, plain.module.first.weight + 1)  # type: ignore[operator, union-attr]
