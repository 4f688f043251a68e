"""Dynamic int8, made to compare with."""

import logging

import numpy as np
import pytest

from edgekit import graph as g
from edgekit.errors import ModelError
from edgekit.profile import load_profile
from edgekit.quantize.dynamic import quantize_dynamic
from edgekit.runtime import open_session


def test_it_runs_close_to_float_in_int8_kernels(block, batches, tmp_path):
    made = quantize_dynamic(block, load_profile("cpu-x86"), tmp_path / "dynamic.onnx")
    ops = {node.op_type for node in g.load(made.only.path).graph}
    assert "DynamicQuantizeLinear" in ops
    float_session, session = open_session(block.only.path), open_session(made.only.path)
    for batch in batches[:5]:
        expected = float_session.run(None, batch)[0]
        found = session.run(None, batch)[0]
        # The block's outlier channels are what dynamic quantization cannot smooth.
        assert np.mean((found - expected) ** 2) < 0.2 * np.mean(expected**2)


def test_versions_and_signature_stay(block, tmp_path):
    made = quantize_dynamic(block, load_profile("cpu-x86"), tmp_path / "dynamic.onnx")
    assert g.load(made.only.path).ir_version == block.ir_version
    assert made.only.signature == block.only.signature


def test_the_float_file_and_the_logging_level_are_left_alone(block, tmp_path):
    before, level = block.only.path.read_bytes(), logging.getLogger().level
    quantize_dynamic(block, load_profile("cpu-x86-avx2"), tmp_path / "dynamic.onnx")
    assert block.only.path.read_bytes() == before
    assert logging.getLogger().level == level


def test_a_quantized_graph_is_refused(block, tmp_path):
    made = quantize_dynamic(block, load_profile("cpu-x86"), tmp_path / "dynamic.onnx")
    with pytest.raises(ModelError, match=r"dynamic\.onnx is quantized already"):
        quantize_dynamic(made, load_profile("cpu-x86"), tmp_path / "again.onnx")
    assert not (tmp_path / "again.onnx").exists()
