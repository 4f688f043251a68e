"""Calibration streams the user's data through the float graph."""

import pickle
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from edgekit import graph as g
from edgekit.errors import DataError, ModelError
from edgekit.quantize.calibrate import calibrate, reuse
from edgekit.quantize.statistics import load
from edgekit.runtime import open_session

ROOT = Path(__file__).parents[2]


def test_it_observes_the_inputs_of_constant_weight_products_only(block, batches):
    calibration = calibrate(block, batches)
    assert set(calibration.tensors) == {"n", "c"}
    assert calibration.samples == len(batches)


def test_batches_of_any_length_give_the_statistics_of_all_values(block, batches):
    stats = calibrate(block, batches).tensors["n"]
    model = g.load(block.only.path)
    model.graph.outputs.append(next(v for n in model.graph for v in n.outputs if v.name == "n"))
    import onnx_ir as ir

    session = open_session(ir.serde.serialize_model(model).SerializeToString())
    seen = np.concatenate([session.run(["n"], batch)[0].reshape(-1, 16) for batch in batches])
    np.testing.assert_allclose(stats.low, seen.min(0), rtol=1e-5)
    np.testing.assert_allclose(stats.high, seen.max(0), rtol=1e-5)
    np.testing.assert_allclose(stats.mean, seen.mean(0), atol=1e-5)
    assert stats.count == len(seen)


def test_the_float_file_is_not_touched(block, batches):
    before = block.only.path.read_bytes()
    calibrate(block, batches)
    assert block.only.path.read_bytes() == before


def test_no_batch_is_refused(block):
    with pytest.raises(DataError, match="no calibration data"):
        calibrate(block, [])


def test_a_tensor_that_is_not_finite_is_named(block, batches):
    model = g.load(block.only.path)
    broken = model.graph.initializers["gamma"].const_value.numpy().copy()
    broken[0] = np.inf
    import onnx_ir as ir

    model.graph.initializers["gamma"].const_value = ir.tensor(broken, name="gamma")
    g.save(model, block.only.path)
    with pytest.raises(DataError, match="'n' is NaN or infinite"):
        calibrate(block, batches)


def test_memory_does_not_grow_with_the_number_of_samples(block, batches):
    def peak(count: int) -> int:
        tracemalloc.start()
        stream = (batches[index % len(batches)] for index in range(count))
        calibrate(block, stream)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    # One row per sample alone would add 1280 * 16 * 4 bytes for each of two tensors; a histogram has 65 528.
    # What else lives in the process may add to one of them; growth would be there every time.
    assert min(peak(1536) - peak(256) for _ in range(3)) < 100_000


def test_a_quantized_graph_is_refused(block, batches, tmp_path):
    from edgekit.profile import load_profile
    from edgekit.quantize import quantize
    from edgekit.recipe import QuantizeOptions

    made = quantize(
        block, calibrate(block, batches), load_profile("cpu-x86"), QuantizeOptions(), tmp_path / "q.onnx"
    )
    with pytest.raises(ModelError, match="quantized already"):
        calibrate(made, batches)


def test_a_tensor_that_never_has_a_value_is_named(block):
    with pytest.raises(DataError, match="never has a value"):
        calibrate(block, [{"ids": np.zeros((1, 0), np.int64)}])


def test_what_the_inputs_held_is_remembered(block, batches):
    span = calibrate(block, batches).seen.inputs["ids"]
    assert span.varies
    assert (span.low, span.high) == (
        min(b["ids"].min() for b in batches),
        max(b["ids"].max() for b in batches),
    )
    assert not calibrate(block, batches[:1] * 5).seen.inputs["ids"].varies


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from edgekit import graph as g
from edgekit.model import Graph, OnnxModel
from edgekit.quantize.calibrate import calibrate

class Deadly(list):
    def __iter__(self):
        for index, batch in enumerate(list.__iter__(self)):
            if index == int(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

path = Path(sys.argv[1])
model = OnnxModel((Graph("model", path, g.signature(g.load(path))),), 20, 10)
batches = Deadly(pickle.loads(Path(sys.argv[2]).read_bytes()))
calibrate(model, batches, statistics=Path(sys.argv[4]), checkpoint_batches=8)
"""


def test_after_a_kill_it_goes_on_from_the_checkpoint_to_the_same_bytes(block, batches, tmp_path):
    (tmp_path / "batches").write_bytes(pickle.dumps(batches))
    command = [sys.executable, "-c", KILLED, block.only.path, tmp_path / "batches", "29", tmp_path / "s.npz"]
    ended = subprocess.run(command, cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not load(tmp_path / "s.npz").complete
    with pytest.raises(DataError, match="did not end"):
        reuse(block, batches, tmp_path / "s.npz")
    resumed = calibrate(block, batches, statistics=tmp_path / "s.npz")
    assert resumed.resumed_from == 24
    calibrate(block, batches, statistics=tmp_path / "straight.npz")
    assert (tmp_path / "s.npz").read_bytes() == (tmp_path / "straight.npz").read_bytes()


def test_a_checkpoint_of_other_data_is_not_continued(block, batches, tmp_path):
    def stops_after(count):
        class Stopping(list):
            def __iter__(self):
                for index, batch in enumerate(list.__iter__(self)):
                    if index == count:
                        raise KeyboardInterrupt
                    yield batch

        return Stopping(batches)

    with pytest.raises(KeyboardInterrupt):
        calibrate(block, stops_after(20), statistics=tmp_path / "s.npz", checkpoint_batches=8)
    with pytest.raises(DataError, match="other calibration data"):
        calibrate(block, batches[1:], statistics=tmp_path / "s.npz")
