"""Graphs of different makes in turns: each has its own inputs, all the same shapes."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest

from edgekit.golden import Golden, GoldenBatch
from edgekit.validate.side_by_side import Contestant, time_side_by_side

LOOKUP = """
<ir_version: 10, opset_import: ["" : 20]>
net (int64[{shape}] ids) => (float[{shape}, 4] y) {{ y = Gather (table, ids) }}
"""


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a lookup in a table of so many rows, with texts of ids that it has."""

    def contestant(name, rows, *, shape="batch, sequence", length=16, **more):
        proto = onnx.parser.parse_model(LOOKUP.format(shape=shape))
        table = np.zeros((rows, 4), np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
        path = tmp_path / f"{name}.onnx"
        onnx.save(proto, path)
        ids = np.full((1, length), rows - 1, np.int64)
        return Contestant(
            name, path, Golden("generic", (GoldenBatch({"ids": ids}, {"y": table[ids]}),)), **more
        )

    return contestant


def timed(*contestants, **more):
    return time_side_by_side(contestants, ((1, 8), (2, 999)), **{"runs": 10, "threads": 1, **more})


def test_a_trimmed_vocabulary_is_fed_ids_that_it_has(make):
    timings, refused = timed(make("whole", 1000), make("trimmed", 10))
    assert refused == {}
    assert {name: len(ms) for name, ms in timings.ms["1x8"].items()} == {"whole": 10, "trimmed": 10}


def test_lengths_are_cut_to_what_every_graph_takes(make):
    timings, _ = timed(make("long", 10, max_length=64), make("short", 10, max_length=32))
    assert list(timings.ms) == ["1x8", "2x32"]


def test_without_a_known_limit_what_was_recorded_is_the_longest(make):
    timings, _ = timed(make("a", 10, length=20), make("b", 10, length=12))
    assert list(timings.ms) == ["1x8", "2x12"]


def test_a_graph_of_one_fixed_shape_is_refused_beside_others(make):
    timings, refused = timed(make("free", 10), make("fixed", 10, shape="1, 16"))
    assert refused == {"fixed": "it takes inputs of one fixed shape, and the others do not"}
    assert set(timings.ms["1x8"]) == {"free"}


def test_a_graph_that_cannot_be_opened_or_fed_is_refused_with_the_reason(make, tmp_path):
    (tmp_path / "none.onnx").write_bytes(b"no graph")
    good = make("good", 10)
    others = Contestant("none", tmp_path / "none.onnx", good.golden)
    batch = GoldenBatch({"other": np.zeros((1, 4), np.int64)}, {"y": np.zeros((1, 4))})
    hungry = Contestant("hungry", good.model, Golden("generic", (batch,)))
    timings, refused = timed(good, others, hungry)
    assert "cannot open" in refused["none"]
    assert refused["hungry"] == "it wants the input 'ids', which was not recorded"
    assert set(timings.ms["1x8"]) == {"good"}


def test_where_none_can_run_nothing_is_timed(make, tmp_path):
    (tmp_path / "none.onnx").write_bytes(b"no graph")
    timings, refused = timed(Contestant("none", tmp_path / "none.onnx", make("x", 10).golden))
    assert timings.ms == {}
    assert list(refused) == ["none"]


def test_the_clock_may_be_that_of_the_thread(make):
    ticks = iter(range(10_000))
    timings, _ = timed(make("a", 10), clock=lambda: next(ticks) / 1e3)
    assert timings.ms["1x8"]["a"] == pytest.approx(np.ones(10))
    assert timed(make("b", 10), clock=time.thread_time)[0].ms
