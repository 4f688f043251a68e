"""Debian packages as parts of kits."""

from __future__ import annotations

from edgekit.runners.kit import Part

_MIRROR = "https://deb.debian.org/debian/pool/main"
_ARCHIVE = "https://snapshot.debian.org/archive/debian/20261121T000000Z/pool/main"
"""Mirrors drop a version at the next point release; the snapshot of the day it was pinned keeps it."""


def debian_part(path: str, size_bytes: int, sha256: str) -> Part:
    """Return a Debian package as a part.

    Args:
        path: Path below `pool/main`, as the distribution's list of packages has it.
        size_bytes: Its size there.
        sha256: Its digest there.
    """
    return Part(path.rpartition("/")[2], (f"{_MIRROR}/{path}", f"{_ARCHIVE}/{path}"), sha256, size_bytes)
