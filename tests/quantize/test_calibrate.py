"""Calibration streams the user's data through the float graph."""

import tracemalloc

import numpy as np
import pytest

from edgekit import graph as g
from edgekit.errors import DataError
from edgekit.quantize import calibrate
from edgekit.runtime import open_session


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

    # One kept row per sample alone would add 3840 * 16 * 4 bytes per tensor; batches differ by less.
    assert peak(4096) - peak(256) < 150_000
