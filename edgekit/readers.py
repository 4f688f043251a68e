"""Streaming readers of the user's data: one per format, one sample at a time.

A sample's Python type says what it is: a `str` or a list of words is text, a `Path` is an image that is not
decoded yet, a dict is named arrays. Whoever reads a text file line by line never holds the whole file, and
an `.npz` is read row by row.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgekit.errors import DataError, nearest
from edgekit.npz import read_npz_rows
from edgekit.recipe import DataOptions

Kind = Literal["text", "image", "arrays"]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
USUAL_COLUMNS = ("text", "sentence")
USUAL_LABELS = "labels"
_FORMATS = "Give a .txt, .jsonl, .csv or .npz file, or a folder of images."


@dataclass(frozen=True)
class Sample:
    """One item of the user's data.

    Attributes:
        value: A text or its list of words, the path of an image, or input name -> array without the batch
            axis.
        label: A class index or name, or a sequence of them for token classification; None where there is
            no label.
    """

    value: Any
    label: Any = None


def kind_of(value: Any) -> Kind:
    """Return what a sample's value is."""
    if isinstance(value, Mapping):
        return "arrays"
    return "image" if isinstance(value, Path) else "text"


def read_samples(options: DataOptions) -> Iterator[Sample]:
    """Return the samples of a file or folder, in its order, without the empty ones.

    Raises:
        DataError: No data was named, it is missing, of an unknown format, or malformed; an error inside a
            text file names the line.
    """
    return (sample for sample in read_rows(options) if sample is not None)


def read_rows(options: DataOptions) -> Iterator[Sample | None]:
    """Return one entry per row of the data; None stands for an empty one.

    Raises:
        DataError: As `read_samples`.
    """
    path = locate(options)
    reader = _read_folder if path.is_dir() else _READERS[path.suffix.lower()]
    return _guarded(path, reader(path, options))


def locate(options: DataOptions) -> Path:
    """Return the path of the data after the checks that need no reading.

    Raises:
        DataError: No data was named, nothing is there, the format is unknown, or an option does not apply.
    """
    if options.data is None:
        raise DataError(
            "no data was given", f"Ranges are measured on your own data, never guessed. {_FORMATS}"
        )
    path = Path(options.data)
    try:
        exists = path.exists()
    except (OSError, ValueError):  # a name that no file can have
        exists = False
    if not exists:
        raise DataError(f"data not found: {path}", "Check the path; it is relative to the working directory.")
    if path.is_dir():
        return _without_options(path, options, "a folder of images", "column", "label_column")
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise DataError(f"cannot tell what {path} is: the extension '{path.suffix}' is unknown", _FORMATS)
    if suffix == ".txt":
        return _without_options(path, options, "a .txt file", "column", "label_column")
    if suffix == ".npz":
        return _without_options(path, options, "an .npz file", "column")
    return path


def image_paths(folder: Path) -> list[tuple[Path, str | None]]:
    """Return the images of a folder, sorted, each with its label.

    Images in sub-folders are labelled with the sub-folder's name, as torchvision's `ImageFolder` lays
    classes out; images directly in the folder have no label. Hidden files are left out.

    Raises:
        DataError: There is no image, or images lie both directly in the folder and in sub-folders.
    """
    direct = _images_in(folder, "*")
    nested: list[tuple[Path, str | None]] = [
        (image, sub.name)
        for sub in sorted(folder.iterdir())
        if sub.is_dir() and not sub.name.startswith(".")
        for image in _images_in(sub, "**/*")
    ]
    if direct and nested:
        raise DataError(
            f"{folder} holds images both directly and in sub-folders, so their labels are unclear",
            "Put every image into the sub-folder of its class, or all of them into one folder.",
        )
    if not direct and not nested:
        raise DataError(f"{folder} holds no images", f"Known extensions: {', '.join(IMAGE_SUFFIXES)}.")
    return nested or [(image, None) for image in direct]


def _images_in(folder: Path, pattern: str) -> list[Path]:
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _without_options(path: Path, options: DataOptions, what: str, *keys: str) -> Path:
    for key in keys:
        if getattr(options, key) is not None:
            raise DataError(
                f"{key} = '{getattr(options, key)}' means nothing for {path}: {what} has no {key}",
                f"Leave {key} out, or give the data as .jsonl or .csv.",
            )
    return path


def _guarded(path: Path, rows: Iterator[Sample | None]) -> Iterator[Sample | None]:
    try:
        yield from rows
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines with their ends; decoding line by line is what lets the error name the line."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start})",
                    "Save the file as UTF-8.",
                ) from None


def _read_txt(path: Path, options: DataOptions) -> Iterator[Sample | None]:
    for line in _lines(path):
        text = line.strip()
        yield Sample(text) if text else None


def _read_jsonl(path: Path, options: DataOptions) -> Iterator[Sample | None]:
    column = options.column
    chosen = False
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            yield None
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error})", "Write one JSON object per line.") from None
        if not isinstance(record, dict):
            raise DataError(f"{where}: not a JSON object", 'Write lines such as {"text": "..."}.')
        if not chosen:
            column, chosen = _sample_column(where, options, record), True
        text = _text(where, str(column), _field(where, record, str(column)))
        label = None if options.label_column is None else _field(where, record, options.label_column)
        yield Sample(text, label) if text else None


def _read_csv(path: Path, options: DataOptions) -> Iterator[Sample | None]:
    rows = csv.reader(_lines(path), strict=True)
    header: list[str] = []
    column = ""
    try:
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if not header:
                header = _csv_header(where, row)
                continue
            if not row:
                yield None
                continue
            if len(row) != len(header):
                raise DataError(f"{where}: {len(row)} fields, but the header has {len(header)}")
            record = dict(zip(header, row, strict=True))
            column = column or _sample_column(where, options, record)
            text = record[column].strip()
            label = None if options.label_column is None else _field(where, record, options.label_column)
            yield Sample(text, label or None) if text else None
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: malformed CSV ({error})") from None


def _csv_header(where: str, names: list[str]) -> list[str]:
    names = [name.strip() for name in names]
    if not names or len(set(names)) != len(names) or "" in names:
        raise DataError(f"{where}: the header must name every column once, but it is {names}")
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise DataError(f"{where}: the columns are not separated by commas", "Save the file with commas.")
    return names


def _sample_column(where: str, options: DataOptions, record: Mapping[str, Any]) -> str:
    """Return the column that holds the samples: the named one, a usual one, or the only text."""
    if options.column is not None:
        _field(where, record, options.column)
        return options.column
    usual = [name for name in USUAL_COLUMNS if name in record]
    others = [name for name in record if name != options.label_column]
    texts = others if len(others) == 1 else [name for name in others if _reads_as_text(record[name])]
    if usual or len(texts) == 1:
        return (usual or texts)[0]
    raise DataError(
        f"{where}: {len(texts)} columns could hold the samples",
        f"Name one with column. Known: {', '.join(sorted(record))}.",
    )


def _reads_as_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return bool(value.strip())
    return False


def _field(where: str, record: Mapping[str, Any], name: str) -> Any:
    if name not in record:
        raise DataError(f"{where}: no column '{name}'", nearest(name, record))
    return record[name]


def _text(where: str, column: str, value: Any) -> str | list[str] | None:
    """Return the text or the words of a JSON value, None where it is empty."""
    words = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise DataError(f"{where}: '{column}' is neither a text nor a list of words")
    try:
        "".join(words).encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: '{column}' holds half of a surrogate pair, which is no text") from None
    if not "".join(words).strip():
        return None
    return value.strip() if isinstance(value, str) else words


def _read_npz(path: Path, options: DataOptions) -> Iterator[Sample | None]:
    labels = options.label_column or USUAL_LABELS
    for row in read_npz_rows(path):
        if options.label_column is not None and labels not in row:
            raise DataError(f"{path} has no array '{labels}'", nearest(labels, row))
        label = row.pop(labels, None)
        if not row:
            raise DataError(f"{path} holds labels but no inputs", "Save one array per model input.")
        for name, array in row.items():
            what = f"{path}, array '{name}'"
            if array.dtype.kind == "U":
                raise DataError(f"{what} holds {array.dtype}, not numbers")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(f"{what} holds NaN or infinity", "Remove the samples that are not finite.")
        yield Sample(row, None if label is None else label.tolist())


def _read_folder(folder: Path, options: DataOptions) -> Iterator[Sample | None]:
    for image, label in image_paths(folder):
        yield Sample(image, label)


_Reader = Callable[[Path, DataOptions], Iterator[Sample | None]]
_READERS: dict[str, _Reader] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".npz": _read_npz,
    ".txt": _read_txt,
}
