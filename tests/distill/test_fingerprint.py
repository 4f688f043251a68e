"""Whatever changes an output changes the digest, and nothing else does."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.data import Sample
from edgekit.distill.fingerprint import model_sha256, samples_sha256
from edgekit.errors import DataError
from tests.distill.teachers import WORDS, pooled_teacher, text_teacher


def _nudged(model):
    model.module.linear.weight[0, 0] = torch.nextafter(model.module.linear.weight[0, 0], torch.tensor(9.0))
    return model


def _rescaled(model):
    model.module.scale = 2.0
    return model


def _another_part(model):
    model.module.linear = torch.nn.Sequential(model.module.linear)
    return model


def _with_buffer(model):
    model.module.register_buffer("steps", torch.tensor(3), persistent=False)
    return model


@pytest.mark.parametrize(
    "change",
    [
        *(_nudged, _rescaled, _another_part, _with_buffer),
        lambda model: replace(model, task="sentence-embedding"),
        lambda model: replace(model, source_sha256="1" * 64),
        lambda model: replace(model, preprocessor=text_teacher().preprocessor),
        lambda model: replace(model, module=model.module.to(torch.bfloat16)),
    ],
)
def test_a_changed_model_has_another_digest(change) -> None:
    assert model_sha256(change(pooled_teacher())) != model_sha256(pooled_teacher())


def test_a_changed_tokenizer_is_another_model() -> None:
    assert model_sha256(text_teacher(words=WORDS[::-1])) != model_sha256(text_teacher())


def test_another_limit_of_length_is_another_model() -> None:
    assert model_sha256(text_teacher(max_length=16)) != model_sha256(text_teacher())


def test_a_copy_is_the_same_model_also_after_it_ran() -> None:
    model = pooled_teacher()
    model = replace(model, module=copy.deepcopy(model.module), name="another name")
    model.module(x=torch.ones(2, 4))
    assert model_sha256(model) == model_sha256(pooled_teacher())


@pytest.mark.parametrize(
    "other",
    [["b", "a"], ["a"], ["a", "b", "b"], ["a", "B"], ["ab", ""]],
)
def test_other_samples_or_another_order_have_another_digest(other) -> None:
    assert samples_sha256([Sample(t) for t in other]) != samples_sha256([Sample("a"), Sample("b")])


def test_labels_do_not_count() -> None:
    assert samples_sha256([Sample("a", 1)]) == samples_sha256([Sample("a")])


def test_arrays_count_by_name_type_shape_and_value() -> None:
    values = [np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((2, 3), np.float32), np.ones((2, 3))]
    samples = [Sample({"x": value}) for value in values] + [Sample({"y": values[0]})]
    assert len({samples_sha256([sample]) for sample in samples}) == 5


def test_images_count_by_their_bytes_and_not_by_their_place(tmp_path: Path) -> None:
    for name, data in {"a.png": b"1", "b.png": b"1", "c.png": b"2"}.items():
        (tmp_path / name).write_bytes(data)
    first, same, other = (samples_sha256([Sample(tmp_path / f"{n}.png")]) for n in "abc")
    assert first == same
    assert first != other


def test_an_image_that_is_gone_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*gone\.png"):
        samples_sha256([Sample(tmp_path / "gone.png")])
