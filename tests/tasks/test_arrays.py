"""Arrays reach a plain module as they are, or are refused with the reason."""

import json

import numpy as np
import pytest

from edgekit.data import Sample
from edgekit.errors import DataError
from edgekit.model import TensorSpec
from edgekit.tasks.arrays import ArrayPreprocessor

TWO = ArrayPreprocessor(
    (
        TensorSpec("x", "float32", ("batch", "time", 3)),
        TensorSpec("steps", "int64", ("batch", "time")),
    )
)
ONE = ArrayPreprocessor((TensorSpec("x", "float32", ("batch", 2)),))


def sample(time: int, **changed) -> Sample:
    value = {"x": np.ones((time, 3), np.float32), "steps": np.arange(time)}
    return Sample(value | changed)


def test_samples_are_stacked_by_input_name():
    batch = TWO.batch([sample(4), sample(4)])
    assert list(batch) == ["x", "steps"]
    assert batch["x"].shape == (2, 4, 3)
    assert batch["steps"].dtype == np.int64


def test_wider_types_and_float64_are_converted():
    batch = TWO.batch([sample(4, x=np.full((4, 3), 0.1), steps=np.arange(4, dtype=np.int16))])
    assert (batch["x"].dtype, batch["steps"].dtype) == (np.float32, np.int64)


def test_one_array_and_one_input_need_no_common_name():
    assert list(ONE.batch([Sample({"anything": np.zeros(2)})])) == ["x"]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([sample(4, x=np.ones((4, 2), np.float32))], r"shape \(4, 2\), the model takes \(time, 3\)"),
        ([sample(4, x=np.ones(4, np.float32))], r"shape \(4,\), the model takes \(time, 3\)"),
        ([sample(4), sample(5)], "axis 'time' is 5, but 4 elsewhere in the batch"),
        ([sample(4, steps=np.arange(5))], r"input 'steps': axis 'time' is 5, but 4 .*'x'"),
        ([sample(4, steps=np.ones(4))], "the data is float64, the model takes int64"),
        ([sample(4, x=np.ones((4, 3), np.uint8))], "the data is uint8, the model takes float32"),
        ([sample(4, x=np.full((4, 3), 1e300))], "too large for float32"),
        ([sample(4, z=np.ones(1))], "no input for the array 'z'"),
        ([Sample({"x": np.ones((4, 3)), "step": np.ones(4)})], "(?s)no array for the .*'steps'.*mean 'step'"),
        ([Sample("text")], "the data is text, the model wants arrays"),
    ],
)
def test_what_does_not_fit_is_refused(samples, message):
    with pytest.raises(DataError, match=message):
        TWO.batch(samples)


def test_labels_are_class_indices():
    labelled = [Sample({"x": np.zeros(2)}, 3), Sample({"x": np.zeros(2)}, 0)]
    assert ONE.labels(labelled, {}).tolist() == [3, 0]
    assert ONE.labels([*labelled, Sample({"x": np.zeros(2)})], {}) is None
    with pytest.raises(DataError, match="no class 'cat'"):
        ONE.labels([Sample({"x": np.zeros(2)}, "cat")], {})


def test_the_description_gives_types_and_shapes():
    assert json.loads(json.dumps(TWO.to_json()))["inputs"]["x"] == {
        "dtype": "float32",
        "shape": ["batch", "time", 3],
    }
