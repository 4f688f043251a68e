"""Statistics as a file: what calibration found, keyed by the graph and the data that it was found on.

The file is a plain `.npz` without pickle; the same statistics always make the same bytes. It serves as a
checkpoint, to quantize for another target without running the model again, and to merge shards that were
calibrated apart.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import DataError
from edgekit.model import OnnxModel
from edgekit.quantize.observers import HISTOGRAM_BINS, RowSample, RunningHistogram, TensorStats
from edgekit.store import sha256_file, storage_errors, writing

_SCHEMA = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can tell
_ARRAYS = ("low", "high", "total", "counts", "ranks", "rows", "growths")


@dataclass(frozen=True)
class InputSpan:
    """What one input of the model held over the data.

    Attributes:
        floating: It holds real numbers, not indices or masks.
        low: Smallest value.
        high: Largest value.
        digest: The lowest digest of a sample's array.
        varies: The samples' arrays are not all the same.
    """

    floating: bool
    low: float
    high: float
    digest: str
    varies: bool = False

    def merge(self, other: InputSpan) -> InputSpan:
        """Return the span over both."""
        return InputSpan(
            floating=self.floating,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            digest=min(self.digest, other.digest),
            varies=self.varies or other.varies or self.digest != other.digest,
        )


@dataclass(frozen=True)
class DataSeen:
    """Which data went in, whatever its order and however it was cut into shards.

    Attributes:
        batches: Batches run.
        samples: Samples run.
        digest: Sum of the samples' SHA-256 digests modulo 2**256: shards add up to the whole.
            Source: Clarke et al. 2003, "Incremental multiset hash functions" (MSet-Add-Hash).
        inputs: Input name -> what it held.
    """

    batches: int = 0
    samples: int = 0
    digest: int = 0
    inputs: Mapping[str, InputSpan] = field(default_factory=dict)

    def merge(self, other: DataSeen) -> DataSeen:
        """Return what both have seen."""
        inputs = dict(self.inputs)
        for name, span in other.inputs.items():
            inputs[name] = inputs[name].merge(span) if name in inputs else span
        digest = (self.digest + other.digest) % 2**256
        return DataSeen(self.batches + other.batches, self.samples + other.samples, digest, inputs)


def seen_in(batch: Mapping[str, np.ndarray]) -> DataSeen:
    """Return what a batch holds; axis 0 of each input counts its samples."""
    size = len(next(iter(batch.values())))
    total = 0
    for row in range(size):
        digest = hashlib.sha256()
        for name in sorted(batch):
            digest.update(_array_digest(name, batch[name][row]))
        total += int.from_bytes(digest.digest(), "big")
    spans = {name: _span(name, value) for name, value in batch.items()}
    return DataSeen(1, size, total % 2**256, spans)


def _span(name: str, value: np.ndarray) -> InputSpan:
    digests = [_array_digest(name, row).hex() for row in value]
    low, high = (float(value.min()), float(value.max())) if value.size else (0.0, 0.0)
    return InputSpan(value.dtype.kind == "f", low, high, min(digests), len(set(digests)) > 1)


def _array_digest(name: str, value: np.ndarray) -> bytes:
    digest = hashlib.sha256(f"{name}\0{value.dtype}\0{value.shape}\0".encode())
    digest.update(np.ascontiguousarray(value).tobytes())
    return digest.digest()


@dataclass(frozen=True)
class Statistics:
    """Statistics of a graph's tensors over data.

    Attributes:
        graph_sha256: Digest of the float graph, external weights included.
        seen: The data.
        complete: Every tensor has seen all of it; False in a checkpoint.
        tensors: Tensor name -> statistics; read from the file one by one where they come from one.
    """

    graph_sha256: str
    seen: DataSeen
    complete: bool
    tensors: Mapping[str, TensorStats]


def graph_sha256(model: OnnxModel) -> str:
    """Return the digest of a graph's file and of its external weights, where it has them."""
    path = model.only.path
    data = path.with_name(path.name + ".data")
    if not data.exists():
        return sha256_file(path)
    return hashlib.sha256((sha256_file(path) + sha256_file(data)).encode()).hexdigest()


def merge(first: Statistics, second: Statistics) -> Statistics:
    """Return the statistics of two shards' data together; a sample that is in both counts twice.

    Ranges, histograms and rows are those of the whole, exactly.

    Raises:
        DataError: They are of different graphs, or one of them is a checkpoint.
    """
    if first.graph_sha256 != second.graph_sha256 or set(first.tensors) != set(second.tensors):
        raise DataError("the statistics are of different graphs", "Merge shards of one float graph.")
    if not (first.complete and second.complete):
        raise DataError("one of the statistics is not complete", "Let its calibration end first.")
    tensors = {}
    for name, stats in first.tensors.items():
        tensors[name] = _copy(stats)
        tensors[name].merge(second.tensors[name])
        tensors[name].sample.sort()
    return Statistics(first.graph_sha256, first.seen.merge(second.seen), True, tensors)


def _copy(stats: TensorStats) -> TensorStats:
    histogram = RunningHistogram(stats.histogram.limit, stats.histogram.counts.copy())
    rows = stats.sample.rows
    sample = RowSample(stats.sample.ranks.copy(), None if rows is None else rows.copy())
    return replace(stats, histogram=histogram, sample=sample, growths=list(stats.growths))


def save(statistics: Statistics, path: Path) -> None:
    """Write a statistics file in one step, tensor by tensor.

    Raises:
        StorageError: It cannot be written.
    """
    rows = []
    with writing(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        for index, (name, stats) in enumerate(statistics.tensors.items()):
            stats.sample.sort()
            arrays = {
                "low": stats.low,
                "high": stats.high,
                "total": stats.total,
                "counts": stats.histogram.counts,
                "ranks": stats.sample.ranks,
                "rows": stats.rows,
                "growths": np.array(stats.growths, np.float64).reshape(-1, 3),
            }
            for key in _ARRAYS:
                _write(archive, f"{index}/{key}", arrays[key])
            rows.append(
                {
                    "name": name,
                    "axis": stats.axis,
                    "count": stats.count,
                    "batches": stats.batches,
                    "limit": stats.histogram.limit,
                    "finite": stats.finite,
                }
            )
        seen = statistics.seen
        header = {
            "schema": _SCHEMA,
            "graph_sha256": statistics.graph_sha256,
            "complete": statistics.complete,
            "batches": seen.batches,
            "samples": seen.samples,
            "data_digest": f"{seen.digest:064x}",
            "inputs": {name: vars(span) for name, span in seen.inputs.items()},
            "tensors": rows,
        }
        _write(archive, "header", np.array(json.dumps(header)))


def load(path: Path) -> Statistics:
    """Read a statistics file; its tensors are read when they are asked for.

    Raises:
        DataError: The file is missing, damaged, or of another version.
    """
    if not path.is_file():
        raise DataError(f"statistics file not found: {path}", "Make it with --save-statistics FILE.")
    try:
        with storage_errors(path), np.load(path, allow_pickle=False) as file:
            header: dict[str, Any] = json.loads(str(file["header"]))
        if header["schema"] != _SCHEMA:
            raise DataError(f"{path}: statistics schema {header['schema']} is not {_SCHEMA}", "Make it anew.")
        inputs = {name: InputSpan(**span) for name, span in header["inputs"].items()}
        seen = DataSeen(header["batches"], header["samples"], int(header["data_digest"], 16), inputs)
        tensors = StoredTensors(path, {row["name"]: (i, row) for i, row in enumerate(header["tensors"])})
        return Statistics(header["graph_sha256"], seen, header["complete"], tensors)
    except DataError:
        raise
    except Exception as error:  # numpy, zipfile and json raise a dozen kinds for a damaged file
        raise _unreadable(path, error) from None


@dataclass(frozen=True)
class StoredTensors(Mapping[str, TensorStats]):
    """The tensors of a statistics file; each is read when it is asked for, and not kept.

    Attributes:
        path: The file.
        rows: Tensor name -> its number in the file and its row of the header.
    """

    path: Path
    rows: Mapping[str, tuple[int, Mapping[str, Any]]]

    def __getitem__(self, name: str) -> TensorStats:
        """Read one tensor.

        Raises:
            DataError: The file is damaged.
        """
        index, row = self.rows[name]
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {key: file[f"{index}/{key}"] for key in _ARRAYS}
            if arrays["counts"].shape != (HISTOGRAM_BINS,):
                raise ValueError(f"a histogram has {arrays['counts'].size} bins")
        except Exception as error:  # as in `load`
            raise _unreadable(self.path, error) from None
        sample = RowSample(arrays["ranks"], arrays["rows"] if len(arrays["ranks"]) else None)
        return TensorStats(
            axis=row["axis"],
            count=row["count"],
            batches=row["batches"],
            low=arrays["low"],
            high=arrays["high"],
            total=arrays["total"],
            histogram=RunningHistogram(row["limit"], arrays["counts"]),
            sample=sample,
            growths=[(int(at), float(low), float(high)) for at, low, high in arrays["growths"]],
            finite=row["finite"],
        )

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in the order of the file."""
        return iter(self.rows)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self.rows)

    def batches(self, name: str) -> int:
        """Return how many batches a tensor has seen, without reading its arrays."""
        return int(self.rows[name][1]["batches"])


def _write(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
    with archive.open(member, "w", force_zip64=True) as file:
        np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def _unreadable(path: Path, error: Exception) -> DataError:
    detail = str(error) or type(error).__name__
    return DataError(f"{path} is not a readable statistics file: {detail}", "Make it anew.")
