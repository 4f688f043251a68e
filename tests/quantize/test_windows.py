"""Windows: a convolution at random places is a matrix product."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.quantize.windows import INPUTS_KEPT, KeptInputs, as_stored, kernel_weight, products, windows_of


def conv(weight, **attributes):
    tensor = ir.tensor(weight, name="w")
    value = ir.Value(name="w", const_value=tensor)
    return ir.node("Conv", [ir.Value(name="x"), value], attributes)


@settings(max_examples=40, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    seed=st.integers(0, 99),
)
def test_products_of_windows_are_values_of_the_convolution(groups, kernel, stride, dilation, pads, seed):
    import torch

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 4, 7, 6)).astype(np.float32)
    weight = rng.normal(size=(8, 4 // groups, *kernel)).astype(np.float32)
    node = conv(weight, group=groups, strides=[stride] * 2, dilations=[dilation] * 2, pads=list(pads))
    top, left, bottom, right = pads
    padded = torch.nn.functional.pad(torch.from_numpy(x), (left, right, top, bottom))
    real = torch.nn.functional.conv2d(
        padded, torch.from_numpy(weight), stride=stride, dilation=dilation, groups=groups
    )
    outputs = np.moveaxis(real.numpy(), 1, -1).reshape(-1, 8)
    found = products(windows_of(node, x, rng), kernel_weight(node))
    assert len(found) >= 4
    nearest = np.abs(found[:, None] - outputs).max(axis=2).min(axis=1)
    assert nearest.max() < 1e-4


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5), (6, 4, 3, 3), (6, 2, 2, 3, 2)])
def test_a_weight_goes_through_its_common_form_unchanged(shape):
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    node = conv(weight)
    if len(shape) == 2:
        node = ir.node("Gemm", node.inputs, {"transB": 1})
    common = kernel_weight(node)
    assert common.shape == (shape[0], shape[1], int(np.prod(shape[2:])))
    assert np.array_equal(as_stored(node, common), weight)


@given(order=st.permutations(range(INPUTS_KEPT + 9)))
@settings(max_examples=20)
def test_the_same_inputs_are_kept_whatever_their_order(order):
    kept = KeptInputs()
    for number in order:
        kept.offer(number, {"x": np.array([number])})
    assert [int(batch["x"][0]) for batch in kept.in_order()] == list(range(INPUTS_KEPT))
