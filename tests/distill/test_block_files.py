"""Files that grow together are complete or cut back to where they were, whatever happens between."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.distill.block_files import LOCK, STATE, alone, append_block, read_complete, start_afresh
from edgekit.errors import StorageError

NAMES = ("a", "b")


def _written(place: Path, blocks: int = 2):
    state = start_afresh(place, "key", NAMES)
    for index in range(blocks):
        block = {"a": b"a%d" % index, "b": b"long %d" % index}
        state = append_block(place, state, block, index + 1, {"width": 3})
    return state


def test_blocks_lie_behind_each_other_and_are_counted(tmp_path: Path) -> None:
    state = _written(tmp_path)
    assert (tmp_path / "a").read_bytes() == b"a0a1"
    assert (tmp_path / "b").read_bytes() == b"long 0long 1"
    assert (state.done, state.total_bytes, dict(state.facts)) == (2, 16, {"width": 3})


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    state, found = _written(tmp_path), read_complete(tmp_path, "key")
    assert found is not None
    assert (found.key, found.done, dict(found.facts)) == (state.key, state.done, dict(state.facts))
    assert {n: tuple(f) for n, f in found.files.items()} == dict(state.files)


def test_nothing_is_complete_where_nothing_is(tmp_path: Path) -> None:
    assert read_complete(tmp_path, "key") is None
    start_afresh(tmp_path, "key", NAMES)
    assert read_complete(tmp_path, "key") is None


def test_another_key_is_not_taken(tmp_path: Path) -> None:
    _written(tmp_path)
    assert read_complete(tmp_path, "another") is None


@settings(max_examples=25)
@given(junk=st.binary(max_size=40), which=st.sampled_from(NAMES))
def test_a_piece_behind_what_is_complete_is_cut_off(tmp_path_factory, junk, which) -> None:
    place = tmp_path_factory.mktemp("blocks")
    _written(place)
    with (place / which).open("ab") as file:
        file.write(junk)
    state = read_complete(place, "key")
    assert state is not None
    append_block(place, state, {"a": b"!", "b": b"?"}, 3, {})
    assert (place / "a").read_bytes() == b"a0a1!"
    assert (place / "b").read_bytes() == b"long 0long 1?"
    assert read_complete(place, "key") is not None


def _truncate(place: Path) -> None:
    os.truncate(place / "b", 11)


def _flip(place: Path) -> None:
    data = bytearray((place / "a").read_bytes())
    data[1] ^= 1
    (place / "a").write_bytes(data)


def _half_state(place: Path) -> None:
    (place / STATE).write_text((place / STATE).read_text()[:40])


def _state_of_others(place: Path) -> None:
    (place / STATE).write_text(json.dumps({"key": "key", "files": [1, 2], "done": 2, "facts": {}}))


@pytest.mark.parametrize(
    "damage",
    [
        *(_truncate, _flip, _half_state, _state_of_others),
        lambda place: (place / "a").unlink(),
        lambda place: (place / STATE).write_bytes(b"\xff\xfe"),
        lambda place: (place / STATE).write_text("[]"),
        lambda place: (place / STATE).write_text("{}"),
    ],
)
def test_what_is_damaged_is_not_complete(tmp_path: Path, damage) -> None:
    _written(tmp_path)
    damage(tmp_path)
    assert read_complete(tmp_path, "key") is None
    _written(tmp_path)
    assert (tmp_path / "b").read_bytes() == b"long 0long 1"


def test_starting_afresh_leaves_who_reads_the_old_files_alone(tmp_path: Path) -> None:
    _written(tmp_path)
    with (tmp_path / "a").open("rb") as file:
        start_afresh(tmp_path, "key", NAMES)
        assert file.read() == b"a0a1"
    assert (tmp_path / "a").read_bytes() == b""


def test_starting_afresh_leaves_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    _written(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_a_failed_append_leaves_what_was_complete(tmp_path: Path) -> None:
    state = _written(tmp_path)
    (tmp_path / "b").unlink()
    (tmp_path / "b").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        append_block(tmp_path, state, {"a": b"more", "b": b"more"}, 3, {})
    assert json.loads((tmp_path / STATE).read_text())["done"] == 2


def test_one_at_a_time_is_in_and_the_other_is_told(tmp_path: Path) -> None:
    inside, said = [], threading.Event()

    def second() -> None:
        with alone(tmp_path, said.set):
            inside.append("second")

    thread = threading.Thread(target=second)
    with alone(tmp_path, lambda: pytest.fail("nobody is in")):
        thread.start()
        assert said.wait(20)
        inside.append("first")
    thread.join(20)
    assert inside == ["first", "second"]


def test_a_lock_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with pytest.raises(StorageError, match="cannot write"), alone(tmp_path, lambda: None):
        pass
