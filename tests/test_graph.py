"""Graph files: weights inside up to protobuf's limit, else beside the file, never left in another one's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit import graph as g
from edgekit.runtime import open_session

WEIGHT = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Save a graph as those over the limit are: its weights in a file of their own."""
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[b, 64] x) => (float[b, 64] y) { y = MatMul (x, w) }
    """
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "w"))
    (tmp_path / "large").mkdir()
    onnx.save(proto, tmp_path / "plain.onnx")
    path = tmp_path / "large" / "m.onnx"
    with monkeypatch.context() as patch:
        patch.setattr(g, "_MAX_INLINE_BYTES", 100)
        g.save(g.load(tmp_path / "plain.onnx"), path)
    assert path.with_name("m.onnx.data").stat().st_size >= WEIGHT.nbytes
    return path


def test_weights_beside_the_file_are_found(large: Path) -> None:
    x = np.ones((2, 64), np.float32)
    assert np.allclose(open_session(large).run(None, {"x": x})[0], x @ WEIGHT, rtol=1e-5)


def test_a_graph_that_became_small_enough_holds_all_of_its_weights(large: Path, tmp_path: Path) -> None:
    """A quantized form of a large model: tables shrink, and what is untouched must not stay where it was."""
    small = tmp_path / "small.onnx"
    g.save(g.load(large), small)
    for path in large.parent.iterdir():
        path.unlink()
    x = np.ones((2, 64), np.float32)
    assert np.allclose(open_session(small).run(None, {"x": x})[0], x @ WEIGHT, rtol=1e-5)
