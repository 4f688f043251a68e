"""Weight files that must not be loaded, and how the error names them."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from edgekit.errors import ModelError
from edgekit.source.checkpoint import check_finite, check_safetensors, weight_files


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.int64)}, file)
    return file


def test_a_whole_file_passes(good: Path) -> None:
    check_safetensors(good)
    assert weight_files(good.parent, allow_pickle=False) == (good,)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_a_file_cut_anywhere_is_refused_by_name(share: float, good: Path, tmp_path: Path) -> None:
    cut = tmp_path / "model.safetensors"
    data = good.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        check_safetensors(cut)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=200))
def test_junk_is_refused_and_nothing_else_is_raised(junk: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(junk)
    with pytest.raises(ModelError):
        check_safetensors(file)


def test_a_git_lfs_pointer_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ModelError, match="Git LFS pointer"):
        weight_files(tmp_path, allow_pickle=False)


def test_a_shard_that_is_missing_is_named(tmp_path: Path, good: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    with pytest.raises(ModelError, match=r"model-1\.safetensors is missing"):
        weight_files(tmp_path, allow_pickle=False)


def test_a_shard_outside_of_the_folder_is_refused(tmp_path: Path, good: Path) -> None:
    inner = tmp_path / "model"
    inner.mkdir()
    (tmp_path / "x.safetensors").write_bytes(good.read_bytes())
    (inner / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')
    with pytest.raises(ModelError, match="outside"):
        weight_files(inner, allow_pickle=False)


def test_a_pickle_is_refused_unless_allowed(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only a pickle checkpoint") as caught:
        weight_files(tmp_path, allow_pickle=False)
    assert "--allow-pickle" in caught.value.hint
    assert weight_files(tmp_path, allow_pickle=True) == (tmp_path / "pytorch_model.bin",)


class _Touch:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_an_allowed_pickle_that_holds_code_is_refused_and_runs_nothing(
    save: Callable[[object, Path], object], tmp_path: Path
) -> None:
    marker = tmp_path / "executed"
    save({"a": torch.ones(2), "b": _Touch(marker)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds more than tensors"):
        weight_files(tmp_path, allow_pickle=True)
    assert not marker.exists()


def test_weights_of_another_framework_are_named(tmp_path: Path) -> None:
    (tmp_path / "tf_model.h5").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"tf_model\.h5, which cannot be loaded"):
        weight_files(tmp_path, allow_pickle=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(value: float) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    with torch.no_grad():
        module[1].weight[0, 2] = value
    with pytest.raises(ModelError, match=r"1 of 3 values of 1\.weight"):
        check_finite(module)


def test_a_mask_buffer_may_hold_infinity() -> None:
    module = torch.nn.Linear(2, 2)
    module.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    check_finite(module)
