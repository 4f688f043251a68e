"""The ORT format: same answers, same bytes each time, and the operators that it needs."""

import numpy as np
import onnx
import pytest

from edgekit.errors import GateError, MachineError
from edgekit.golden import Golden, GoldenBatch
from edgekit.package.ort_format import MODEL_NAME, OPERATORS_NAME, check_ort_format, write_ort_format
from edgekit.runtime import open_session


@pytest.fixture
def model(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[batch, 8] x) => (float[batch, 4] y) { h = MatMul (x, w) y = Relu (h) }
    """
    proto = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    return path


def test_it_gives_the_same_answers_and_names_its_operators(model, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    record = write_ort_format(model, folder, platform="arm")
    x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    expected = open_session(model).run(None, {"x": x})[0]
    np.testing.assert_allclose(open_session(folder / MODEL_NAME).run(None, {"x": x})[0], expected, rtol=1e-6)
    operators = (folder / OPERATORS_NAME).read_text()
    assert "MatMul" in operators
    assert record.facts["operators"] == operators.splitlines()


def _golden(model, error=0.0):
    x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    (y,) = open_session(model).run(None, {"x": x})
    return Golden("generic", (GoldenBatch({"x": x}, {"y": y + np.float32(error)}),))


def test_what_was_written_is_loaded_and_run(model, tmp_path):
    write_ort_format(model, tmp_path, platform="arm")
    record = check_ort_format(tmp_path, _golden(model), {})
    assert record.facts["measures"]["sqnr_db"] > 100
    assert "3 samples" in record.did
    assert "2 operators" in record.did


def test_a_file_that_gives_other_answers_is_refused(model, tmp_path):
    write_ort_format(model, tmp_path, platform="arm")
    with pytest.raises(GateError, match=r"model\.ort is not as good as model\.onnx"):
        check_ort_format(tmp_path, _golden(model, error=5.0), {})


def test_a_config_that_no_build_could_read_is_refused(model, tmp_path):
    write_ort_format(model, tmp_path, platform="arm")
    (tmp_path / OPERATORS_NAME).write_text("ai.onnx;thirteen;MatMul\n")
    with pytest.raises(GateError, match="cannot be read by ONNX Runtime's build"):
        check_ort_format(tmp_path, _golden(model), {})


def test_the_same_model_makes_the_same_bytes(model, tmp_path):
    made = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        write_ort_format(model, folder, platform="arm")
        made.append((folder / MODEL_NAME).read_bytes())
    assert made[0] == made[1]


def test_a_file_that_the_converter_refuses_is_said_clearly(tmp_path):
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(MachineError, match=r"could not write model\.ort"):
        write_ort_format(broken, tmp_path, platform="arm")
