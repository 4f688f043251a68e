"""Statistics as a file: the same bytes for the same statistics, refused where they do not fit."""

import numpy as np
import pytest

from edgekit.errors import DataError, StorageError
from edgekit.quantize.calibrate import calibrate, reuse
from edgekit.quantize.statistics import graph_sha256, load, merge, save


def arrays_of(stats):
    return (stats.low, stats.high, stats.histogram.counts, stats.sample.ranks, stats.rows)


def assert_equal(one, other, *, history=True):
    assert set(one.tensors) == set(other.tensors)
    for name in one.tensors:
        a, b = one.tensors[name], other.tensors[name]
        assert (a.count, a.batches, a.histogram.limit) == (b.count, b.batches, b.histogram.limit)
        for left, right in zip(arrays_of(a), arrays_of(b), strict=True):
            np.testing.assert_array_equal(left, right)
        np.testing.assert_allclose(a.total, b.total, rtol=1e-9)
        assert not history or a.growths == b.growths
    assert one.seen == other.seen


def test_a_saved_file_reads_back_as_it_was(block, batches, tmp_path):
    found = calibrate(block, batches)
    calibrate(block, batches, statistics=tmp_path / "s.npz")
    assert_equal(load(tmp_path / "s.npz"), found)


def test_the_same_statistics_make_the_same_bytes(block, batches, tmp_path):
    calibrate(block, batches, statistics=tmp_path / "a.npz")
    calibrate(block, batches, statistics=tmp_path / "b.npz", checkpoint_batches=5)
    save(load(tmp_path / "a.npz"), tmp_path / "c.npz")
    first = (tmp_path / "a.npz").read_bytes()
    assert (tmp_path / "b.npz").read_bytes() == first
    assert (tmp_path / "c.npz").read_bytes() == first


@pytest.mark.parametrize("cut", [1, 20, 47])
def test_shards_merge_to_the_whole(block, batches, tmp_path, cut):
    for name, part in {"left": batches[:cut], "right": batches[cut:]}.items():
        calibrate(block, part, statistics=tmp_path / f"{name}.npz")
    for order in (("left", "right"), ("right", "left")):
        merged = merge(*(load(tmp_path / f"{name}.npz") for name in order))
        assert_equal(merged, calibrate(block, batches), history=False)


def test_merged_statistics_serve_for_the_whole_data(block, batches, tmp_path):
    for name, part in {"left": batches[:20], "right": batches[20:]}.items():
        calibrate(block, part, statistics=tmp_path / f"{name}.npz")
    save(merge(load(tmp_path / "left.npz"), load(tmp_path / "right.npz")), tmp_path / "all.npz")
    assert reuse(block, batches, tmp_path / "all.npz").samples == len(batches)


def test_merging_leaves_the_shards_as_they_were(block, batches, tmp_path):
    shards = [
        calibrate(block, part, statistics=tmp_path / f"{i}.npz") for i, part in enumerate([batches] * 2)
    ]
    before = shards[0].tensors["n"].histogram.counts.copy()
    merge(load(tmp_path / "0.npz"), load(tmp_path / "1.npz"))
    np.testing.assert_array_equal(shards[0].tensors["n"].histogram.counts, before)


def test_shards_of_different_graphs_do_not_merge(block, batches, tmp_path):
    calibrate(block, batches, statistics=tmp_path / "s.npz")
    stored = load(tmp_path / "s.npz")
    from dataclasses import replace

    with pytest.raises(DataError, match="different graphs"):
        merge(stored, replace(stored, graph_sha256="0" * 64))
    with pytest.raises(DataError, match="not complete"):
        merge(stored, replace(stored, complete=False))


def test_statistics_are_used_again_without_running_the_model(block, batches, tmp_path, monkeypatch):
    import importlib

    found = calibrate(block, batches, statistics=tmp_path / "s.npz")
    room = importlib.import_module("edgekit.quantize.calibrate")
    monkeypatch.setattr(room, "observe", lambda *_: pytest.fail("the model was run"))
    again = reuse(block, list(reversed(batches)), tmp_path / "s.npz")
    assert_equal(again, found)
    assert (found.passes, again.passes) == (1, 0)
    assert found.record.to_json(measured=False) == again.record.to_json(measured=False)
    assert_equal(calibrate(block, batches, statistics=tmp_path / "s.npz"), found)


def test_statistics_of_another_graph_or_other_data_are_refused(block, batches, tmp_path):
    file = tmp_path / "s.npz"
    calibrate(block, batches, statistics=file)
    for use in (lambda b: reuse(block, b, file), lambda b: calibrate(block, b, statistics=file)):
        with pytest.raises(DataError, match="other calibration data"):
            use(batches[1:])
        with pytest.raises(DataError, match="other calibration data"):
            use([*batches[1:], {"ids": batches[0]["ids"] + 1}])
    block.only.path.write_bytes(block.only.path.read_bytes() + b"\x72\x00")
    with pytest.raises(DataError, match="another float graph"):
        reuse(block, batches, file)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"no archive at all" * 9], ids=["empty", "cut", "text"]
)
def test_a_damaged_file_is_refused(block, batches, tmp_path, content):
    (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(DataError, match="not a readable statistics file"):
        reuse(block, batches, tmp_path / "s.npz")


def test_a_flipped_bit_in_a_tensor_is_noticed(block, batches, tmp_path):
    file = tmp_path / "s.npz"
    calibrate(block, batches, statistics=file)
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="not a readable statistics file"):
        [load(file).tensors[name] for name in ("n", "c")]


def test_a_missing_file_is_named(block, batches, tmp_path):
    with pytest.raises(DataError, match=r"not found: .*nothing\.npz"):
        reuse(block, batches, tmp_path / "nothing.npz")


def test_a_place_that_cannot_be_written_is_an_error_of_storage(block, batches, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        calibrate(block, batches, statistics=tmp_path / "file" / "s.npz")


def test_external_weights_belong_to_the_graph(block):
    before = graph_sha256(block)
    block.only.path.with_name(block.only.path.name + ".data").write_bytes(b"weights")
    assert graph_sha256(block) != before
