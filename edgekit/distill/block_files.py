"""Files that grow together by blocks and are never half of one: what a cache of many hours is kept in.

A block is flushed to the disk behind what is complete, and only then counted, in `state.json`. So a process
that is killed at any moment leaves complete blocks and at most a piece that is cut off by the next append.
Blocks are written and not mapped: writing to a map of a full disk ends the process by a signal.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edgekit.store import dump_json, storage_errors, write_text

STATE = "state.json"
LOCK = "lock"
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Complete:
    """What is complete in a folder.

    Attributes:
        key: Digest of what the contents follow from.
        done: Items that the blocks so far hold.
        files: File name -> (bytes, CRC-32 of them).
        facts: What the writer has to know to go on, by name.
    """

    key: str
    done: int
    files: Mapping[str, Sequence[int]]
    facts: Mapping[str, int] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        """Size of all files together."""
        return sum(size for size, _ in self.files.values())


def read_complete(place: Path, key: str) -> Complete | None:
    """Return what is complete in a folder; None where that is nothing, something else, or damaged."""
    try:
        state = Complete(**json.loads((place / STATE).read_text(encoding="utf-8")))
        whole = all(_crc32(place / name, size) == crc for name, (size, crc) in state.files.items())
        return state if whole and state.key == key else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def start_afresh(place: Path, key: str, names: Sequence[str]) -> Complete:
    """Empty a folder's files. The old ones are removed and not overwritten: another process may read them.

    Raises:
        StorageError: The place cannot be written.
    """
    with storage_errors(place):
        for name in (STATE, *names):
            (place / name).unlink(missing_ok=True)
        for name in names:
            (place / name).touch()
    return Complete(key, 0, dict.fromkeys(names, (0, 0)))


def append_block(
    place: Path, state: Complete, block: Mapping[str, bytes], done: int, facts: Mapping[str, int]
) -> Complete:
    """Write one block behind what is complete, and the state that counts it.

    Args:
        place: The folder.
        state: What is complete.
        block: File name -> what comes next in it.
        done: Items that are complete with this block.
        facts: What the writer has to know to go on.

    Raises:
        StorageError: The disk is full or the place cannot be written; what was complete still is.
    """
    files = dict(state.files)
    with storage_errors(place):
        for name, data in block.items():
            size, crc = state.files[name]
            with (place / name).open("r+b") as file:
                file.truncate(size)
                file.seek(size)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            files[name] = (size + len(data), zlib.crc32(data, crc))
        state = Complete(state.key, done, files, dict(facts))
        write_text(place / STATE, dump_json(asdict(state)))
    return state


@contextmanager
def alone(place: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Let one process at a time write in a folder; the lock ends with the process, however that ends.

    Args:
        place: The folder.
        waiting: Called once where another process is in.

    Raises:
        StorageError: The place cannot be written.
    """
    with storage_errors(place):
        file = (place / LOCK).open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _crc32(path: Path, count: int) -> int:
    """Return the CRC-32 of the first bytes of a file.

    Raises:
        ValueError: It has fewer.
    """
    crc = 0
    with path.open("rb") as file:
        while count > 0:
            data = file.read(min(count, _READ_BYTES))
            if not data:
                raise ValueError(f"{path} is truncated")
            crc, count = zlib.crc32(data, crc), count - len(data)
    return crc
