"""Paragraphs of the standard library's docstrings, labelled with the family of the module they are from."""

import ast
import json
import random
import sysconfig
from pathlib import Path

BUILD = Path("build")
FAMILIES = {
    "concurrency": "asyncio concurrent contextlib multiprocessing queue sched signal subprocess threading",
    "files": "bz2 configparser csv fileinput genericpath glob gzip io lzma os pathlib shutil tarfile tempfile"
    " zipfile _pyio",
    "language": "abc ast bdb code dataclasses dis doctest enum functools importlib inspect pdb pickletools"
    " pydoc tokenize traceback types typing unittest",
    "network": "email ftplib http imaplib ipaddress mailbox poplib smtplib socket socketserver ssl urllib"
    " wsgiref xmlrpc",
    "numbers": "calendar colorsys datetime _pydatetime _pydecimal fractions numbers random statistics",
}
MOST_PER_FAMILY = 600
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def paragraphs(module: str) -> set[str]:
    """Return the distinct paragraphs of prose in a module's or package's docstrings."""
    root = Path(sysconfig.get_path("stdlib")) / module
    found = set()
    for path in [*root.rglob("*.py"), *root.parent.glob(f"{module}.py")]:
        for node in ast.walk(ast.parse(path.read_bytes())):
            docstring = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
            for paragraph in (docstring or "").split("\n\n"):
                text = " ".join(paragraph.split())
                if len(text) >= 40 and ">>>" not in text:
                    found.add(text)
    return found


def split() -> tuple[list[dict], list[dict]]:
    """Return training and test rows {"text", "label"}; no text is in two families or on both sides."""
    by_family = {name: set().union(*map(paragraphs, mods.split())) for name, mods in FAMILIES.items()}
    chance, train, test = random.Random(0), [], []
    for label, texts in by_family.items():
        others = set().union(*(found for name, found in by_family.items() if name != label))
        own = sorted(texts - others)
        chance.shuffle(own)
        rows = [{"text": text, "label": label} for text in own[:MOST_PER_FAMILY]]
        test += rows[: len(rows) // 5]
        train += rows[len(rows) // 5 :]
    return train, test


def write(path: Path, rows: list[dict]) -> None:
    """Write rows as edgekit reads them, one JSON object per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
