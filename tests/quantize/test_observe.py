"""Tensors inside a graph, in as many passes as a budget needs."""

import numpy as np
import onnx_ir as ir
import pytest

from edgekit import graph as g
from edgekit.errors import DataError, RecipeError
from edgekit.quantize.calibrate import calibrate, observed_tensors
from edgekit.quantize.observe import MemoryNeed, groups_within, memory_need, observe, resident_bytes
from edgekit.runtime import open_session


def test_values_are_those_that_the_graph_computes(block, batches):
    model = g.load(block.only.path)
    model.graph.outputs.append(next(v for n in model.graph for v in n.outputs if v.name == "c"))
    session = open_session(ir.serde.serialize_model(model).SerializeToString(), optimize=False)
    for batch, values in observe(block.only.path, ["c", "n"], batches[:3]):
        np.testing.assert_array_equal(values["c"], session.run(["c"], dict(batch))[0])
        assert values["n"].shape == (*batch["ids"].shape, 16)


def test_an_input_is_handed_through(block, batches):
    for names in (["ids"], ["ids", "n"]):
        for batch, values in observe(block.only.path, names, batches[:2]):
            assert values["ids"] is batch["ids"]
            assert list(values) == names


def test_the_passes_of_a_budget_give_the_same_statistics(block, batches, tmp_path, monkeypatch):
    import importlib

    room = importlib.import_module("edgekit.quantize.calibrate")
    whole = calibrate(block, batches, statistics=tmp_path / "whole.npz")
    monkeypatch.setattr(room, "memory_need", lambda *_: MemoryNeed(10**6, {"n": 10**6, "c": 10**6}))
    parts = calibrate(block, batches, statistics=tmp_path / "parts.npz", max_memory_mb=2)
    assert (whole.passes, parts.passes) == (1, 2)
    assert (tmp_path / "whole.npz").read_bytes() == (tmp_path / "parts.npz").read_bytes()


def test_what_is_needed_counts_the_model_the_values_and_the_statistics(block, batches):
    axes = observed_tensors(g.load(block.only.path))
    short, long = ({"ids": np.zeros((1, n), np.int64)} for n in (4, 4000))
    small, large = (memory_need(block, axes, batch) for batch in (short, long))
    assert small.model >= 2 * block.file_bytes
    assert large.tensors["n"] - small.tensors["n"] == (4000 - 4) * 16 * 16
    assert small.tensors["n"] > 768 * 16 * 4


def test_a_budget_that_is_too_small_says_the_least_and_the_least_is_enough(block, batches, tmp_path):
    with pytest.raises(RecipeError, match=r"at least (\d+) MB.*the tensor '") as caught:
        calibrate(block, batches, statistics=tmp_path / "s.npz", max_memory_mb=0.1)
    assert not (tmp_path / "s.npz").exists()
    least = int(str(caught.value).split("at least ")[1].split()[0])
    # The model's share is measured, so a second measurement may differ by what the process freed.
    assert calibrate(block, batches, statistics=tmp_path / "s.npz", max_memory_mb=least + 20).samples == 48


def test_groups_are_as_large_as_fits():
    need = MemoryNeed(10_000_000, {"a": 3_000_000, "b": 3_000_000, "c": 5_000_000, "d": 1_000_000})
    assert groups_within(need, list("abcd"), 100) == [tuple("abcd")]
    assert groups_within(need, list("abcd"), 16) == [("a", "b"), ("c", "d")]
    with pytest.raises(RecipeError, match="at least 15 MB"):
        groups_within(need, list("abcd"), 14)


def test_several_passes_need_a_place_for_the_first(block, batches, monkeypatch):
    import importlib

    room = importlib.import_module("edgekit.quantize.calibrate")
    monkeypatch.setattr(room, "memory_need", lambda *_: MemoryNeed(10**6, {"n": 10**6, "c": 10**6}))
    with pytest.raises(DataError, match="needs a statistics file"):
        calibrate(block, batches, max_memory_mb=2)
    with pytest.raises(DataError, match="read more than once"):
        calibrate(block, iter(batches), max_memory_mb=2)


def test_resident_memory_sees_an_allocation():
    before = resident_bytes()
    held = np.ones(20_000_000, np.uint8)
    assert resident_bytes() - before > 10_000_000 or before == 0
    assert held.all()
