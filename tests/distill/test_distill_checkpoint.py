"""A checkpoint is whole or not there, and never taken for another run's."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from edgekit.distill import checkpoint
from edgekit.errors import DataError, ModelError, StorageError

STATE = {"step": 7, "points": [{"quality": {"x": 0.5}}], "weights": {"w": torch.arange(4000.0)}}


@contextmanager
def _largest_file(limit_bytes: int) -> Iterator[None]:
    """Let every file of this process end at a size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "run" / "last.pt"
    assert checkpoint.load(path) is None
    checkpoint.save(path, STATE)
    found = checkpoint.load(path)
    assert found is not None
    assert found["step"] == 7
    assert found["points"] == STATE["points"]
    assert torch.equal(found["weights"]["w"], torch.arange(4000.0))


@pytest.mark.parametrize("damage", ["cut", "one bit", "empty", "no zip"])
def test_a_damaged_checkpoint_is_named_with_the_way_out(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    cut = {"cut": content[: len(content) // 3], "one bit": content, "empty": b"", "no zip": b"hello"}
    path.write_bytes(cut[damage])
    with pytest.raises(ModelError) as caught:
        checkpoint.load(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert f"Delete the folder {tmp_path}" in caught.value.hint


def test_a_checkpoint_executes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"

    class Bomb:
        def __reduce__(self) -> object:
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"step": Bomb()}, path)
    with pytest.raises(ModelError):
        checkpoint.load(path)
    assert not (tmp_path / "exploded").exists()


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {**STATE, "step": 6})
    before = path.read_bytes()
    with _largest_file(9000), pytest.raises(StorageError) as caught:
        checkpoint.save(path, STATE)
    assert os.strerror(errno.EFBIG) in caught.value.message
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_the_same_run_is_let_in_again(tmp_path: Path) -> None:
    identity = {"teacher": "a", "learning rate": "0.1"}
    checkpoint.claim(tmp_path / "run", identity)
    checkpoint.claim(tmp_path / "run", dict(reversed(identity.items())))


def test_another_run_is_refused_and_every_difference_named(tmp_path: Path) -> None:
    checkpoint.claim(tmp_path, {"teacher": "a", "data": "old.txt", "steps": "9"})
    with pytest.raises(DataError) as caught:
        checkpoint.claim(tmp_path, {"teacher": "a", "data": "new.txt", "seed": "0"})
    message = caught.value.message
    assert "data was old.txt, is new.txt" in message
    assert "steps was 9, is not given" in message
    assert "seed was not given, is 0" in message
    assert "teacher" not in message
    assert "delete the folder" in caught.value.hint


@pytest.mark.parametrize("content", [None, "{", "[]", "\xff"])
def test_checkpoints_without_a_readable_identity_are_refused(tmp_path: Path, content: str | None) -> None:
    checkpoint.save(tmp_path / checkpoint.LAST, STATE)
    if content is not None:
        (tmp_path / checkpoint.IDENTITY).write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelError, match=r"identity\.json is damaged"):
        checkpoint.claim(tmp_path, {"teacher": "a"})
