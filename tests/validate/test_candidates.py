"""Forms of a model side by side."""

import json

import numpy as np
import onnx
import pytest

from edgekit.golden import Golden, GoldenBatch
from edgekit.record import Check
from edgekit.validate.candidates import Timings, measure_candidates

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 8] x) => (float[batch, 4] output) { output = MatMul (x, w) }
"""
WEIGHT = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


@pytest.fixture
def files(tmp_path):
    made = {}
    for name, weight in {"float": WEIGHT, "static": np.round(WEIGHT * 20) / 20, "dynamic": -WEIGHT}.items():
        proto = onnx.parser.parse_model(TEXT)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight.astype(np.float32), "w"))
        made[name] = tmp_path / f"{name}.onnx"
        onnx.save(proto, made[name])
    return made


@pytest.fixture
def golden():
    x = np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)
    return Golden("generic", (GoldenBatch({"x": x}, {"output": x @ WEIGHT}),))


def measure(files, golden, **changes):
    request = {"timed": True, "runs": 10, "threads": 1, "session_options": {}, "gates": {}} | changes
    found, _ = measure_candidates(files, golden, [(1, 1), (4, 1)], **request)
    return {candidate.name: candidate for candidate in found}


def test_every_form_has_its_size_its_checks_and_its_speeds(files, golden):
    found = measure(files, golden)
    assert list(found) == ["float", "static", "dynamic"]
    assert found["float"].file_bytes == files["float"].stat().st_size
    assert [speed.shape for speed in found["static"].speeds] == ["1", "4"]
    assert all(s.speedup_low <= s.speedup <= s.speedup_high for s in found["static"].speeds)
    assert found["float"].speeds[0].speedup == 1.0


def test_a_form_that_is_wrong_does_not_pass(files, golden):
    found = measure(files, golden)
    assert found["static"].passed
    assert not found["dynamic"].passed


def test_the_request_s_thresholds_count(files, golden):
    assert not measure(files, golden, gates={"sqnr_db": 90.0})["static"].passed


def test_times_of_another_cpu_are_left_out(files, golden):
    assert all(not candidate.speeds for candidate in measure(files, golden, timed=False).values())


def test_checks_that_were_made_elsewhere_count_too(files, golden):
    missed = Check("clip_rate", "Clipping", 0.5, comparison="<=", budget=0.01)
    found = measure(files, golden, timed=False, further={"static": (missed,)})
    assert not found["static"].passed
    assert found["float"].passed


def test_the_ratio_over_all_shapes_is_their_geometric_mean_with_an_interval_around_it():
    ms = np.full(30, 8.0)
    noisy = ms / 2 * np.random.default_rng(0).uniform(0.9, 1.1, 30)
    timings = Timings({"1": {"float": ms, "a": ms / 4, "b": noisy}, "8": {"float": ms, "a": ms, "b": ms}})
    assert timings.overall("a", "float") == pytest.approx((2, 2, 2))
    value, low, high = timings.overall("b", "float")
    assert low < value < high
    assert value == pytest.approx(2**0.5, rel=0.05)
    assert timings.overall("a", "b")[0] == pytest.approx(2 / value, rel=1e-3)
    assert Timings().overall("a", "b") is None


def test_it_is_json(files, golden):
    for candidate in measure(files, golden, timed=False).values():
        assert json.loads(json.dumps(candidate.to_json()))["name"] == candidate.name
        assert {check["state"] for check in candidate.to_json()["checks"]} <= {"pass", "fail", "info"}
