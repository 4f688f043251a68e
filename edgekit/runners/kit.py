"""Kits: what a runner needs beyond this machine, pinned by digest, in the user's cache, made without root.

A kit is a few files from public registries (`Part`) and a function that turns them into a folder: unpacks,
links, compiles. The folder's name holds the digest of all that, so a new edgekit never runs an old kit; every
file in it is recorded by its SHA-256 and held against that before each use.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import MachineError, RunnerMissingError
from edgekit.record import Progress, silent
from edgekit.store import dump_json, sha256_file, sha256_json, workspace, write_text, writing_folder

_RECORD = "kit.json"
_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Part:
    """One file to fetch.

    Attributes:
        file: Name that it is kept under while the kit is made.
        urls: Where it lies, tried in order. Debian's mirrors drop a version at the next point release, so
            its parts name the snapshot archive too.
        sha256: Digest; a file with another one is refused.
        bytes: Size of the download.
    """

    file: str
    urls: tuple[str, ...]
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Kit:
    """What a group of runners shares.

    Attributes:
        name: What `edgekit runners install` takes.
        title: One line that says what is in it.
        parts: What is fetched.
        build: Called with (folder of the fetched files, empty folder to fill). Raises `MachineError` where
            this machine lacks what it needs, e.g. a compiler.
        revision: Raised when `build` changes what it makes.
        sources: Files of edgekit that it is made from too, e.g. in C; with other content it is another kit.
        pins: Digests of what else it is made from: files of this machine.
        installed_bytes: About what it takes on disk, for the table.
    """

    name: str
    title: str
    parts: tuple[Part, ...]
    build: Callable[[Path, Path], None]
    revision: int = 1
    installed_bytes: int = 0
    sources: tuple[Path, ...] = ()
    pins: tuple[str, ...] = ()

    @property
    def download_bytes(self) -> int:
        """Size of all downloads."""
        return sum(part.bytes for part in self.parts)

    @property
    def folder(self) -> Path:
        """Where it is, or will be."""
        fetched = [(part.file, part.sha256) for part in self.parts]
        ours = [(path.name, sha256_file(path)) for path in self.sources]
        pinned = [self.revision, *fetched, *ours, *self.pins]
        return cache_folder() / "runners" / f"{self.name}-{sha256_json(pinned)[:12]}"


@dataclass(frozen=True)
class State:
    """Whether a runner can run.

    Attributes:
        missing: What it lacks, for a person; empty when it is ready.
        hint: What to do about that, e.g. the command that installs it.
    """

    missing: str = ""
    hint: str = ""

    @property
    def ready(self) -> bool:
        """True when nothing is missing."""
        return not self.missing


def cache_folder() -> Path:
    """Return the folder that edgekit keeps what it can fetch again in.

    `EDGEKIT_CACHE`, or `edgekit` in `XDG_CACHE_HOME`, or in `~/.cache`.
    Source: XDG Base Directory Specification 0.8.
    """
    named = os.environ.get("EDGEKIT_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit"


def kit_state(kit: Kit) -> State:
    """Return whether a kit is installed; its files are counted and measured, not read."""
    if not kit.folder.is_dir():
        size = f"{kit.download_bytes / 1e6:.0f} MB to fetch"
        return State(f"the kit '{kit.name}' is not installed ({size})", f"edgekit runners install {kit.name}")
    problem = _damage(kit.folder, read=False)
    if problem:
        return State(
            f"the kit '{kit.name}' is damaged: {problem}", f"edgekit runners install {kit.name} --force"
        )
    return State()


def open_kit(kit: Kit) -> Path:
    """Return a kit's folder after every file in it was held against its digest.

    Raises:
        RunnerMissingError: It is not installed, or a file was changed.
    """
    state = kit_state(kit)
    if not state.ready:
        raise RunnerMissingError(state.missing, f"Run: {state.hint}")
    problem = _damage(kit.folder, read=True)
    if problem:
        raise RunnerMissingError(
            f"the kit '{kit.name}' is damaged: {problem}", f"Run: edgekit runners install {kit.name} --force"
        )
    return kit.folder


def install_kit(kit: Kit, *, force: bool = False, progress: Progress = silent) -> bool:
    """Fetch and make a kit; an earlier one stays until the new one is whole.

    Args:
        kit: What to make.
        force: Make it again although it is there and whole.
        progress: Told of each download and of the making.

    Returns:
        False where it was there already and whole.

    Raises:
        MachineError: The network, or something that the kit is made with, is missing; or a download is not
            the file that was pinned.
        StorageError: The disk is full or the cache cannot be written.
    """
    if not force and kit_state(kit).ready and not _damage(kit.folder, read=True):
        return False
    with workspace() as downloads:
        done = 0
        for part in kit.parts:
            progress("install", f"{kit.name}: fetching {part.file} ({part.bytes / 1e6:.1f} MB)", None)
            fetch(part, downloads / part.file)
            done += part.bytes
        progress("install", f"{kit.name}: making it", None)
        with writing_folder(kit.folder, force=True) as folder:
            kit.build(downloads, folder)
            write_text(folder / _RECORD, dump_json({"kit": kit.name, "files": _digests(folder)}))
    return True


def remove_kit(kit: Kit) -> bool:
    """Remove a kit in every form that was installed; return whether there was one."""
    made = re.compile(rf"{re.escape(kit.name)}-[0-9a-f]{{12}}")
    room = kit.folder.parent
    folders = [path for path in (room.iterdir() if room.is_dir() else ()) if made.fullmatch(path.name)]
    for path in folders:
        shutil.rmtree(path, ignore_errors=True)
    return bool(folders)


def fetch(part: Part, target: Path) -> None:
    """Fetch one file and hold it against its digest.

    Raises:
        MachineError: No address answers with the pinned file; each one's reason is named.
    """
    reasons = []
    for url in part.urls:
        try:
            found = _download(url, target)
        except (OSError, urllib.error.URLError, ValueError) as error:
            reasons.append(f"{url}: {getattr(error, 'reason', None) or error}")
            continue
        if found == part.sha256:
            return
        target.unlink()
        reasons.append(f"{url}: its SHA-256 is {found[:12]}..., pinned is {part.sha256[:12]}...")
    raise MachineError(
        f"cannot fetch {part.file}: {'; '.join(reasons)}",
        "Check the network and the proxy (HTTPS_PROXY); nothing was installed.",
    )


def _download(url: str, target: Path) -> str:
    digest = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer, target.open("wb") as file:
        while chunk := answer.read(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _digests(folder: Path) -> dict[str, list[str | int]]:
    """Return every regular file -> its size and SHA-256; links are checked through what they point to."""
    return {
        path.relative_to(folder).as_posix(): [path.stat().st_size, sha256_file(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def _damage(folder: Path, *, read: bool) -> str:
    """Return what is wrong with an installed kit's files; empty when nothing is."""
    try:
        recorded = json.loads((folder / _RECORD).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return f"{_RECORD} cannot be read"
    for name, (size, digest) in recorded.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size or (read and sha256_file(path) != digest):
            return f"{name} is not the file that was installed"
    return ""
