"""An `.npz` file read row by row, so that it may be larger than the memory."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np

from edgekit.errors import DataError


def read_npz_rows(path: Path) -> Iterator[dict[str, np.ndarray]]:
    """Yield array name -> one index of axis 0, for all arrays side by side.

    Raises:
        DataError: The file is damaged or not an `.npz`, an array needs pickle, is not an array of numbers
            or of fixed-width strings, has an empty axis, or the arrays differ in length.
    """
    try:
        with zipfile.ZipFile(path) as archive, ExitStack() as stack:
            arrays: dict[str, tuple[int, Iterator[np.ndarray]]] = {}
            for member in archive.namelist():
                name = member.removesuffix(".npy")
                file = stack.enter_context(archive.open(member))
                arrays[name] = _array_rows(file, f"{path}, array '{name}'")
            counts = {name: count for name, (count, _) in arrays.items()}
            if len(set(counts.values())) > 1:
                raise DataError(f"{path}: the arrays differ in their number of samples: {counts}")
            for rows in zip(*(rows for _, rows in arrays.values()), strict=True):
                yield dict(zip(arrays, rows, strict=True))
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{path} is not a readable .npz file: {error}", "Write it with numpy.savez."
        ) from None


def _array_rows(file: IO[bytes], what: str) -> tuple[int, Iterator[np.ndarray]]:
    """Return the length of axis 0 and the rows of a `.npy` stream.

    Source: the NPY format, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in header:
        raise DataError(f"{what}: NPY version {version} is not supported")
    shape, fortran, dtype = header[version](file)
    if dtype.hasobject:
        raise DataError(f"{what} holds Python objects, which need pickle", "Save arrays of numbers only.")
    if dtype.kind not in "biufU":
        raise DataError(f"{what} holds {dtype}, not numbers")
    if not shape or 0 in shape[1:]:
        raise DataError(f"{what} has shape {shape}; axis 0 must count the samples and no other may be empty")

    def rows() -> Iterator[np.ndarray]:
        native = dtype.newbyteorder("=")
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        if fortran:  # its rows are not contiguous, so they cannot be read one by one
            whole = np.frombuffer(_exactly(file, row_bytes * shape[0], what), dtype)
            yield from np.ascontiguousarray(whole.reshape(shape, order="F"), native)
            return
        for _ in range(shape[0]):
            row = np.frombuffer(_exactly(file, row_bytes, what), dtype)
            yield row.reshape(shape[1:]).astype(native)

    return shape[0], rows()


def _exactly(file: IO[bytes], count: int, what: str) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise DataError(f"{what} is truncated")
    return data
