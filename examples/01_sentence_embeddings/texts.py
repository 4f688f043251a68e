"""Calibration texts: the paragraphs of the language reference that every Python carries."""

import pydoc_data.topics
from pathlib import Path

found = {
    " ".join(paragraph.split())
    for topic in pydoc_data.topics.topics.values()
    for paragraph in topic.split("\n\n")
    if len(paragraph) > 40 and ">>>" not in paragraph
}
Path("build").mkdir(exist_ok=True)
Path("build/texts.txt").write_text("\n".join(sorted(found)) + "\n", encoding="utf-8")
