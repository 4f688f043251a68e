"""A teacher's outputs: run once over all samples, kept in half precision, read from a memory map.

A cache is a folder named after the digest of everything that its contents follow from: the teacher as it is,
the samples in their order, and what is kept of each output. It grows by blocks of samples whose bounds do
not depend on where a run was killed, so that it ends with the same bytes as one that was not.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from edgekit.compress.feeding import BATCH
from edgekit.data import Sample
from edgekit.distill.block_files import (
    LOCK,
    STATE,
    Complete,
    alone,
    append_block,
    read_complete,
    start_afresh,
)
from edgekit.distill.fingerprint import model_sha256, samples_sha256
from edgekit.distill.teacher_rows import (
    COUNTS,
    DTYPES,
    INDICES,
    LOG_REST,
    VALUES,
    Tables,
    TeacherRun,
    Wanted,
    block_tables,
)
from edgekit.errors import DataError, StorageError
from edgekit.model import TorchModel
from edgekit.record import Progress, silent
from edgekit.store import sha256_json, storage_errors

__all__ = ["Targets", "TeacherCache", "Wanted", "teacher_cache"]

_FORMAT = 1
_BLOCK_SAMPLES = 256
_BLOCK_BYTES = 1 << 28  # what a block may hold in memory before it is written
_PART = "part-{}-{}"
_WAITING = "waiting for another process that makes the same teacher outputs"


@dataclass(frozen=True, eq=False)
class Targets:
    """Rows of the teacher's output, those of one sample after those of the one before it.

    Attributes:
        values: fp32 [rows, width] as the teacher gave them, or [rows, k] log-probabilities of the k largest
            logits, largest first.
        counts: int64 [samples], the rows of each sample.
        indices: int64 [rows, k], which logits the values are of; None for whole rows.
        log_rest: fp32 [rows], logarithm of the probability of all other logits together (-inf where there are
            none): with the values' probabilities it sums to 1. None for whole rows.
    """

    values: torch.Tensor
    counts: torch.Tensor
    indices: torch.Tensor | None = None
    log_rest: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class TeacherCache:
    """The outputs of a teacher for all samples, mapped into memory and read where they are asked for.

    Attributes:
        folder: Where its files lie.
        counts: int64 [samples], the rows of each sample.
        starts: int64 [samples], the first row of each sample.
        values: fp16 [all rows, width].
        indices: int32 [all rows, width]; None for whole rows.
        log_rest: fp32 [all rows]; None for whole rows.
    """

    folder: Path
    counts: np.ndarray
    starts: np.ndarray
    values: np.ndarray
    indices: np.ndarray | None = None
    log_rest: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.counts)

    def rows(self, indices: Sequence[int]) -> Targets:
        """Return the rows of some samples, in the order of `indices`.

        Log-probabilities are made to sum to 1 again, which half precision moves by up to 1 in 1000.
        """
        order = np.asarray(indices, np.int64)
        counts = self.counts[order]
        offsets = self.starts[order] - (np.cumsum(counts) - counts)
        places = np.repeat(offsets, counts) + np.arange(counts.sum())
        values = torch.from_numpy(np.array(self.values[places], np.float32))
        if self.indices is None or self.log_rest is None:
            return Targets(values, torch.from_numpy(counts))
        log_rest = torch.from_numpy(np.array(self.log_rest[places], np.float32))[:, None]
        total = torch.cat([values, log_rest], dim=1).logsumexp(dim=1, keepdim=True)
        chosen = torch.from_numpy(np.array(self.indices[places], np.int64))
        return Targets(values - total, torch.from_numpy(counts), chosen, (log_rest - total)[:, 0])

    def tables(self, first: int, stop: int) -> Tables:
        """Return what is kept of the samples from `first` to `stop`, by file name."""
        rows = slice(self.starts[first], self.starts[stop - 1] + self.counts[stop - 1])
        found = {VALUES: self.values[rows], COUNTS: self.counts[first:stop].astype(DTYPES[COUNTS])}
        if self.indices is not None and self.log_rest is not None:
            found |= {INDICES: self.indices[rows], LOG_REST: self.log_rest[rows]}
        return found


def teacher_cache(
    teacher: TorchModel,
    samples: Sequence[Sample],
    wanted: Wanted,
    folder: Path,
    progress: Progress = silent,
    *,
    device: str = "cpu",
    rank: int = 0,
    processes: int = 1,
) -> TeacherCache:
    """Return the teacher's first output for every sample; what `folder` has of it already is not run again.

    A pooled output [batch, width] has one row per sample, any other one row per position that is no padding.
    Processes that want the same cache at once wait for the first of them, unless they were told to share the
    work: then each runs the teacher over a part of the samples, and the first that is done puts the parts
    together, and makes those of processes that are gone.

    Args:
        teacher: In eval mode, on the CPU; it is not changed.
        samples: What it is run over.
        wanted: What is kept.
        folder: Place of all caches; this one gets a folder of its own in it.
        progress: Told after every block.
        device: Where the teacher runs. It is no part of the key: outputs made elsewhere are taken as they
            are, equal but for rounding.
        rank: Of this process among those that share the work.
        processes: How many these are.

    Raises:
        DataError: There are no samples, or one cannot be used.
        ModelError: An output is not finite, or too large for half precision.
        StorageError: The disk is full or the place cannot be written; complete blocks stay.
    """
    if not samples:
        raise DataError("there are no samples to run the teacher over", "Give data with at least one sample.")
    top = None if wanted.top is None else [wanted.top, wanted.temperature]
    key = sha256_json([_FORMAT, model_sha256(teacher), samples_sha256(samples), top, wanted.precision])
    place = folder / key[:16]
    state = read_complete(place, key)
    if state is not None and state.done == len(samples):
        return _opened(place, state)
    _make_folder(place)
    maker = _Maker(TeacherRun.on(device, teacher, wanted), samples, key, progress)
    parts = list(pairwise(len(samples) * n // processes for n in range(processes + 1)))
    if processes > 1:
        maker.part(place, *parts[rank])
    with alone(place, lambda: progress("distill", _WAITING, None)):
        state = maker.begun(place, key)
        for first, stop in parts:
            if processes > 1 and state.done < stop:
                state = maker.joined(place, state, first, *maker.part(place, first, stop))
        state = maker.filled(place, state, 0, len(samples))
        for part in place.glob(_PART.format("*", "*")):
            shutil.rmtree(part, ignore_errors=True)
        return _opened(place, state)


@dataclass(frozen=True, eq=False)
class _Maker:
    """Who makes a cache, whole or in parts."""

    run: TeacherRun
    samples: Sequence[Sample]
    key: str
    progress: Progress

    def begun(self, place: Path, key: str) -> Complete:
        """Return what there is of a cache or a part, to go on from."""
        state = read_complete(place, key)
        if state is None and (place / STATE).exists():
            said = f"the teacher outputs in {place} are damaged and are made again"
            self.progress("distill", said, None)
        return state or start_afresh(place, key, self.run.wanted.files)

    def part(self, place: Path, first: int, stop: int) -> tuple[Path, Complete]:
        """Make the outputs of the samples from `first` to `stop` in a folder of their own."""
        folder = place / _PART.format(first, stop)
        _make_folder(folder)
        with alone(folder, lambda: self.progress("distill", _WAITING, None)):
            state = self.begun(folder, f"{self.key} {folder.name}")
            return folder, self.filled(folder, state, first, stop)

    def joined(self, place: Path, state: Complete, first: int, folder: Path, made: Complete) -> Complete:
        """Append what a part holds beyond what is complete; its first sample is sample `first` of all."""
        part = _opened(folder, made)
        while state.done < first + made.done:
            begin = state.done - first
            end = min(begin + made.facts["block_samples"], made.done)
            tables = part.tables(begin, end)
            needed_bytes = sum(table.nbytes for table in tables.values())
            state = _appended(place, state, tables, first + end, state.facts or made.facts, needed_bytes)
        return state

    def filled(self, place: Path, state: Complete, first: int, stop: int) -> Complete:
        """Append block after block until every sample from `first` to `stop` is done.

        The first block is one batch; it tells how many samples the others may hold in memory.
        """
        samples, before, started = self.samples[first:stop], state.done, time.perf_counter()
        total, sizes = len(samples), np.cumsum([_size(sample) for sample in samples])
        while state.done < total:
            end = min(total, state.done + state.facts.get("block_samples", BATCH))
            tables = block_tables(self.run, samples[state.done : end], first + state.done)
            so_far = state.total_bytes + sum(table.nbytes for table in tables.values())
            facts = dict(state.facts) or {
                "block_samples": min(max(_BLOCK_BYTES * end // so_far // BATCH, 1) * BATCH, _BLOCK_SAMPLES),
                "width": tables[VALUES].shape[1],
            }
            needed_bytes = so_far - state.total_bytes + _left_bytes(tables, sizes, so_far, end)
            state = _appended(place, state, tables, end, facts, needed_bytes)
            rate = (end - before) / max(time.perf_counter() - started, 1e-9)
            said = f"teacher outputs: {end} of {total} samples, {rate:.0f} per second"
            self.progress("distill", said, end / total)
        return state


def _appended(
    place: Path, state: Complete, tables: Tables, done: int, facts: Mapping[str, int], needed_bytes: int
) -> Complete:
    """Append a block where there is room for it and for all that are to come."""
    with _room(place, needed_bytes, state.done):
        blocks = {name: table.tobytes() for name, table in tables.items()}
        return append_block(place, state, blocks, done, facts)


def _left_bytes(tables: Tables, sizes: np.ndarray, so_far: int, stop: int) -> int:
    """Return how many bytes come after `stop` samples: known where each has one row, else as so far.

    Texts are taken to give as many rows per character as those before them.
    """
    if len(tables[VALUES]) == len(tables[COUNTS]):
        sizes = np.arange(1, len(sizes) + 1)
    return so_far * int(sizes[-1] - sizes[stop - 1]) // int(sizes[stop - 1])


def _size(sample: Sample) -> int:
    """Return what a sample's rows grow with: its characters or words; 1 for what is no text."""
    return max(1, len(sample.value)) if isinstance(sample.value, (str, list)) else 1


def _opened(place: Path, state: Complete) -> TeacherCache:
    counts = np.fromfile(place / COUNTS, DTYPES[COUNTS], state.done).astype(np.int64)
    starts, width = np.cumsum(counts) - counts, state.facts["width"]

    def table(name: str, *width: int) -> np.ndarray:
        return np.memmap(place / name, DTYPES[name], "r", shape=(int(counts.sum()), *width))

    if INDICES not in state.files:
        return TeacherCache(place, counts, starts, table(VALUES, width))
    return TeacherCache(place, counts, starts, table(VALUES, width), table(INDICES, width), table(LOG_REST))


def _make_folder(place: Path) -> None:
    try:
        with storage_errors(place):
            place.mkdir(parents=True, exist_ok=True)
            (place / LOCK).touch()
    except StorageError as error:
        raise StorageError(error.message, "Give another folder with --cache.") from error


@contextmanager
def _room(place: Path, needed_bytes: int, done: int) -> Iterator[None]:
    """Let a block be written where the disk has room for it and for all that are to come.

    Raises:
        StorageError: It has not, or writing fails.
    """
    free_bytes = shutil.disk_usage(place).free
    said = (
        f"the teacher's outputs need {needed_bytes:,} more bytes, {free_bytes:,} are free in {place.parent}"
    )
    hint = (
        "Free space there, or give another folder with --cache;"
        f" the outputs of {done} samples are there already and will not be made again."
    )
    if free_bytes < needed_bytes:
        raise StorageError(f"the disk is too full: {said}", hint)
    try:
        yield
    except StorageError as error:
        raise StorageError(f"{error.message}; {said}", hint) from error
