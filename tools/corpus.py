"""Corpora of general English, from text that ships with Debian packages; nothing of it is kept in git.

Run from the checkout: python -m tools.corpus build/corpus

It makes three files, one text on each line, every text once in all of them together:
general.txt for vocabularies, calibration and training; in-domain.txt, drawn from the same packages and held
out; held-out.txt, from other packages of another kind. sources.json says what they were made from.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools import corpus_formats as formats

HELD_OUT_OF_GENERAL = 50
"""One text of so many goes to in-domain.txt."""

MOST_BYTES = 4_000_000
"""Of one package: two dictionaries would otherwise be two thirds, rare old words as common as others."""


@dataclass(frozen=True)
class Source:
    """A Debian package with text.

    Attributes:
        package: Its name; `apt-get download` takes whatever version the system's lists have.
        files: Shell pattern of the files to read, below the package's root.
        read: File content -> paragraphs.
        licence: As `copyright` in the package says.
        about: What kind of text it is.
        part: `general` or `held-out`.
    """

    package: str
    files: str
    read: Callable[[str], Iterator[str]]
    licence: str
    about: str
    part: Literal["general", "held-out"] = "general"


SOURCES = (
    Source(
        "dict-gcide",
        "usr/share/dictd/gcide.dict.dz",
        formats.gcide,
        "GPL-2+",
        "dictionary, from 1913 on",
    ),
    Source(
        "wordnet-base",
        "usr/share/wordnet/data.*",
        formats.wordnet,
        "WordNet-3.0",
        "meanings and examples",
    ),
    Source(
        "anarchism",
        "usr/share/doc/anarchism/html/*.html",
        formats.html_paragraphs,
        "GPL-2",
        "essays on society",
    ),
    Source(
        "dict-foldoc",
        "usr/share/dictd/foldoc.dict.dz",
        formats.foldoc,
        "GFDL-1.1+",
        "dictionary of computing",
    ),
    Source(
        "debian-handbook",
        "usr/share/doc/debian-handbook/html/en-US/*.html",
        formats.html_paragraphs,
        "GPL-2+ or CC-BY-SA-3.0",
        "handbook for administrators",
    ),
    Source(
        "libreoffice-help-en-us",
        "usr/share/libreoffice/help/en-US/text/**/*.html",
        formats.html_paragraphs,
        "MPL-2.0",
        "help for users of an office suite",
    ),
    Source(
        "git-doc",
        "usr/share/doc/git/html/*.html",
        formats.html_paragraphs,
        "GPL-2",
        "manuals for programmers",
    ),
    Source(
        "apache2-doc",
        "usr/share/doc/apache2-doc/manual/en/**/*.html",
        formats.html_paragraphs,
        "Apache-2.0",
        "manual of a web server",
    ),
    Source(
        "harden-doc",
        "usr/share/doc/harden-doc/html/en-US/*.html",
        formats.html_paragraphs,
        "GPL-2",
        "advice on security",
    ),
    Source(
        "debian-reference-en",
        "usr/share/debian-reference/*.en.html",
        formats.html_paragraphs,
        "GPL-2+",
        "handbook for users",
    ),
    Source(
        "fortunes",
        "usr/share/games/fortunes/*.u8",
        formats.fortunes,
        "BSD",
        "sayings and quotations",
        "held-out",
    ),
    Source(
        "jargon-text",
        "usr/share/doc/jargon-text/jargon.txt.gz",
        formats.jargon,
        "public domain",
        "slang and anecdotes",
        "held-out",
    ),
    Source(
        "gnome-user-docs",
        "usr/share/help/C/gnome-help/*.page",
        formats.html_paragraphs,
        "CC-BY-SA-3.0",
        "help for users of a desktop",
        "held-out",
    ),
)


@dataclass(frozen=True)
class Row:
    """What a source gave."""

    source: Source
    version: str
    sha256: str
    lines: int
    size_bytes: int


def build(output: Path, sources: Sequence[Source] = SOURCES, seed: int = 0) -> list[Row]:
    """Write the corpora and say what each package gave; the same packages make the same bytes.

    Args:
        output: Folder of the corpora; the packages are kept in `packages` below it.
        sources: General ones first, so that no held-out text is also a general one.
        seed: Of the draw and of the order.
    """
    parts: dict[str, list[tuple[bytes, str]]] = {"general": [], "in-domain": [], "held-out": []}
    seen: set[bytes] = set()
    rows = []
    for source in sources:
        package = fetched(source.package, output / "packages")
        fresh = distinct(source_texts(source, package), seen)
        ranked = limited(sorted((_digest(f"{seed}:{text}"), text) for text in fresh), MOST_BYTES)
        rows.append(_row(source, package, [text for _, text in ranked]))
        for rank, text in ranked:
            drawn = source.part == "general" and int.from_bytes(rank[-4:], "big") % HELD_OUT_OF_GENERAL == 0
            parts["in-domain" if drawn else source.part].append((rank, text))
    for name, texts in parts.items():
        lines = "".join(f"{text}\n" for _, text in sorted(texts))
        (output / f"{name}.txt").write_text(lines, encoding="utf-8")
    document = [
        {
            "package": row.source.package,
            "version": row.version,
            "sha256": row.sha256,
            "licence": row.source.licence,
            "part": row.source.part,
            "lines": row.lines,
            "bytes": row.size_bytes,
        }
        for row in rows
    ]
    (output / "sources.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return rows


def fetched(package: str, folder: Path) -> Path:
    """Return a package's file, downloaded by its name where the folder has none yet.

    Raises:
        SystemExit: apt is not here, or does not know the package.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f"{package}_*.deb")):
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise SystemExit("The corpora come from Debian packages: this needs apt-get and dpkg-deb.")
        done = subprocess.run(
            ["apt-get", "download", "-q", package], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip() or "no reason given").splitlines()[-1]
            raise SystemExit(
                f"Cannot download {package}: {last}\nRun apt-get update first, with main enabled."
            )
    return sorted(folder.glob(f"{package}_*.deb"))[-1]


def source_texts(source: Source, package: Path) -> Iterator[str]:
    """Yield the texts of a package."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        paths = sorted(Path(folder).glob(source.files))
        if not paths:
            raise SystemExit(f"{package.name} has no {source.files}: its layout has changed.")
        yield from formats.paragraph_texts(
            paragraph for path in paths for paragraph in source.read(_content(path))
        )


def distinct(texts: Iterable[str], seen: set[bytes]) -> list[str]:
    """Return the texts that are not among those seen, which are added; case does not tell texts apart."""
    fresh = []
    for text in texts:
        digest = _digest(text.casefold())
        if digest not in seen:
            seen.add(digest)
            fresh.append(text)
    return fresh


def limited(ranked: Sequence[tuple[bytes, str]], most_bytes: int) -> list[tuple[bytes, str]]:
    """Return as many texts from the front as fit."""
    ends = itertools.accumulate(len(text.encode()) + 1 for _, text in ranked)
    return [entry for entry, end in zip(ranked, ends, strict=True) if end <= most_bytes]


def _content(path: Path) -> str:
    raw = path.read_bytes()
    if path.suffix in (".dz", ".gz"):  # dictzip is gzip with an index
        raw = gzip.decompress(raw)
    return raw.decode("utf-8", errors="replace")


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _row(source: Source, package: Path, texts: Sequence[str]) -> Row:
    version = package.stem.split("_")[1].replace("%3a", ":")
    size = sum(len(text.encode()) + 1 for text in texts)
    return Row(source, version, hashlib.sha256(package.read_bytes()).hexdigest(), len(texts), size)


def table(rows: Sequence[Row]) -> str:
    """Return the table that a run ends with."""
    lines = [f"{'package':<24}{'version':<24}{'licence':<24}{'part':<10}{'texts':>9}{'MB':>7}  what"]
    for row in rows:
        source = row.source
        lines.append(
            f"{source.package:<24}{row.version:<24}{source.licence:<24}{source.part:<10}"
            f"{row.lines:>9,}{row.size_bytes / 1e6:>7.1f}  {source.about}"
        )
    total = sum(row.size_bytes for row in rows) / 1e6
    lines.append(f"{'together':<82}{sum(row.lines for row in rows):>9,}{total:>7.1f}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Build the corpora and print what they were made from."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print(table(build(options.output, seed=options.seed)))


if __name__ == "__main__":
    main()
