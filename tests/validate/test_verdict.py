"""From an artifact to a verdict, on real ONNX Runtime."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit import graph as g
from edgekit.errors import GateError, ModelError
from edgekit.golden import Golden, GoldenBatch
from edgekit.model import OnnxModel
from edgekit.profile import load_profile
from edgekit.recipe import LatencyOptions
from edgekit.validate import check_float, validate

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
embed (float[batch, sequence, 8] x) => (float[batch, 4] sentence_embedding)
{
   axes = Constant <value_ints = [1]> ()
   m = ReduceMean <keepdims = 0> (x, axes)
   p = MatMul (m, w)
   sentence_embedding = LpNormalization <axis = -1, p = 2> (p)
}
"""
WEIGHT = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
NOT_TIMED = LatencyOptions(runs=0)


def saved(path, weight):
    proto = onnx.parser.parse_model(TEXT)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return OnnxModel((g.saved(ir.serde.deserialize_model(proto), path),), 20, 10)


def expected(x):
    projected = x.mean(axis=1) @ WEIGHT
    return projected / np.linalg.norm(projected, axis=-1, keepdims=True)


@pytest.fixture
def golden(tmp_path):
    rng = np.random.default_rng(1)
    inputs = [rng.normal(size=(b, s, 8)).astype(np.float32) for b, s in ((1, 5), (4, 9), (8, 7), (8, 3))]
    batches = tuple(GoldenBatch({"x": x}, {"sentence_embedding": expected(x)}) for x in inputs)
    golden = Golden("sentence-embedding", batches)
    golden.save(tmp_path / "golden.npz")
    return golden


@pytest.fixture
def right(tmp_path):
    return saved(tmp_path / "right.onnx", WEIGHT)


@pytest.fixture
def wrong(tmp_path):
    noise = np.random.default_rng(2).normal(size=WEIGHT.shape).astype(np.float32)
    return saved(tmp_path / "wrong.onnx", WEIGHT + noise)


def verdict(shipped, right, tmp_path, target="cpu-x86", latency=NOT_TIMED, **gates):
    return validate(
        shipped.only.path,
        tmp_path / "golden.npz",
        load_profile(target),
        float_path=right.only.path,
        gates=gates,
        latency=latency,
    )


def test_a_right_graph_matches_at_both_levels_and_says_on_what(right, golden):
    checks, record = check_float(right, golden)
    assert all(check.passed for check in checks)
    assert {"disabled", "all"} <= {part for check in checks for part in check.name.split(".")}
    assert record.facts["shapes"] == [[1, 5, 8], [4, 9, 8], [8, 7, 8], [8, 3, 8]]


def test_a_wrong_float_graph_stops_the_run(wrong, golden):
    with pytest.raises(GateError, match="does not match PyTorch"):
        check_float(wrong, golden)


def test_an_equal_graph_passes_its_gates(right, golden, tmp_path):
    found = verdict(right, right, tmp_path)
    assert found.passed
    assert found.latency == ()
    assert "no timed runs" in found.latency_note


def test_a_wrong_graph_fails_and_names_the_checks(wrong, right, golden, tmp_path):
    found = verdict(wrong, right, tmp_path)
    assert not found.passed
    assert "cosine_mean" in {check.name for check in found.failed}


def test_the_request_overrides_a_threshold(wrong, right, golden, tmp_path):
    lenient = {"cosine_mean": -1.0, "cosine_p05": -1.0, "rank_correlation": -1.0}
    found = verdict(wrong, right, tmp_path, **lenient)
    assert found.passed
    check = next(check for check in found.checks if check.name == "cosine_mean")
    assert check.why == "set by the request or the target"


def test_a_gate_on_speed_fails_where_nothing_was_faster(right, golden, tmp_path):
    found = verdict(
        right, right, tmp_path, target="cpu-x86-portable", latency=LatencyOptions(runs=10), speedup=3.0
    )
    assert [check.name for check in found.failed] == ["speedup"]
    assert not any("int8 does not pay" in note for note in found.notes), "what was timed is float"


def test_another_cpu_s_latency_is_never_measured_here(right, golden, tmp_path):
    found = verdict(right, right, tmp_path, target="web-wasm", latency=LatencyOptions(runs=10))
    assert found.latency == ()
    assert found.latency_note.startswith("not measured here")
    assert found.float_size.load_ms is None
    assert found.quantized_size.peak_memory_bytes is None


def test_footprints_are_measured_where_the_cpu_is_the_target_s(right, golden, tmp_path):
    found = verdict(right, right, tmp_path, target="cpu-x86-portable")
    size = found.quantized_size
    assert size.file_bytes == right.only.path.stat().st_size
    assert 0 < size.compressed_bytes < size.file_bytes * 1.1
    assert size.load_ms is not None
    assert size.load_ms > 0
    assert size.peak_memory_bytes is not None
    assert size.peak_memory_bytes > 100_000  # a session is never free


def test_a_graph_with_other_inputs_is_refused_by_name(right, golden, tmp_path):
    proto = onnx.load(right.only.path)
    proto.graph.input[0].name = proto.graph.node[1].input[0] = "pixels"
    onnx.save(proto, tmp_path / "other.onnx")
    other = OnnxModel((g.saved(g.load(tmp_path / "other.onnx"), tmp_path / "o.onnx"),), 20, 10)
    with pytest.raises(ModelError, match="wants the input 'pixels'"):
        verdict(other, right, tmp_path)
