"""Corpora of general English, from text that ships with Debian packages; nothing of it is kept in git.

Run from the checkout: python -m tools.corpus build/corpus

It makes four files, one text on each line: general.txt for vocabularies and calibration; held-out.txt, from
other packages of another kind; lessons.txt for students, which is general.txt and further kinds of English,
without what a held-out text says nearly word for word; in-domain.txt, drawn from the packages of the lessons
and held out. sources.json says what they were made from.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import itertools
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools import corpus_formats as formats

HELD_OUT_OF = 50
"""One text of so many goes to in-domain.txt."""

SAME_WORDS = 8
"""Two texts that share so many words in a row are copies of each other, or of the same third."""

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
        part: `general`, `held-out` or `lessons`.
    """

    package: str
    files: str
    read: Callable[[str], Iterator[str]]
    licence: str
    about: str
    part: Literal["general", "held-out", "lessons"] = "general"


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
    Source(
        "r-cran-janeaustenr",
        "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb",
        formats.novels,
        "public domain (MIT)",
        "six novels",
        "lessons",
    ),
    Source(
        "endless-sky-data",
        "usr/share/games/endless-sky/data/**/*.txt",
        formats.spoken,
        "GPL-3+",
        "conversations in space",
        "lessons",
    ),
    *(
        Source(
            f"wesnoth-1.16-{campaign}",
            "usr/share/games/wesnoth/1.16/data/campaigns/**/*.cfg",
            formats.translated,
            "GPL-2+",
            "conversations of elves and orcs",
            "lessons",
        )
        for campaign in ("utbs", "httt", "nr")
    ),
    Source(
        "crawl-common",
        "usr/share/crawl/dat/d*/[!q]*.txt",  # without the quotations of authors
        formats.told,
        "GPL-2+",
        "monsters, things and what they say",
        "lessons",
    ),
    Source(
        "perl-doc",
        "usr/share/perl/*/pod/*.pod",
        formats.pod,
        "GPL-1+ or Artistic",
        "manuals of a programming language",
        "lessons",
    ),
    Source(
        "python3.11-doc",
        "usr/share/doc/python3.11/html/[!_]*/*.html",
        formats.html_paragraphs,
        "PSF-2",
        "manuals of a programming language",
        "lessons",
    ),
    Source(
        "linux-doc-6.1",
        "usr/share/doc/linux-doc-6.1/html/[!_]*/*.html",
        formats.html_paragraphs,
        "GPL-2",
        "how an operating system works",
        "lessons",
    ),
    Source(
        "gimp-help-en",
        "usr/share/gimp/2.0/help/en/*.html",
        formats.html_paragraphs,
        "GFDL-1.2+",
        "help for painters",
        "lessons",
    ),
    Source(
        "mutt",
        "usr/share/doc/mutt/html/*.html",
        formats.html_paragraphs,
        "GPL-2+",
        "manual of a mail reader",
        "lessons",
    ),
    Source(
        "developers-reference",
        "usr/share/developers-reference/*.html",
        formats.html_paragraphs,
        "GPL-2+",
        "habits of a community of developers",
        "lessons",
    ),
    Source(
        "debian-faq",
        "usr/share/doc/debian/FAQ/*.en.html",
        formats.html_paragraphs,
        "GPL-2+",
        "questions and answers",
        "lessons",
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
        sources: General ones first, then held-out ones, so that no text is in two parts.
        seed: Of the draw and of the order.
    """
    parts: dict[str, list[tuple[bytes, str]]] = {
        "general": [], "in-domain": [], "held-out": [], "lessons": []
    }  # fmt: skip
    seen: set[bytes] = set()
    rows = []
    for source in sources:
        package = fetched(source.package, output / "packages")
        fresh = distinct(source_texts(source, package), seen)
        ranked = limited(sorted((_digest(f"{seed}:{text}"), text) for text in fresh), MOST_BYTES)
        rows.append(_row(source, package, [text for _, text in ranked]))
        for rank, text in ranked:
            drawn = source.part != "held-out" and int.from_bytes(rank[-4:], "big") % HELD_OUT_OF == 0
            parts["in-domain" if drawn else source.part].append((rank, text))
    parts["lessons"] = unlike(parts["general"] + parts["lessons"], parts["held-out"])
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


def unlike(
    texts: Iterable[tuple[bytes, str]], held_out: Iterable[tuple[bytes, str]]
) -> list[tuple[bytes, str]]:
    """Return the texts that share no eight words in a row with a held-out one."""
    known = {words for _, text in held_out for words in _runs(text)}
    return [(rank, text) for rank, text in texts if known.isdisjoint(_runs(text))]


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9]+", text.casefold())
    return (tuple(words[start : start + SAME_WORDS]) for start in range(len(words) - SAME_WORDS + 1))


def _content(path: Path) -> str:
    raw = path.read_bytes()
    if path.suffix == ".rdb":
        return formats.r_strings(raw)
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
