"""Checkpoints of a training run: a folder that is never half-written and never mixed with another run's.

`identity.json` tells in words what is trained on what; `last.pt` is where to go on; `best.pt` holds the best
weights so far and is right by itself, so that the two need not be written together.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from edgekit.errors import DataError, ModelError
from edgekit.store import dump_json, storage_errors, write_text, writing

IDENTITY = "identity.json"
LAST = "last.pt"
BEST = "best.pt"


def claim(folder: Path, identity: Mapping[str, str]) -> None:
    """Make the folder this run's, or make sure that it is.

    Args:
        folder: Where the checkpoints lie; it is made where there is none.
        identity: What is trained on what: a name for a person -> a value or digest.

    Raises:
        DataError: The folder's checkpoints are those of another run; every entry that differs is named.
        ModelError: `identity.json` is damaged.
        StorageError: The folder cannot be written.
    """
    if any((folder / name).exists() for name in (IDENTITY, LAST, BEST)):
        was = _identity(folder)
        names = [name for name in {**was, **identity} if was.get(name) != identity.get(name)]
        if names:
            listed = "; ".join(
                f"{name} was {was.get(name, 'not given')}, is {identity.get(name, 'not given')}"
                for name in names
            )
            raise DataError(
                f"{folder} holds the checkpoints of another training run: {listed}",
                "Give what was given then to go on with that run, or delete the folder to start this one.",
            )
        return
    write_text(folder / IDENTITY, dump_json(dict(identity)))


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint aside and rename it into place.

    Args:
        path: The file.
        state: Tensors, numbers, texts, and lists and dicts of them.

    Raises:
        StorageError: The disk is full or the place cannot be written; the checkpoint before is still there.
    """
    with writing(path) as aside, storage_errors(path), aside.open("wb") as file:
        try:
            torch.save(dict(state), file)
        except RuntimeError as error:  # torch hides why a file could not be written
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint onto the CPU; nothing in it is executed.

    Returns:
        What `save` was given, or None where there is no such file.

    Raises:
        ModelError: The file is damaged.
    """
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged_part := archive.testzip():  # torch itself does not check the sums
                raise ValueError(f"{damaged_part} does not have its checksum")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # BadZipFile, UnpicklingError, RuntimeError, OSError: whatever the bytes provoke
        raise damaged(path, str(error)) from error


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Turn errors while what was loaded is put to use into `ModelError`: it is not what was saved."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path, why: str) -> ModelError:
    """Return the error for a checkpoint that cannot be gone on with."""
    reason = " ".join(why.split())
    return ModelError(
        f"the checkpoint {path} is damaged" + (f": {reason[:200]}" if reason else ""),
        f"Delete the folder {path.parent} to train from the start.",
    )


def _identity(folder: Path) -> dict[str, str]:
    path = folder / IDENTITY
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise damaged(path, "it is missing") from None
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise damaged(path, "it holds no names")
    return found
