"""The arithmetic of scales and zero points."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edgekit.quantize.schemes import (
    ActivationScheme,
    dequantize_weight,
    pair_sums,
    quantize_product_weight,
    quantize_weight,
    with_room_for_bias,
)

SCHEMES = [
    pytest.param(ActivationScheme("uint8", False), id="u8"),
    pytest.param(ActivationScheme("int8", False), id="s8"),
    pytest.param(ActivationScheme("int8", True), id="s8-symmetric"),
    pytest.param(ActivationScheme("uint8", True), id="u8-symmetric"),
]
real = st.floats(-1e4, 1e4, width=32)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(low=real, high=real)
def test_zero_is_exact_in_every_range(scheme, low, high):
    affine = scheme.affine(min(low, high), max(low, high))
    assert affine.fake(np.zeros(1, np.float32))[0] == 0.0
    assert scheme.qmin <= affine.zero_point <= scheme.qmax


@pytest.mark.parametrize("scheme", SCHEMES)
@given(bounds=st.tuples(real, real), share=st.floats(0, 1))
def test_a_value_inside_the_range_moves_by_at_most_one_step(scheme, bounds, share):
    low, high = min(bounds), max(bounds)
    affine = scheme.affine(low, high)
    value = np.float32(low + share * (high - low))
    # Half a step of rounding, and half a step because the zero point is rounded too.
    assert abs(affine.fake(np.array([value]))[0] - value) <= affine.scale * 1.01 + 1e-6


@given(
    arrays(
        np.float32, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(-100, 100, width=32)
    )
)
def test_weights_come_back_within_half_a_step_per_channel(weight):
    codes, scale = quantize_weight(weight, 1, reduce_range=False)
    assert codes.dtype == np.int8
    assert np.abs(codes.astype(int)).max() <= 127
    error = np.abs(dequantize_weight(codes, scale, 1) - weight)
    assert (error <= scale[None, :] * 0.501).all()


@given(arrays(np.float32, (6, 5), elements=st.floats(-100, 100, width=32)))
def test_reduced_range_cannot_saturate_sixteen_bit_lanes(weight):
    codes, _ = quantize_weight(weight, 1, reduce_range=True)
    pairs = codes.astype(int)[0::2], codes.astype(int)[1::2]
    worst = 255 * (np.maximum(pairs[0], 0) + np.maximum(pairs[1], 0))
    assert worst.max() <= 32767


@given(arrays(np.float32, (7, 5), elements=st.floats(-100, 100, width=32)), st.booleans())
def test_a_safe_product_cannot_saturate_for_any_activation(weight, per_channel):
    codes, scale = quantize_product_weight(weight, per_channel=per_channel, saturation_safe=True)
    assert pair_sums(codes).max() <= 128
    assert np.iinfo(np.int16).max >= 255 * 128
    assert (np.abs(codes * scale - weight) <= scale * 0.501 + 1e-30).all()


def test_a_safe_product_uses_more_than_seven_bits_where_neighbours_allow_it():
    weight = np.array([[1.0], [0.1], [-0.5], [0.9]], np.float32)
    codes, _ = quantize_product_weight(weight, per_channel=True, saturation_safe=True)
    assert np.abs(codes).max() > 100


def test_the_certificate_is_that_of_exact_and_saturating_arithmetic():
    """The sums that VPMADDUBSW would clip are those that the certificate refuses."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        codes = rng.integers(-127, 128, (2, 1)).astype(np.int8)
        worst = max(
            abs(int(a) * int(codes[0, 0]) + int(b) * int(codes[1, 0])) for a in (0, 255) for b in (0, 255)
        )
        assert (pair_sums(codes).max() <= 128) == (worst <= 32767)


def test_a_dead_channel_gets_scale_one_and_zero_codes():
    weight = np.array([[0.0, 2.0], [0.0, -1.0]], np.float32)
    codes, scale = quantize_weight(weight, 1, reduce_range=False)
    assert scale[0] == 1.0
    assert not codes[:, 0].any()
    assert codes[0, 1] == 127


def test_one_scale_serves_a_whole_tensor_without_an_axis():
    codes, scale = quantize_weight(np.array([[1.0, -4.0]], np.float32), None, reduce_range=False)
    assert scale.shape == ()
    assert codes.tolist() == [[32, -127]]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_codes_are_those_of_onnx_runtime(scheme):
    """The same numbers as QuantizeLinear followed by DequantizeLinear."""
    import onnx_ir as ir

    from edgekit.quantize.insert import quantize_dequantize
    from edgekit.runtime import open_session

    values = np.linspace(-7, 9, 1001, dtype=np.float32)
    affine = scheme.affine(-5.0, 6.5)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1001]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 20}, name="g")
    pair = quantize_dequantize(graph, x, affine, "x")
    graph.extend(pair)
    out = pair[-1].outputs[0]
    out.type, out.shape = x.type, x.shape
    graph.outputs.append(out)
    model = ir.Model(graph, ir_version=10)
    session = open_session(ir.serde.serialize_model(model).SerializeToString(), optimize=False)
    np.testing.assert_allclose(session.run(None, {"x": values})[0], affine.fake(values), atol=1e-6)


@given(
    arrays(np.int8, (6, 4), elements=st.integers(-127, 127)),
    arrays(np.float32, 4, elements=st.floats(2.0**-40, 1, width=32)),
    arrays(np.float32, 4, elements=st.floats(-100, 100, width=32)),
)
def test_every_bias_fits_half_the_accumulator_and_weights_move_by_half_a_step(codes, scale, bias) -> None:
    step = 2.0**-20
    new, wider = with_room_for_bias(codes, scale, 1, step, bias)
    assert (np.abs(bias) <= step * wider.astype(np.float64) * 2**30 * (1 + 1e-6)).all()
    moved = np.abs(new * wider.astype(np.float64) - codes * scale.astype(np.float64))
    assert (moved <= wider / 2 * (1 + 1e-6)).all()
    kept = wider == scale
    np.testing.assert_array_equal(new[:, kept], codes[:, kept])
