"""Readable English out of the formats that documentation comes in: one function per format, texts out."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser

from tools.texts import SENTENCE, is_prose

LENGTHS_WORDS = (24, 60, 120)
"""Longest text of every first, second and third paragraph, so that short and long ones are there."""

_BLANK = re.compile(r"\n\s*\n")
_IN_BRACKETS = re.compile(r"\[[^][]*\]")
_LINKED = re.compile(r"[{}]")
_ATTRIBUTED = re.compile(r"\s*--\s?[A-Z(][^.;]{0,40}[.)](?=\s|$)")
_NUMBERED = re.compile(r"^(?:\d+\.|\([a-z]\)|Note:)\s+")
_LABELLED = re.compile(r"^(?:\([A-Z][^)]{0,30}\)|<[^>]*>)\s*")
_DATED = re.compile(r"\(\d{4}-\d\d-\d\d\)")
_EXAMPLE = re.compile(r'"([^"]+)"')

_POD_CODE = re.compile(r"[A-Z](?:<<+ (.*?) >>+|<([^<>|]*)(?:\|[^<>]*)?>)", re.DOTALL)
_TRANSLATED = re.compile(r'_ *"((?:[^"]|"")*)"')
_SPOKEN = re.compile(r"`([^`\n]+)`")
_SPEAKER = re.compile(r"^(?:VISUAL|SOUND|SPELL|ENCHANT|WARN|DANGER|PLAIN)(?:[A-Z_ ]*):")
_R_STRING = re.compile(rb"\x00\x04\x00\x09(\x00...)", re.DOTALL)

_BLOCKS = re.compile(r"p|li|d[dtl]|div|t[dhr]|h[1-6]|blockquote|section|body|title|br|[uo]l")
_NOT_READ = re.compile(r"script|style|pre|screen|head|info|nav|svg|programlisting|code-block")


def paragraph_texts(paragraphs: Iterator[str]) -> Iterator[str]:
    """Yield prose of many lengths: whole sentences in a row, at most 24, 60 or 120 words in turn."""
    for index, paragraph in enumerate(paragraphs):
        longest = LENGTHS_WORDS[index % len(LENGTHS_WORDS)]
        held: list[str] = []
        for sentence in [*SENTENCE.split(paragraph), ""]:
            if held and (not sentence or len(" ".join([*held, sentence]).split()) > longest):
                text = " ".join(held)
                if is_prose(text):
                    yield text
                held = []
            held.append(sentence)


def html_paragraphs(document: str) -> Iterator[str]:
    """Yield the blocks of an HTML or Mallard document, without listings of code."""
    parser = _Blocks()
    parser.feed(document)
    parser.close()
    yield from parser.finished()


def fortunes(text: str) -> Iterator[str]:
    """Yield the sayings of a file of `fortune`, which are between lines of `%`, without who said them."""
    for saying in re.split(r"^%$", text, flags=re.MULTILINE):
        lines = [line for line in saying.splitlines() if not re.match(r"\s+--", line)]
        yield _one_line("\n".join(lines))


def gcide(text: str) -> Iterator[str]:
    """Yield definitions of the Collaborative International Dictionary of English, each after its word."""
    for word, blocks in _entries(text):
        for index, block in enumerate(blocks):
            body = _after_head(block) if index == 0 else block
            defines = index == 0 or bool(re.match(r"\s*\d+\. ", body))
            cleaned = _defined(body)
            if cleaned and not cleaned.startswith("Syn:"):
                yield f"{word}: {cleaned}" if defines else cleaned


def foldoc(text: str) -> Iterator[str]:
    """Yield paragraphs of the Free On-line Dictionary of Computing, the first of each after its word."""
    for word, blocks in _entries(text):
        for index, block in enumerate(blocks[1:]):
            cleaned = _defined(_DATED.sub("", block))
            if cleaned:
                yield f"{word[0].upper()}{word[1:]}: {cleaned}" if index == 0 else cleaned


def jargon(text: str) -> Iterator[str]:
    """Yield the paragraphs of the Jargon File; words stand on lines of their own there, between colons."""
    for block in _BLANK.split(text):
        if not block.strip().startswith(":"):
            yield _defined(block)


def wordnet(text: str) -> Iterator[str]:
    """Yield what WordNet says of each meaning, after its first word, and its examples as texts of their own.

    Source: format of the data files, wndb(5WN).
    """
    for line in text.splitlines():
        data, bar, gloss = line.partition(" | ")
        if not bar or line.startswith("  "):  # the licence, which stands before the data
            continue
        word = re.sub(r"\(\w+\)$", "", data.split()[4]).replace("_", " ")
        meaning = _EXAMPLE.split(gloss)[0].strip(" ;:-")
        yield _as_sentence(f"{word}: {meaning}")
        yield from map(_as_sentence, _EXAMPLE.findall(gloss))


def pod(text: str) -> Iterator[str]:
    """Yield the paragraphs of Perl's "plain old documentation", without commands and listings.

    Source: perlpod(1).
    """
    for block in _BLANK.split(text):
        if block and not block.startswith(("=", " ", "\t")):
            while (plainer := _POD_CODE.sub(r"\1\2", block)) != block:
                block = plainer
            yield _one_line(block)


def translated(text: str) -> Iterator[str]:
    """Yield what the scenes of a game say: strings marked for translation, in which a quote stands twice."""
    for said in _TRANSLATED.findall(text):
        yield _one_line(said.replace('""', '"'))


def spoken(text: str) -> Iterator[str]:
    """Yield the conversations of a game, each part of which stands between back quotes."""
    yield from map(_one_line, _SPOKEN.findall(text))


def told(text: str) -> Iterator[str]:
    """Yield descriptions and sayings of a game's database: entries between %%%%, each after its name."""
    for entry in re.split(r"^%%%%$", text, flags=re.MULTILINE):
        for block in _BLANK.split(entry.strip())[1:]:
            yield _SPEAKER.sub("", _one_line(block))


def novels(text: str) -> Iterator[str]:
    """Yield the paragraphs of books that are kept line by line."""
    yield from map(_one_line, _BLANK.split(text))


def r_strings(raw: bytes) -> str:
    """Return the ASCII strings of a lazily loaded database of R, one on each line.

    Source: R Internals, 1.8 Serialization Formats; each object is zlib's, after its length.
    """
    lines = []
    while raw:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(raw[4:])
        raw = unpacker.unused_data
        found = [(m.end(), int.from_bytes(m[1], "big")) for m in _R_STRING.finditer(data)]
        lines += [data[start : start + size] for start, size in found]
    return b"\n".join(lines).decode("ascii", errors="replace")


def definitions(text: str) -> Iterator[tuple[int, str]]:
    """Yield of each meaning in WordNet its lexicographers' file, by number, and what they say it means.

    Source: format of the data files, wndb(5WN).
    """
    for line in text.splitlines():
        data, bar, gloss = line.partition(" | ")
        if bar and not line.startswith("  "):
            yield int(data.split()[1]), _EXAMPLE.split(gloss)[0].strip(" ;:-")


def _entries(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (word, paragraphs) of a dictionary whose entries begin at the edge and go on indented."""
    for entry in re.split(r"\n(?=[^\s])", text):
        word = re.split(r"\s*[\\\n(,]", entry, maxsplit=1)[0].strip()
        if word and word[0].isalpha():
            yield word, _BLANK.split(entry)


def _after_head(block: str) -> str:
    """Return what follows the line of a word, and the lines over which its origin runs on."""
    lines, depth = block.splitlines(), 0
    for index, line in enumerate(lines):
        depth += line.count("[") - line.count("]")
        if depth <= 0:
            return "\n".join(lines[index + 1 :])
    return ""


def _defined(block: str) -> str:
    text = _one_line(block)
    while (shorter := _IN_BRACKETS.sub("", text)) != text:
        text = shorter
    text = _ATTRIBUTED.sub("", _LINKED.sub("", text)).strip()
    for lead in (_NUMBERED, _LABELLED, _NUMBERED):
        text = lead.sub("", text)
    return _one_line(text).replace(" .", ".").replace(" ,", ",")


def _as_sentence(text: str) -> str:
    text = _one_line(text).rstrip(" ;,")
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _one_line(text: str) -> str:
    return " ".join(text.split())


class _Blocks(HTMLParser):
    """Gathers text until a block begins or ends."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.held: list[str] = []
        self.unread = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.unread += bool(_NOT_READ.fullmatch(tag))
        self._edge(tag)

    def handle_endtag(self, tag: str) -> None:
        self._edge(tag)
        self.unread = max(0, self.unread - bool(_NOT_READ.fullmatch(tag)))

    def handle_data(self, data: str) -> None:
        if not self.unread:
            self.held.append(data)

    def finished(self) -> list[str]:
        self._edge("p")
        return self.found

    def _edge(self, tag: str) -> None:
        if _BLOCKS.fullmatch(tag) or _NOT_READ.fullmatch(tag):
            text = _one_line("".join(self.held))
            if text:
                self.found.append(text)
            self.held = []
