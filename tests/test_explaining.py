"""Shapes as people write them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import RecipeError
from edgekit.explaining import parse_shape, skips_of
from edgekit.record import Skip, StepRecord


@given(st.integers(1, 999_999), st.integers(1, 9_999_999))
def test_a_shape_is_read_as_it_is_written(batch, length):
    assert parse_shape(f"{batch}x{length}", sequence=True, max_length=None) == (batch, length)
    assert parse_shape(f"{batch}", sequence=False, max_length=None) == (batch, 0)


@given(st.text(max_size=12))
def test_any_text_is_refused_or_a_shape_that_the_model_takes(text):
    with contextlib.suppress(RecipeError):
        batch, length = parse_shape(text, sequence=True, max_length=512)
        assert batch >= 1
        assert 1 <= length <= 512


def test_a_length_for_a_model_without_sequences_is_refused():
    with pytest.raises(RecipeError, match="takes no sequences"):
        parse_shape("1x128", sequence=False, max_length=None)


def test_only_what_quantization_left_alone_is_a_reason():
    skip = Skip("MatMul a", "too sensitive")
    history = (
        StepRecord("load", "x", "y", skipped=(Skip("pooler", "not used"),)),
        StepRecord("quantize", "x", "y", skipped=(skip,)),
    )
    assert skips_of(history) == (skip,)
