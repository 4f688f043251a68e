"""A model must not make us read a file outside its folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from onnx import TensorProto

from edgekit.errors import ModelError
from edgekit.validate.external_data import external_files


def _tensor(location: str, **entries: object) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


@pytest.fixture
def model(tmp_path) -> Path:
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    (tmp_path / "model" / "sub").mkdir(parents=True)
    for name in ("w.data", "sub/w.data"):
        (tmp_path / "model" / name).write_bytes(bytes(64))
    return tmp_path / "model" / "m.onnx"


def test_files_beside_and_below_the_model_are_named_once(model) -> None:
    tensors = [_tensor("w.data"), _tensor("sub/w.data", offset=8, length=8), _tensor("w.data", length=64)]
    assert external_files(tensors, model) == ("w.data", "sub/w.data")


def test_weights_inside_the_file_name_nothing(model) -> None:
    assert external_files([TensorProto(name="w", raw_data=bytes(8))], model) == ()


@pytest.mark.parametrize(
    "location",
    [
        "",
        "..",
        "../secret.bin",
        "sub/../../secret.bin",
        "/etc/hostname",
        "//etc/hostname",
        "w.data\0",
        "..\\secret.bin",
        "sub\\..\\..\\secret.bin",
        "C:secret.bin",
        "C:\\secret.bin",
        "\\\\host\\share\\w",
    ],
)
def test_a_name_that_leads_out_is_refused(model, location) -> None:
    with pytest.raises(ModelError, match="outside the model's folder"):
        external_files([_tensor(location)], model)


def test_an_absolute_name_is_refused_even_inside_the_folder(model) -> None:
    with pytest.raises(ModelError, match="outside the model's folder"):
        external_files([_tensor(str(model.parent / "w.data"))], model)


@pytest.mark.parametrize("location", ["link.data", "linked/w.data"])
def test_a_link_is_refused_also_on_the_way(model, location) -> None:
    (model.parent / "link.data").symlink_to("../secret.bin")
    (model.parent / "linked").symlink_to("sub", target_is_directory=True)
    with pytest.raises(ModelError, match="is a link"):
        external_files([_tensor(location)], model)


def test_a_missing_file_a_folder_and_a_pipe_are_refused(model) -> None:
    os.mkfifo(model.parent / "pipe")
    with pytest.raises(ModelError, match="is missing"):
        external_files([_tensor("gone.data")], model)
    for location in ("sub", "pipe"):
        with pytest.raises(ModelError, match="is not a file"):
            external_files([_tensor(location)], model)


@pytest.mark.parametrize(
    "entries",
    [{"offset": 60, "length": 8}, {"length": 65}, {"offset": 65}],
)
def test_a_file_that_ends_before_the_weight_is_refused(model, entries) -> None:
    with pytest.raises(ModelError, match="ends before the weight 'w'"):
        external_files([_tensor("w.data", **entries)], model)


@pytest.mark.parametrize("entries", [{"offset": "x"}, {"length": ""}, {"offset": -8}])
def test_a_place_that_is_no_number_is_refused(model, entries) -> None:
    with pytest.raises(ModelError, match="no readable place"):
        external_files([_tensor("w.data", **entries)], model)
