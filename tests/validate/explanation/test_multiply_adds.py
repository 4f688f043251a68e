"""Multiply-adds are counted from shapes, and counted alike however a product is written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.validate.explanation.multiply_adds import multiply_adds

sizes = st.integers(1, 40)


def counted(*operands: np.ndarray) -> int:
    """Multiply-adds of a product, counted by multiplying ones: each adds one to a sum."""
    return int(np.matmul(*(np.ones(operand) for operand in operands)).sum())


@given(st.lists(sizes, max_size=2), sizes, sizes, sizes)
def test_a_matrix_product_has_as_many_as_multiplying_ones_adds_up(batch, rows, inner, columns):
    first, second = (*batch, rows, inner), (inner, columns)
    expected = counted(first, second)
    assert multiply_adds("MatMul", {}, [first, second], (*batch, rows, columns)) == (expected, 0)
    turned = (*batch, inner, rows)
    assert (
        multiply_adds("FusedMatMul", {"transA": 1}, [turned, second], (*batch, rows, columns))[0] == expected
    )


@given(sizes, sizes, sizes)
def test_the_int8_forms_have_as_many_as_the_float_form(rows, inner, columns):
    first, weight, output = (rows, inner), (inner, columns), (rows, columns)
    expected = multiply_adds("Gemm", {}, [first, weight], output)
    assert multiply_adds("QGemm", {}, [first, (), (), weight, (columns,), ()], output) == expected
    assert multiply_adds("MatMulIntegerToFloat", {}, [first, weight, (), ()], output) == expected


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 6))
def test_a_convolution_has_one_per_weight_of_its_filter_and_output_value(
    batch, group, channels, kernel, side
):
    weight, output = (2 * group, channels, kernel, kernel), (batch, 2 * group, side, side)
    inputs = [(batch, group * channels, side, side), weight]
    expected = batch * side * side * int(np.ones(weight).sum())
    assert multiply_adds("Conv", {"group": group}, inputs, output) == (expected, 0)
    quantized = [inputs[0], (), (), weight, (), (), (), ()]
    assert multiply_adds("QLinearConv", {"group": group}, quantized, output) == (expected, 0)


def test_a_fused_attention_has_its_projections_and_its_two_products():
    batch, length, width = 2, 5, 8
    projections, products = multiply_adds(
        "Attention", {}, [(batch, length, width), (width, 3 * width)], (batch, length, width)
    )
    assert projections == counted((batch, length, width), (width, 3 * width))
    assert products == 2 * counted((batch, length, width), (width, length))


@pytest.mark.parametrize("op", ["Add", "Softmax", "Reshape", "QuantizeLinear"])
def test_other_ops_have_none(op):
    assert multiply_adds(op, {}, [(2, 3), (2, 3)], (2, 3)) == (0, 0)


def test_a_product_whose_shapes_are_not_known_has_none():
    assert multiply_adds("MatMul", {}, [], (2, 3)) == (0, 0)
