"""A job as plain files: what goes in comes out, and a broken answer is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from edgekit.errors import RunnerFailedError
from edgekit.runners import Job, Measure
from edgekit.runners.child import TYPES, read_job, read_tensors, write_tensors
from edgekit.runners.job_folder import read_result, write_job

ARRAYS = st.sampled_from(list(TYPES.values())).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)


@given(st.dictionaries(st.text(min_size=1, max_size=12), ARRAYS, max_size=4))
def test_tensor_files_keep_every_name_type_shape_and_byte(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("ekt") / "t.ekt"
    write_tensors(path, tensors)
    found = read_tensors(path)
    assert list(found) == list(tensors)
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].tobytes() == value.tobytes()


@given(st.integers(min_value=0, max_value=95))
def test_a_tensor_file_that_was_cut_is_refused(tmp_path_factory: pytest.TempPathFactory, kept: int) -> None:
    path = tmp_path_factory.mktemp("ekt") / "t.ekt"
    write_tensors(path, {"x": np.arange(8, dtype=np.float32), "y": np.zeros((2, 2), np.int64)})
    whole = path.read_bytes()
    path.write_bytes(whole[: min(kept, len(whole) - 8)])
    with pytest.raises(ValueError, match="not a whole tensor file"):
        read_tensors(path)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    model = tmp_path / "shipped.onnx"
    model.write_bytes(b"model")
    model.with_name("shipped.onnx.data").write_bytes(b"weights")
    base = tmp_path / "base.onnx"
    base.write_bytes(b"float")
    x = np.ones((2, 3), np.float32)
    return Job(
        model,
        ({"x": x}, {"x": 2 * x}),
        ("y",),
        session_options={"session.a": "1"},
        measure=Measure(base, {"1x3": {"x": x[:1]}}, warm_up=2, runs=5),
    )


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    folder.mkdir()
    return folder


def test_a_job_folder_says_all_of_the_job(tmp_path: Path, job: Job) -> None:
    folder = _folder(tmp_path)
    write_job(job, folder)
    told = read_job(folder)
    assert told["batch"] == ["in/0000.ekt", "in/0001.ekt"]
    assert told["option"] == [("session.a", "1")]
    assert told["point"] == [("1x3", "points/0000.ekt")]
    assert told["output"] == ["y"]
    assert (told["threads"], told["repeats"], told["warm_up"], told["runs"]) == ("1", "1", "2", "5")
    assert (folder / told["model"]).read_bytes() == b"model"
    assert (folder / told["float"]).read_bytes() == b"float"
    assert (folder / "shipped.onnx.data").read_bytes() == b"weights", "external data keeps its name"
    assert np.array_equal(read_tensors(folder / "in/0001.ekt")["x"], np.full((2, 3), 2, np.float32))


@pytest.mark.parametrize("fault", ["no result", "no output", "cut output", "half a result"])
def test_an_answer_that_is_not_whole_is_a_failed_run(tmp_path: Path, job: Job, fault: str) -> None:
    folder = _folder(tmp_path)
    write_job(job, folder)
    (folder / "out").mkdir()
    for index in range(2):
        write_tensors(folder / "out" / f"{index:04d}.ekt", {"y": np.zeros(2, np.float32)})
    told = {"deterministic": True, "runtime_version": "1.31.1"}
    (folder / "result.json").write_text(json.dumps(told))
    assert read_result(job, folder, "there").deterministic
    if fault == "no result":
        (folder / "result.json").unlink()
    elif fault == "half a result":
        (folder / "result.json").write_text('{"deterministic": true')
    elif fault == "no output":
        write_tensors(folder / "out" / "0001.ekt", {"z": np.zeros(2, np.float32)})
    else:
        (folder / "out" / "0001.ekt").write_bytes(b"EKT1\1")
    with pytest.raises(RunnerFailedError, match="there: failed: its result cannot be read"):
        read_result(job, folder, "there")
