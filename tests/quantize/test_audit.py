"""The audit: what is surely wrong stops; what is measured is gated and says which tensor and what to do."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit import graph as g
from edgekit.errors import DataError
from edgekit.model import OnnxModel
from edgekit.profile import load_profile
from edgekit.quantize.audit import (
    CLIP_RATE,
    CalibrationAudit,
    Clipping,
    audit_calibration,
    audit_checks,
    audit_notes,
    audit_record,
    count_clipping,
)
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.static import quantize
from edgekit.recipe import QuantizeOptions
from edgekit.record import Clock

LINEAR = """
<ir_version: 10, opset_import: ["" : 20]>
linear (float[batch, 16] x, float[batch, 16] other) => (float[batch, 16] y)
{
   sum = Add (x, other)
   y = MatMul (sum, w)
}
"""


@pytest.fixture
def linear(tmp_path):
    weight = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    proto = onnx.parser.parse_model(LINEAR)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))
    return OnnxModel((g.saved(model, tmp_path / "linear.onnx"),), 20, 10)


def normal(count, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {name: (rng.normal(size=(1, 16)) * scale).astype(np.float32) for name in ("x", "other")}
        for _ in range(count)
    ]


def quantized(model, data, path, **options):
    return quantize(model, calibrate(model, data), load_profile("cpu-x86"), QuantizeOptions(**options), path)


def test_an_input_of_real_numbers_that_never_varies_is_refused(linear):
    same = [{**batch, "other": np.full((1, 16), 0.5, np.float32)} for batch in normal(20)]
    with pytest.raises(DataError, match=r"input 'other' is always 0\.5"):
        audit_calibration(calibrate(linear, same), 20)
    image = np.linspace(0, 1, 16, dtype=np.float32)[None]
    with pytest.raises(DataError, match="'other' is the same in every sample"):
        audit_calibration(calibrate(linear, [{**b, "other": image} for b in normal(20)]), 20)


def test_a_mask_of_ones_is_told_and_not_refused(block):
    same = [{"ids": np.full((1, 9), 7, np.int64)} for _ in range(20)]
    assert audit_calibration(calibrate(block, same), 20).constant_inputs == ("ids",)


def test_dead_channels_are_counted(linear):
    data = normal(40)
    for batch in data:
        batch["x"][:, 3] = batch["other"][:, 3] = 0
    assert audit_calibration(calibrate(linear, data), 40).dead_channels == {"sum": 1}


def test_the_curve_shows_where_ranges_grew(linear):
    data = normal(100)
    data[95]["x"][0, 2:4] = 50.0, -50.0
    audit = audit_calibration(calibrate(linear, data), 100)
    assert audit.growth[0] == audit.growth[9] == 1.0
    assert audit.growth[8] == 0.0
    assert 0.8 < audit.last_growth < 0.95
    assert audit_checks(audit, (), QuantizeOptions(), {})[0].state == "fail"
    assert audit.still_growing == ("sum",)
    settled = audit_calibration(calibrate(linear, [data[95], *data[:95]]), 100)
    assert settled.growth == (1.0, *[0.0] * 9)
    assert settled.last_growth == 0.0


def test_clipping_is_what_the_codes_cannot_say(linear, tmp_path):
    model = quantized(linear, normal(200), tmp_path / "q.onnx", range_method="minmax", smoothing=False)
    assert count_clipping(model.only.path, normal(200))[0].outside == 0
    wide = normal(200, scale=3.0, seed=1)
    (found,) = count_clipping(model.only.path, wide)
    stats = calibrate(linear, normal(200)).tensors["sum"]
    step = (stats.bounds[1] - stats.bounds[0]) / 255
    sums = np.concatenate([batch["x"] + batch["other"] for batch in wide])
    outside = ((sums < stats.bounds[0] - step) | (sums > stats.bounds[1] + step)).sum()
    assert found.values == sums.size
    assert abs(found.outside - outside) <= 0.02 * sums.size
    assert found.rate > 0.1


def test_smoothing_is_seen_as_the_graph_does_it(block, batches, tmp_path):
    model = quantized(block, batches, tmp_path / "q.onnx")
    found = count_clipping(model.only.path, batches)
    assert len(found) == 2
    assert found[0].rate < 0.01


def test_data_of_another_kind_fails_and_the_check_names_the_tensor(linear, tmp_path):
    audit = audit_calibration(calibrate(linear, normal(100)), 100)
    model = quantized(linear, normal(100), tmp_path / "q.onnx")
    good = audit_checks(audit, count_clipping(model.only.path, normal(50, seed=2)), QuantizeOptions(), {})
    bad = audit_checks(audit, count_clipping(model.only.path, normal(50, 6.0)), QuantizeOptions(), {})
    assert [check.state for check in good] == ["pass", "pass"]
    (failed,) = [check for check in bad if not check.passed]
    assert failed.name == "clip_rate"
    assert "'sum" in failed.why
    assert "more calibration samples" in failed.why


AUDIT = CalibrationAudit(64, 48, ("token_type_ids",), {}, (1.0, *[0.0] * 8, 0.25), 0.05, ("sum",))
CLIPPED = (Clipping("sum", 15, 1000), Clipping("rest", 0, 1000))


def test_thresholds_can_be_set_and_a_percentile_may_clip_what_it_was_told_to():
    def state(gates=None, **options):
        return audit_checks(AUDIT, CLIPPED, QuantizeOptions(**options), gates or {})[1].state

    assert state() == "fail"
    assert state({"clip_rate": 0.02}) == "pass"
    assert state(range_method="percentile", percentile=99.5) == "pass"
    assert audit_checks(AUDIT, CLIPPED, QuantizeOptions(), {"range_growth": 0.02})[0].state == "fail"
    assert CLIP_RATE.budget == 0.01


def test_notes_say_what_stops_nothing():
    notes = audit_notes(AUDIT, CLIPPED)
    assert notes[0] == "Calibration used 48 samples; up to 64 were asked for."
    assert "1 of 2 tensors" in notes[1]
    assert "'sum' (1.50%)" in notes[1]
    assert audit_notes(CalibrationAudit(48, 48, (), {}, (), 0.0, ()), ()) == ()


def test_the_record_holds_the_curve_and_the_worst_tensors():
    facts = audit_record(AUDIT, CLIPPED, 32, Clock()).facts
    assert facts["range_growth_by_tenth"] == [1.0, *[0.0] * 8, 0.25]
    assert facts["clip_rate_worst"] == {"sum": 0.015, "rest": 0.0}
    assert facts["constant_inputs"] == ["token_type_ids"]


def test_a_float_graph_has_nothing_to_clip(linear):
    assert count_clipping(linear.only.path, normal(3)) == ()
    assert len(audit_checks(AUDIT, (), QuantizeOptions(), {})) == 1
