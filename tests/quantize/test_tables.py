"""Embedding tables in a graph: exact rows, whatever their width, their readers, and how they are read."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekit import graph as g
from edgekit.errors import RecipeError
from edgekit.profile import load_profile
from edgekit.quantize import calibrate, quantize
from edgekit.quantize.blocks import block_codes
from edgekit.quantize.tables import store_tables
from edgekit.recipe import QuantizeOptions
from edgekit.runtime import open_session
from edgekit.validate.inspection import inspect_file

LOOKUP = """
<ir_version: 10, opset_import: ["" : 20]>
lookup (int64[{ids}] ids) => (float[{ids}, {columns}] y)
{{
   y = Gather (table, ids)
}}
"""
TWICE = """
<ir_version: 10, opset_import: ["" : 20]>
twice (int64[a] ids, int64[a, b] more) => (float[a, 64] y, float[a, b, 64] z)
{
   y = Gather (table, ids)
   z = Gather (table, more)
}
"""
TIED = """
<ir_version: 10, opset_import: ["" : 20]>
tied (int64[a] ids) => (float[a, 200] y)
{
   e = Gather (table, ids)
   t = Transpose <perm = [1, 0]> (table)
   y = MatMul (e, t)
}
"""
BERT = """
<ir_version: 10, opset_import: ["" : 20]>
bert (int64[batch, sequence] ids, int64[sequence] places) => (float[batch, sequence, 64] y)
{
   e = Gather (words, ids)
   p = Gather (positions, places)
   y = Add (e, p)
}
"""


def normal(*shape, seed=0, shift=0.0):
    return (np.random.default_rng(seed).normal(size=shape) + shift).astype(np.float32)


def stored(model, path, *, int4=True, operator=False):
    """Store the tables of a model; return the new file, what was stored and what was skipped."""
    loaded = g.load(model.only.path)
    made = store_tables(loaded.graph, list(g.nodes(loaded.graph, "Gather")), int4=int4, operator=operator)
    g.remove_unused(loaded)
    g.forget_inner_shapes(loaded)
    g.save(loaded, path)
    return path, *made


def run(path, **feeds):
    session = open_session(path)
    return dict(zip([v.name for v in session.get_outputs()], session.run(None, feeds), strict=True))


@pytest.mark.parametrize("operator", [False, True], ids=["standard operators", "GatherBlockQuantized"])
class TestInFourBits:
    @pytest.mark.parametrize("shift", [0.0, 3.0], ids=["symmetric", "zero points"])
    @pytest.mark.parametrize("columns", [32, 64, 100, 101, 312])
    def test_rows_are_exactly_what_the_codes_stand_for(self, make_graph, tmp_path, columns, shift, operator):
        table = normal(300, columns, shift=shift)
        model = make_graph(LOOKUP.format(ids="a, b", columns=columns), table=table)
        path, made, skipped = stored(model, tmp_path / "q.onnx", operator=operator)
        ids = np.array([[0, 299, 7], [7, 7, 150]])
        found = block_codes(table)
        assert np.array_equal(run(path, ids=ids)["y"], found.real()[ids])
        assert skipped == ()
        assert (made[0].form, made[0].shape) == ("int4", (300, columns))
        assert made[0].zero_points == (shift > 0)
        assert made[0].error == found.error

    @pytest.mark.parametrize("ids", ["a", "a, b", "a, b, c"])
    def test_ids_of_any_rank(self, make_graph, tmp_path, ids, operator):
        table = normal(100, 64)
        model = make_graph(LOOKUP.format(ids=ids, columns=64), table=table)
        path, *_ = stored(model, tmp_path / "q.onnx", operator=operator)
        which = np.random.default_rng(0).integers(0, 100, (2, 3, 4)[: len(ids.split(","))])
        assert np.array_equal(run(path, ids=which)["y"], block_codes(table).real()[which])

    def test_no_row_at_all(self, make_graph, tmp_path, operator):
        model = make_graph(LOOKUP.format(ids="a, b", columns=100), table=normal(100, 100))
        path, *_ = stored(model, tmp_path / "q.onnx", operator=operator)
        assert run(path, ids=np.zeros((2, 0), np.int64))["y"].shape == (2, 0, 100)

    def test_a_table_that_two_nodes_read_is_stored_once(self, make_graph, tmp_path, operator):
        table = normal(500, 64)
        model = make_graph(TWICE, table=table)
        path, made, _ = stored(model, tmp_path / "q.onnx", operator=operator)
        assert len(made) == 1
        assert path.stat().st_size < 0.2 * table.nbytes
        ids = np.arange(3)
        found = run(path, ids=ids, more=ids[:, None])
        assert np.array_equal(found["y"], block_codes(table).real()[ids])
        assert np.array_equal(found["z"][:, 0], found["y"])

    def test_a_table_that_a_product_reads_too_stays_as_it_is(self, make_graph, tmp_path, operator):
        model = make_graph(TIED, table=normal(200, 64))
        path, made, skipped = stored(model, tmp_path / "q.onnx", operator=operator)
        assert made == ()
        assert skipped[0].what == "table table"
        assert "reads it too, in float" in skipped[0].why
        assert np.array_equal(run(path, ids=np.arange(4))["y"], run(model.only.path, ids=np.arange(4))["y"])

    def test_small_tables_keep_8_bits_and_say_so(self, make_graph, tmp_path, operator):
        words, places = normal(2000, 64), normal(128, 64, seed=1)
        model = make_graph(BERT, words=words, positions=places)
        path, made, skipped = stored(model, tmp_path / "q.onnx", operator=operator)
        assert {table.name: table.form for table in made} == {"words": "int4", "positions": "int8"}
        assert [skip.what for skip in skipped] == ["table positions in 4 bits"]
        assert skipped[0].why == ("it is small beside the largest table (8,192 of 128,000 numbers); it has 8")
        ids, where = np.array([[3, 4]]), np.arange(2)
        difference = run(path, ids=ids, places=where)["y"] - block_codes(words).real()[ids] - places[where]
        assert np.abs(difference).max() <= np.abs(places).max() / 127

    def test_a_file_with_its_weights_outside(self, make_graph, tmp_path, operator, monkeypatch):
        table = normal(2000, 100)
        model = make_graph(LOOKUP.format(ids="a", columns=100), table=table)
        monkeypatch.setattr(g, "_MAX_INLINE_BYTES", 1000)
        path, *_ = stored(model, tmp_path / "q.onnx", operator=operator)
        assert (tmp_path / "q.onnx.data").stat().st_size > 100_000
        ids = np.array([5, 1999])
        assert np.array_equal(run(path, ids=ids)["y"], block_codes(table).real()[ids])

    def test_a_constant_of_the_graph_with_a_name_of_ours_is_left_alone(self, make_graph, tmp_path, operator):
        text = TWICE.replace("z = Gather (table, more)", "w = Gather (table, more) z = Mul (w, table_shift)")
        table = normal(200, 64)
        model = make_graph(text, table=table, table_shift=np.array(2, np.float32))
        path, *_ = stored(model, tmp_path / "q.onnx", operator=operator)
        found = run(path, ids=np.arange(3), more=np.arange(3)[:, None])
        assert np.array_equal(found["z"][:, 0], 2 * found["y"])


class TestSize:
    @pytest.mark.parametrize("operator", [False, True])
    def test_an_inspection_counts_numbers_and_not_bytes(self, make_graph, tmp_path, operator):
        model = make_graph(LOOKUP.format(ids="a", columns=64), table=normal(1000, 64))
        path, *_ = stored(model, tmp_path / "q.onnx", operator=operator)
        inspection = inspect_file(path)
        assert inspection.quantized_parameters == pytest.approx(64_000, abs=3)
        assert inspection.parameters == pytest.approx(64_000 + 2000, abs=3)  # and a scale per block

    @pytest.mark.parametrize("operator", [False, True])
    def test_four_bits_take_a_little_over_half_of_eight(self, make_graph, tmp_path, operator):
        model = make_graph(LOOKUP.format(ids="a", columns=384), table=normal(3000, 384))
        sizes = {}
        for int4 in (False, True):
            path, made, _ = stored(model, tmp_path / "q.onnx", int4=int4, operator=operator)
            sizes[int4] = path.stat().st_size
        # Without `compact`, scales still take four bytes: 1/2 + 4/32 of a byte per number.
        assert sizes[True] / sizes[False] == pytest.approx(0.62, abs=0.02)
        assert made[0].bytes_saved == pytest.approx(3000 * 384 * (4 - 0.5 - 2 / 32), rel=1e-3)

    def test_rows_too_short_for_blocks_keep_8_bits(self, make_graph, tmp_path):
        model = make_graph(LOOKUP.format(ids="a", columns=16), table=normal(300, 16))
        _, made, skipped = stored(model, tmp_path / "q.onnx")
        assert made[0].form == "int8"
        assert "rows of 16 numbers fill no block of 32" in skipped[0].why


class TestInEightBits:
    def test_a_table_that_two_nodes_read_is_stored_once_and_both_read_it(self, make_graph, tmp_path):
        table = normal(500, 64)
        path, made, _ = stored(make_graph(TWICE, table=table), tmp_path / "q.onnx", int4=False)
        assert [item.form for item in made] == ["int8"]
        assert path.stat().st_size < 0.3 * table.nbytes
        found = run(path, ids=np.arange(5), more=np.arange(5)[:, None])
        assert np.array_equal(found["z"][:, 0], found["y"])
        assert made[0].error < 1e-4


class TestWholeWay:
    """Through `quantize`, as a request asks for it."""

    @pytest.fixture
    def bert(self, make_graph):
        return make_graph(BERT, words=normal(2000, 64), positions=normal(128, 64, seed=1))

    @pytest.fixture
    def calibration(self, bert):
        batches = [{"ids": np.array([[1, 2, 3]]), "places": np.arange(3)} for _ in range(4)]
        return calibrate(bert, batches)

    def test_the_record_tells_of_every_table(self, bert, calibration, tmp_path):
        options = QuantizeOptions(embeddings="int4")
        made = quantize(bert, calibration, load_profile("cpu-x86"), options, tmp_path / "q.onnx")
        record = next(r for r in made.history if r.step == "embeddings")
        assert record.did == (
            "stored 1 embedding table as int4 with one scale per block, 1 as int8 with one scale per row"
        )
        assert record.facts["form"] == "int4"
        assert [(t["name"], t["form"]) for t in record.facts["tables"]] == [
            ("words", "int4"),
            ("positions", "int8"),
        ]
        assert [skip.what for skip in record.skipped] == ["table positions in 4 bits"]
        # Half a byte and two bytes per 32 numbers, once scales are held in float16.
        size = made.only.path.stat().st_size
        assert size < 2000 * 64 * (0.5 + 2 / 32) + 128 * 64 + 128 * 2 + 2500

    def test_without_a_wish_the_target_decides(self, bert, calibration, tmp_path):
        profile = load_profile("cpu-x86")
        plain = quantize(bert, calibration, profile, QuantizeOptions(), tmp_path / "a.onnx")
        asked = quantize(bert, calibration, profile, QuantizeOptions(embeddings="int8"), tmp_path / "b.onnx")
        assert plain.only.path.read_bytes() == asked.only.path.read_bytes()
        assert next(r for r in plain.history if r.step == "embeddings").did.startswith("stored 2 embedding")

    def test_a_target_may_name_the_operator(self, bert, calibration, tmp_path):
        profile = load_profile("cpu-x86")
        rules = profile.quantization.model_copy(update={"int4_tables": "gather-block-quantized"})
        onnx_rules = profile.onnx.model_copy(update={"min_runtime": "1.20"})
        profile = profile.model_copy(update={"quantization": rules, "onnx": onnx_rules})
        options = QuantizeOptions(embeddings="int4")
        made = quantize(bert, calibration, profile, options, tmp_path / "q.onnx")
        proto = onnx.load(made.only.path)
        assert "GatherBlockQuantized" in [node.op_type for node in proto.graph.node]
        assert {entry.domain: entry.version for entry in proto.opset_import}["com.microsoft"] == 1
        feeds = {"ids": np.array([[5, 1999]]), "places": np.arange(2)}
        plain = quantize(bert, calibration, load_profile("cpu-x86"), options, tmp_path / "p.onnx")
        assert np.array_equal(run(made.only.path, **feeds)["y"], run(plain.only.path, **feeds)["y"])

    def test_a_target_without_such_tables_is_refused_by_name(self, bert, calibration, tmp_path):
        options = QuantizeOptions(embeddings="int4")
        with pytest.raises(RecipeError, match="android-qnn has no embedding tables in 4 bits"):
            quantize(bert, calibration, load_profile("android-qnn"), options, tmp_path / "q.onnx")
