"""The user's data: which samples calibrate, which are held out, and what was found on the way.

The choice is a bottom-k sample: every distinct content gets a pseudo-random rank from its digest and the
seed, and the lowest ranks win. So memory grows with the samples that are kept and not with the file, equal
contents can never land on both sides, and neither the order of the lines nor a library's random generator
changes the result.

Source: E. Cohen, H. Kaplan, "Summarizing data using bottom-k sketches", PODC 2007.
"""

from __future__ import annotations

import hashlib
import heapq
from array import array
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import DataError
from edgekit.readers import Kind, Sample, image_paths, kind_of, locate, read_rows, read_samples
from edgekit.recipe import DataOptions
from edgekit.store import sha256_file

__all__ = [
    "DataAudit",
    "Kind",
    "Sample",
    "Split",
    "content_digest",
    "data_sha256",
    "draw",
    "kind_of",
    "read_samples",
    "split",
]

MIN_TEXTS = 32
"""Fewest distinct texts. A text of 10 to 30 tokens gives as many observations per channel, so 32 make
several hundred: fewer, and one odd sentence sets a tensor's range."""

MIN_ITEMS = 16
"""Fewest distinct images or array samples. An image gives hundreds of positions per channel, so fewer of
them already describe a range; below 16 the held-out half cannot show a spread."""

MIN_HELD_OUT = 8
"""Fewest held-out samples: two batch sizes and three sequence lengths need several samples each."""


@dataclass(frozen=True)
class DataAudit:
    """What was found in a file or folder of samples.

    Attributes:
        kind: What the samples are.
        name: Name of the file or folder, without the way to it.
        read: Samples that are not empty.
        empty: Empty lines, rows and values, which were left out.
        duplicates: Samples whose content had occurred before.
        distinct: Samples with different contents; `read - duplicates`.
        excluded: Distinct samples left out because they are among the calibration samples.
        calibration: Samples chosen for calibration.
        held_out: Samples chosen for validation.
        sha256: Digest of the file's bytes, or of the folder's file names and bytes.
    """

    kind: Kind
    name: str
    read: int
    empty: int
    duplicates: int
    distinct: int
    excluded: int
    calibration: int
    held_out: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return the audit as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Split:
    """Samples for two purposes that share no content."""

    calibration: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    audit: DataAudit


def split(options: DataOptions, *, held_out: int, seed: int, exclude: Iterable[Sample] = ()) -> Split:
    """Choose the calibration samples of a file, and samples held out from them.

    The held-out samples have the lowest ranks, so asking for more calibration samples does not change them.
    Where the file has fewer distinct samples than were asked for, a quarter of it is held out.

    Args:
        options: The data; `samples` is how many to calibrate with at most.
        held_out: How many to hold out at most; 0 holds none out.
        seed: Another seed makes another choice.
        exclude: Samples whose contents may be on neither side.

    Raises:
        DataError: The data is missing, malformed, or has too few distinct samples.
    """
    chosen = _choose(options, options.samples + held_out, seed, _digests(exclude))
    needed = MIN_TEXTS if chosen.kind == "text" else MIN_ITEMS
    _require(chosen, options, needed, "calibration")
    total = len(chosen.samples)
    if total < options.samples + held_out:
        held_out = min(held_out, max(MIN_HELD_OUT, total // 4, total - options.samples))
    apart, rest = chosen.samples[:held_out], chosen.samples[held_out:][: options.samples]
    return Split(rest, apart, chosen.audit(options, calibration=len(rest), held_out=len(apart)))


def draw(options: DataOptions, *, seed: int, exclude: Iterable[Sample] = ()) -> Split:
    """Choose held-out samples from a file of their own.

    Args:
        options: The data; `samples` is how many to draw at most.
        seed: Another seed makes another choice.
        exclude: Samples whose contents may not be drawn: those that calibrate.

    Returns:
        A split without calibration samples; its audit counts what was excluded.

    Raises:
        DataError: The data is missing, malformed, or has too few distinct samples that are not excluded.
    """
    chosen = _choose(options, options.samples, seed, _digests(exclude))
    _require(chosen, options, min(MIN_HELD_OUT, options.samples), "validation")
    audit = chosen.audit(options, calibration=0, held_out=len(chosen.samples))
    return Split((), chosen.samples, audit)


def data_sha256(path: Path) -> str:
    """Return the digest of a data file's bytes, or of a folder's image names and bytes."""
    if not path.is_dir():
        return sha256_file(path)
    digest = hashlib.sha256()
    for image, _ in image_paths(path):
        digest.update(f"{image.relative_to(path).as_posix()}\0{sha256_file(image)}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Chosen:
    """The lowest ranks of a stream, lowest first, and the counts of the whole stream."""

    kind: Kind
    samples: tuple[Sample, ...]
    read: int
    empty: int
    distinct: int
    excluded: int

    def audit(self, options: DataOptions, *, calibration: int, held_out: int) -> DataAudit:
        path = locate(options)
        return DataAudit(
            kind=self.kind,
            name=path.resolve().name,
            read=self.read,
            empty=self.empty,
            duplicates=self.read - self.distinct,
            distinct=self.distinct,
            excluded=self.excluded,
            calibration=calibration,
            held_out=held_out,
            sha256=data_sha256(path),
        )


@dataclass
class _BottomK:
    """The `size` samples with the lowest ranks among those offered."""

    size: int
    kept: dict[int, Sample] = field(default_factory=dict)
    ranks: list[int] = field(default_factory=list)  # a heap of negated ranks: the highest is on top

    def offer(self, rank: int, sample: Sample) -> None:
        if rank in self.kept or (len(self.kept) == self.size and rank > -self.ranks[0]):
            return
        self.kept[rank] = sample
        heapq.heappush(self.ranks, -rank)
        if len(self.kept) > self.size:
            del self.kept[-heapq.heappop(self.ranks)]


def _choose(options: DataOptions, size: int, seed: int, excluded: frozenset[bytes] = frozenset()) -> _Chosen:
    bottom = _BottomK(size)
    read = empty = 0
    seen = array("Q")  # 8 bytes of every digest: what counting the distinct contents costs per sample
    met: set[bytes] = set()
    path = locate(options)
    kind: Kind = "image" if path.is_dir() else "arrays" if path.suffix.lower() == ".npz" else "text"
    for sample in read_rows(options):
        if sample is None:
            empty += 1
            continue
        read += 1
        digest = content_digest(sample.value)
        seen.append(int.from_bytes(digest[:8], "big"))
        if digest in excluded:
            met.add(digest)
            continue
        bottom.offer(_rank(digest, seed), sample)
    distinct = len(np.unique(np.frombuffer(seen, np.uint64))) if read else 0
    samples = tuple(bottom.kept[rank] for rank in sorted(bottom.kept))
    return _Chosen(kind, samples, read, empty, distinct, len(met))


def _digests(samples: Iterable[Sample]) -> frozenset[bytes]:
    return frozenset(content_digest(sample.value) for sample in samples)


def _rank(digest: bytes, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(b"%d:%b" % (seed, digest), digest_size=16).digest(), "big")


def content_digest(value: Any) -> bytes:
    """Return 16 bytes that stand for a sample's content; its label does not count."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(value, Path):
        try:
            return bytes.fromhex(sha256_file(value))[:16]
        except OSError as error:
            raise DataError(f"cannot read {value}: {error.strerror}") from None
    if isinstance(value, dict):
        for name in sorted(value):
            digest.update(f"{name}\0{value[name].dtype}\0{value[name].shape}\0".encode())
            digest.update(value[name].tobytes())
    else:
        digest.update((value if isinstance(value, str) else " ".join(value)).encode())
    return digest.digest()


def _require(chosen: _Chosen, options: DataOptions, needed: int, purpose: str) -> None:
    if len(chosen.samples) >= needed or chosen.distinct - chosen.excluded >= needed:
        return
    unit = {"text": "texts", "image": "images", "arrays": "samples"}[chosen.kind]
    usable = chosen.distinct - chosen.excluded
    if not chosen.read:
        raise DataError(
            f"{options.data} is empty: it has no samples", f"{purpose} needs at least {needed} {unit}."
        )
    if chosen.distinct == 1 and chosen.read > 1:
        found = f"all {chosen.read} {unit} of {options.data} are the same"
    else:
        found = f"{options.data} has {usable} distinct {unit if usable != 1 else unit[:-1]}"
        found += f" that are not used for calibration ({chosen.excluded} are)" if chosen.excluded else ""
        found += f" among {chosen.read}" if chosen.read > chosen.distinct else ""
    raise DataError(
        f"{found}; {purpose} needs at least {needed}", "Add more samples of what the app will see."
    )
