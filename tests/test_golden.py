"""Golden files: nothing is lost, the same golden makes the same bytes, and a damaged one is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.errors import PackageError
from edgekit.golden import Golden, GoldenBatch


def _golden(labels: bool = True) -> Golden:
    rng = np.random.default_rng(0)
    batches = []
    for batch, length in ((1, 5), (3, 7), (1, 5)):
        inputs = {
            "input_ids": rng.integers(0, 99, (batch, length)),
            "in/out/0": rng.random((batch, 2), np.float32),
        }
        outputs = {"logits": rng.random((batch, 4), np.float32)}
        batches.append(GoldenBatch(inputs, outputs, np.arange(batch) if labels else None))
    return Golden("text-classification", tuple(batches))


def _same(one: Golden, other: Golden) -> bool:
    def arrays(golden: Golden) -> list[tuple[str, np.ndarray]]:
        found = [pair for b in golden.batches for group in (b.inputs, b.outputs) for pair in group.items()]
        return [*found, *(("labels", b.labels) for b in golden.batches if b.labels is not None)]

    pairs = list(zip(arrays(one), arrays(other), strict=True))
    return one.task == other.task and all(
        a == b and x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        for (a, x), (b, y) in pairs
    )


@pytest.mark.parametrize("labels", [True, False])
def test_a_golden_reads_back_as_it_was(tmp_path, labels) -> None:
    golden = _golden(labels)
    golden.save(tmp_path / "golden.npz")
    again = Golden.load(tmp_path / "golden.npz")
    assert _same(golden, again)
    assert all((batch.labels is not None) == labels for batch in again.batches)


@settings(max_examples=25, deadline=None)
@given(
    name=st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8),
    value=hnp.arrays(
        dtype=st.sampled_from(["float32", "int64", "bool", "uint8", "float16"]),
        shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=3),
    ),
)
def test_any_input_name_and_array_reads_back(tmp_path_factory, name, value) -> None:
    path = tmp_path_factory.mktemp("golden") / "golden.npz"
    golden = Golden("generic", (GoldenBatch({name: value}, {name: np.zeros(1, np.float32)}),))
    golden.save(path)
    assert _same(golden, Golden.load(path))


def test_the_same_golden_makes_the_same_bytes(tmp_path) -> None:
    _golden().save(tmp_path / "one.npz")
    _golden().save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_it_counts_samples_and_names_shapes_and_outputs() -> None:
    golden = _golden()
    assert golden.samples == 5
    assert golden.shapes() == ((1, 5), (3, 7))
    assert golden.output_names == ("logits",)


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_golden_is_refused(tmp_path, content) -> None:
    (tmp_path / "golden.npz").write_bytes(content)
    with pytest.raises(PackageError, match=r"golden\.npz"):
        Golden.load(tmp_path / "golden.npz")


def test_a_missing_file_and_a_folder_are_refused(tmp_path) -> None:
    for path in (tmp_path / "gone.npz", tmp_path):
        with pytest.raises(PackageError, match="cannot read the golden file"):
            Golden.load(path)


def test_a_truncated_file_is_refused_wherever_it_was_cut(tmp_path) -> None:
    path = tmp_path / "golden.npz"
    _golden().save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(PackageError):
            Golden.load(path)


def test_a_flipped_byte_is_refused_or_changes_nothing(tmp_path) -> None:
    path = tmp_path / "golden.npz"
    golden = _golden()
    golden.save(path)
    whole = path.read_bytes()
    refused = 0
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0x41
        path.write_bytes(bytes(damaged))
        try:
            assert _same(golden, Golden.load(path)), f"byte {position} changed the golden unnoticed"
        except PackageError:
            refused += 1
    assert refused > len(whole) / 7 / 2


def _write_header(path: Path, header: object, **arrays: np.ndarray) -> None:
    np.savez(path, header=np.array(json.dumps(header)), **arrays)


@pytest.mark.parametrize(
    "header",
    [
        {"schema": 2, "task": "generic", "batches": 1},
        {"schema": 1, "task": "generic", "batches": 0},
        {"schema": 1, "task": "generic", "batches": 2},
        {"schema": 1, "task": "generic"},
        [],
    ],
)
def test_a_wrong_header_is_refused(tmp_path, header) -> None:
    path = tmp_path / "golden.npz"
    _write_header(path, header, **{"0/in/x": np.ones(1), "0/out/y": np.ones(1)})
    with pytest.raises(PackageError):
        Golden.load(path)


def test_pickled_objects_are_never_loaded(tmp_path) -> None:
    path = tmp_path / "golden.npz"
    objects = np.array([{"a": 1}], dtype=object)
    _write_header(path, {"schema": 1, "task": "generic", "batches": 1}, **{"0/in/x": objects})
    with pytest.raises(PackageError, match="allow_pickle"):
        Golden.load(path)
