"""The benchmark of embedding tables: lone lookups in every form, and what is said of speed."""

import numpy as np
import pytest

from benchmarks.embeddings import FORMS, lookup, speeds
from edgekit.quantize.blocks import block_codes
from edgekit.runtime import open_session
from edgekit.validate.candidates import Timings

TABLE = np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32)


@pytest.mark.parametrize("form", FORMS[1:])
def test_a_lone_lookup_gives_the_rows(tmp_path, form):
    ids = np.array([[3, 499]])
    (rows,) = open_session(lookup(TABLE, form, tmp_path / "l.onnx")).run(None, {"ids": ids})
    wanted = TABLE if form == "int8" else block_codes(TABLE).real()
    assert np.abs(rows - wanted[ids]).max() < (0.02 if form == "int8" else 1e-6)


def test_speeds_are_over_the_base_at_each_shape():
    ms = np.full(20, 4.0)
    (row,) = speeds(Timings({"1x16": {"int8": ms, "int4": ms / 2}}), "int4", "int8")
    assert row == {"shape": "1x16", "p50_ms": 2.0, "speedup": 2.0, "interval": [2.0, 2.0]}
