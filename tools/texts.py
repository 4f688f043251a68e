"""Real English text that every Python carries: the language reference and the standard library's docstrings.

Run from the checkout: python -m tools.texts build/texts.txt
"""

from __future__ import annotations

import argparse
import ast
import pydoc_data.topics
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_PARAGRAPH = re.compile(r"\n\s*\n")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_MARKUP = re.compile(r"[`*]+|:(?:\w+:)?(?=`)|^[-•]\s+")
_PROSE = re.compile(r"[A-Z\"'(].*[.!?]\"?")
_NOT_PROSE = (">>>", "::", "...", "|", "==", "->", "\\", "{", "@")

FEWEST_WORDS = 4
MOST_WORDS = 180


def standard_library_texts(limit: int = 1500) -> list[str]:
    """Return distinct readable texts, from short sentences to long paragraphs, in a fixed order.

    The same Python release always gives the same list; another one gives slightly another.

    Args:
        limit: How many to return at most; they are spread evenly over everything that was found.
    """
    pieces = dict.fromkeys(
        piece
        for index, paragraph in enumerate(paragraphs())
        for piece in ([paragraph] if index % 2 else SENTENCE.split(paragraph))
        if is_prose(piece)
    )
    texts = list(pieces)
    if len(texts) <= limit:
        return texts
    return [texts[index * len(texts) // limit] for index in range(limit)]


def paragraphs() -> Iterator[str]:
    """Yield the paragraphs of the language reference, then of the modules' docstrings, without markup."""
    for _, topic in sorted(pydoc_data.topics.topics.items()):
        yield from map(_cleaned, _PARAGRAPH.split(topic))
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for docstring in _docstrings(path):
            yield from map(_cleaned, _PARAGRAPH.split(docstring))


def _docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of a module's source, which is parsed and never run."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, documented):
            yield ast.get_docstring(node) or ""


def _cleaned(paragraph: str) -> str:
    return " ".join(_MARKUP.sub("", paragraph.strip()).split())


def is_prose(text: str) -> bool:
    """Return whether a text reads as sentences, and not as code, a heading or a list."""
    words = text.split()
    if not FEWEST_WORDS <= len(words) <= MOST_WORDS or not _PROSE.fullmatch(text):
        return False
    plain = sum(word.strip(".,;:()\"'!?").isalpha() for word in words)
    return plain >= 0.8 * len(words) and not any(mark in text for mark in _NOT_PROSE)


def main(arguments: list[str] | None = None) -> None:
    """Write the texts to a file, one on each line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--limit", type=int, default=1500)
    options = parser.parse_args(arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("\n".join(standard_library_texts(options.limit)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
