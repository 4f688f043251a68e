"""Files that are never half-written.

Every writer of a third party (onnx, numpy, the runtime) destroys the previous good file when the disk is
full, so all writing goes aside first and is renamed when it is complete.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.errors import OutputExistsError, StorageError

_CHUNK_BYTES = 1 << 20

_STORAGE_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EFBIG,
    errno.ENAMETOOLONG,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EIO,
}
_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def deflated_bytes(path: Path) -> int:
    """Return the size of a file inside a zip archive (deflate, level 6), which is what a download weighs."""
    packer, total = zlib.compressobj(6), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            total += len(packer.compress(chunk))
    return total + len(packer.flush())


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def dump_json(value: Any) -> str:
    """Return indented JSON with a final newline; NaN and infinity are errors, as JSON has none."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text file aside, flush it to the disk, and rename it into place."""
    with writing(path) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; when the block ends well, it becomes `path` in one step.

    Raises:
        StorageError: The disk is full or the place cannot be written.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        aside = Path(name)
        try:
            yield aside
            aside.chmod(0o644)
            _fsync(aside)
            aside.replace(path)
            _fsync(path.parent)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def writing_folder(path: Path, *, force: bool) -> Iterator[Path]:
    """Yield an empty folder beside `path`; when the block ends well, it becomes `path`.

    The folder that was there, if any, is only removed after the new one is in place. When the block
    raises, or is interrupted, `path` is as it was.

    Args:
        path: The folder to make.
        force: Replace a folder that is there already.

    Raises:
        OutputExistsError: `path` exists, is not an empty folder, and `force` is False.
        StorageError: The disk is full or the place cannot be written.
    """
    refuse_existing(path, force=force)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield aside
            aside.chmod(0o755)
            for file in sorted(aside.rglob("*")):
                if file.is_file():
                    _fsync(file)
            _swap(aside, path)
            _fsync(path.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _swap(aside: Path, path: Path) -> None:
    """Put the folder `aside` in the place of `path`; a folder there before goes, or comes back on failure."""
    if not path.exists():
        aside.replace(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    try:
        path.replace(old)
        aside.replace(path)
    except BaseException:
        if not path.exists():
            old.replace(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def refuse_unwritable(path: Path) -> None:
    """Raise `StorageError` if no folder could be made at `path`, before work is spent on it."""
    parent = path.absolute().parent
    while not os.path.lexists(parent) and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise StorageError(f"cannot write {path}: {parent} is not a folder", "Choose another -o folder.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write {path}: no permission in {parent}", "Choose another -o folder.")


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise `OutputExistsError` if writing to `path` would need `--force` and it was not given."""
    if path.is_file() or path.is_symlink():
        raise OutputExistsError(f"the output {path} exists and is not a folder", "Choose another -o folder.")
    with storage_errors(path):
        full = path.is_dir() and any(path.iterdir())
    if full and not force:
        raise OutputExistsError(
            f"the output folder {path} exists and is not empty", "Choose another -o folder, or give --force."
        )


@contextmanager
def workspace(near: Path | None = None) -> Iterator[Path]:
    """Yield a private scratch folder that is removed at the end, also after an error.

    Args:
        near: Make it inside this folder; None takes the system's place for temporary files.
    """
    place = near or Path(tempfile.gettempdir())
    with storage_errors(place):
        folder = Path(tempfile.mkdtemp(prefix="edgekit.", dir=place))
    try:
        # What is done inside also reads the user's files: only a full disk is surely about writing.
        with storage_errors(place, _FULL_ERRNOS):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def storage_errors(path: Path, errnos: Collection[int] = frozenset(_STORAGE_ERRNOS)) -> Iterator[None]:
    """Turn the operating system's errors about space and permission into `StorageError`.

    Args:
        path: What is written, for errors that name no file.
        errnos: Which errors to turn.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in errnos:
            raise
        raise StorageError(
            f"cannot write {error.filename or path}: {error.strerror}",
            "Free space or choose another -o folder (TMPDIR for scratch files); nothing was changed.",
        ) from error


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
