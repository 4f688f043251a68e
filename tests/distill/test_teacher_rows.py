"""What is kept of a teacher's outputs is what it gives, without padding, as half precision can hold it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.data import Sample
from edgekit.distill.teacher_rows import (
    COUNTS,
    INDICES,
    LOG_REST,
    VALUES,
    TeacherRun,
    Wanted,
    block_tables,
)
from edgekit.errors import DataError, ModelError
from tests.distill.teachers import (
    WORDS,
    AsItIs,
    Pooled,
    array_teacher,
    arrays,
    pooled_teacher,
    seeded,
    text_teacher,
    texts,
)


def _tables(teacher, samples, wanted=Wanted()):  # noqa: B008
    return block_tables(TeacherRun.on("cpu", teacher, wanted), samples, 0)


def _single(teacher, sample):
    """The teacher's rows of one sample that is alone in its batch."""
    inputs = teacher.preprocessor.batch([sample])
    (output,) = teacher.module(**{n: torch.from_numpy(inputs[n]) for n in teacher.input_names}).values()
    return output[0].numpy().astype(np.float16)


def test_a_pooled_output_has_one_row_per_sample() -> None:
    samples = arrays(40, 4)
    tables = _tables(pooled_teacher(), samples)
    assert tables[COUNTS].tolist() == [1] * 40
    expected = np.stack([_single(pooled_teacher(), sample) for sample in samples])
    np.testing.assert_allclose(tables[VALUES].astype(float), expected.astype(float), atol=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("masked", [True, False])
def test_an_output_per_position_has_one_row_per_token_that_is_no_padding(side, masked) -> None:
    teacher, samples = text_teacher(masked=masked, side=side), texts(50)
    tables = _tables(teacher, samples)
    assert tables[COUNTS].tolist() == [len(sample.value.split()) for sample in samples]
    expected = np.concatenate([_single(teacher, sample) for sample in samples])
    np.testing.assert_array_equal(tables[VALUES], expected)


@pytest.mark.parametrize(("shape", "rows"), [((6, 5), 6), ((2, 3, 5), 6), ((), 1)])
def test_every_position_counts_where_there_is_no_mask(shape, rows) -> None:
    samples = arrays(20, *shape)
    tables = _tables(array_teacher(AsItIs(), *shape), samples)
    assert tables[COUNTS].tolist() == [rows] * 20
    expected = np.concatenate([s.value["x"].reshape(rows, -1) for s in samples]).astype(np.float16)
    np.testing.assert_array_equal(tables[VALUES], expected)


def test_a_module_may_return_a_tuple() -> None:
    class Tupled(Pooled):
        def forward(self, x):
            return (super().forward(x)["embedding"],)

    samples = arrays(20, 4)
    tables = _tables(array_teacher(seeded(Tupled), 4), samples)
    np.testing.assert_array_equal(tables[VALUES], _tables(pooled_teacher(), samples)[VALUES])


@given(
    logits=st.lists(st.lists(st.floats(-60, 60, width=32), min_size=6, max_size=6), min_size=1, max_size=20),
    top=st.integers(1, 8),
    temperature=st.floats(0.25, 8),
)
def test_the_top_and_the_rest_are_the_teachers_distribution(logits, top, temperature) -> None:
    rows = np.array(logits, np.float32)
    tables = _tables(
        array_teacher(AsItIs(), 6), [Sample({"x": row}) for row in rows], Wanted(top, temperature)
    )
    expected = torch.from_numpy(rows / temperature).double().log_softmax(dim=1).numpy()
    kept = min(top, 6)
    assert tables[VALUES].shape == tables[INDICES].shape == (len(rows), kept)
    np.testing.assert_allclose(
        tables[VALUES].astype(float),
        np.take_along_axis(expected, tables[INDICES].astype(int), axis=1),
        rtol=1e-3,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        tables[VALUES].astype(float), -np.sort(-expected)[:, :kept], rtol=1e-3, atol=1e-5
    )
    rest = np.exp(-np.sort(-expected)[:, kept:]).sum(axis=1)
    np.testing.assert_allclose(np.exp(tables[LOG_REST]), rest, rtol=1e-3, atol=1e-6)


def test_many_rows_are_ranked_like_few() -> None:
    long = arrays(1, 2500, 6)[0]
    tables = _tables(array_teacher(AsItIs(), 2500, 6), [long], Wanted(2))
    expected = torch.from_numpy(long.value["x"]).topk(2).indices
    np.testing.assert_array_equal(tables[INDICES], expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65505.0, -70000.0])
def test_an_output_that_half_precision_cannot_hold_is_named_with_its_sample(value) -> None:
    samples = texts(40)
    teacher = text_teacher(words=["poison", *WORDS[:-1]])
    teacher.module.table.weight[2, 1] = value / 3  # the teacher multiplies by 3
    samples[23] = Sample("the quick poison jumps over the lazy dog and then over the fox and the dog")
    with pytest.raises(ModelError) as caught:
        block_tables(TeacherRun.on("cpu", teacher, Wanted()), samples, 1000)
    assert caught.value.message == (
        "the teacher's output for sample 1023 is not finite, or over 65504: "
        "'the quick poison jumps over the lazy dog and then over th...'"
    )
    assert "Leave the sample out" in caught.value.hint


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -3e38])
def test_so_are_logits_of_which_the_top_is_kept(value) -> None:
    samples = arrays(20, 3)
    samples[7].value["x"][1] = 99
    with pytest.raises(ModelError, match=r"sample 7 is not finite, or over 65504: 'x \["):
        _tables(array_teacher(AsItIs(value), 3), samples, Wanted(3))


def test_large_logits_are_no_harm_where_the_top_is_kept() -> None:
    tables = _tables(array_teacher(AsItIs(), 3), [Sample({"x": np.float32([1e6, 1e6, 0])})], Wanted(2))
    np.testing.assert_allclose(np.exp(tables[VALUES].astype(float)), [[0.5, 0.5]], rtol=1e-3)


def test_an_image_is_named_by_its_file(tmp_path: Path) -> None:
    from PIL import Image

    from edgekit.tasks.image import ImagePreprocessor

    Image.new("RGB", (2, 2), "white").save(tmp_path / "white.png")
    teacher = array_teacher(AsItIs(), 3, 2, 2)
    eyes = ImagePreprocessor("x", 3, None, None, 1e6, None, None)
    with pytest.raises(ModelError, match=r"sample 0 .*: 'white\.png'"):
        _tables(replace(teacher, preprocessor=eyes), [Sample(tmp_path / "white.png")])


def test_a_sample_that_the_model_cannot_take_is_a_data_error() -> None:
    with pytest.raises(DataError, match="the data is text"):
        _tables(pooled_teacher(), [Sample("a text")])


def test_the_teacher_is_copied_to_another_device_and_stays_where_it_was() -> None:
    teacher = pooled_teacher()
    run = TeacherRun.on("meta", teacher, Wanted())
    assert run.module.linear.weight.device.type == "meta"
    assert teacher.module.linear.weight.device.type == "cpu"
    assert TeacherRun.on("cpu", teacher, Wanted()).module is teacher.module
