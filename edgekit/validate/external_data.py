"""Weights that a model keeps in files beside it, and the names it must not give them."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from edgekit.errors import ModelError


def external_files(tensors: Iterable[onnx.TensorProto], path: Path) -> tuple[str, ...]:
    """Return the names of the files beside a model that hold its weights, each once.

    A loader follows these names, so a model from elsewhere could make it read any file of this machine:
    names that lead out of the folder, and links, are refused before anything is opened.

    Raises:
        ModelError: A name is absolute, contains `..`, is or passes a link, or is no readable file, or the
            file ends before the weight does.
    """
    names: dict[str, None] = {}
    for tensor in tensors:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        name = entries.get("location", "")
        file = _safe_external(name, tensor.name, path)
        place = [entries.get(key, "0") for key in ("offset", "length")]
        if not all(number.isascii() and number.isdigit() for number in place):
            raise ModelError(f"{path}: weight '{tensor.name}' has no readable place in '{name}'")
        end = sum(map(int, place))
        if end > file.stat().st_size:
            raise ModelError(f"{file} ends before the weight '{tensor.name}' does", "Copy the file again.")
        names[name] = None
    return tuple(names)


def _safe_external(name: str, tensor: str, path: Path) -> Path:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    parts = {*posix.parts, *windows.parts}
    if not name or posix.is_absolute() or windows.drive or windows.root or ".." in parts or "\0" in name:
        raise ModelError(
            f"{path}: weight '{tensor}' is kept in '{name}', which is outside the model's folder",
            "A model that names such a file is not safe to load; get it from another place.",
        )
    file = path.parent
    for part in posix.parts:
        file = file / part
        if file.is_symlink():
            raise ModelError(
                f"{path}: weight '{tensor}' is kept in '{name}', which is a link",
                f"Replace the link by the file: cp --dereference '{name}'.",
            )
    if not file.exists():
        raise ModelError(f"{path} keeps weights in '{name}', which is missing", "Copy that file beside it.")
    if not stat.S_ISREG(file.stat().st_mode):
        raise ModelError(f"{path} keeps weights in '{name}', which is not a file")
    return file
