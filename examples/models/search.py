"""Search texts by meaning with a model of this folder, as an app does it: onnxruntime, tokenizers and numpy.

python examples/models/search.py "can I try it on a phone that I do not have?"
python examples/models/search.py --model minilm-b --texts notes.txt "when does the train leave?"
"""

import argparse
import os
import re
import sys
import time
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
SHOWN = 3
CODE = re.compile(r"```.*?```|<!--.*?-->|^\|[^\n]*", re.DOTALL | re.MULTILINE)
"""Of a page of documentation: what is no prose."""


class Embedder:
    """A package's model with its tokenizer."""

    def __init__(self, package: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(package / "tokenizer.json"))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()
        self.session = ort.InferenceSession(package / "model.onnx", providers=["CPUExecutionProvider"])

    def __call__(self, texts: list[str], batch: int = 8) -> np.ndarray:
        """Texts → unit vectors, float32 [texts, 384]; those of like length together: little is padded."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        vectors = np.empty((len(texts), 384), np.float32)
        for start in range(0, len(texts), batch):
            chosen = order[start : start + batch]
            encoded = self.tokenizer.encode_batch([texts[index] for index in chosen])
            columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
            inputs = {n: np.array([getattr(e, c) for e in encoded], np.int64) for n, c in columns.items()}
            vectors[chosen] = self.session.run(["sentence_embedding"], inputs)[0]
        return vectors


def paragraphs() -> list[str]:
    """Return the prose of this checkout's documentation."""
    files = [HERE.parents[1] / "README.md", *sorted((HERE.parents[1] / "docs").glob("*.md"))]
    prose = [CODE.sub("", file.read_text(encoding="utf-8")) for file in files]
    blocks = [" ".join(block.split()) for text in prose for block in re.split(r"\n\n|\n- ", text)]
    return list(dict.fromkeys(block for block in blocks if len(block) > 40 and block[0].isalpha()))


def main() -> None:
    """Read the question, search, and print the nearest texts."""
    models = sorted(path.name for path in HERE.iterdir() if (path / "cpu-x86").is_dir())
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("question", help="in your own words")
    parser.add_argument("--model", choices=models, default="minilm-c")
    parser.add_argument("--texts", type=Path, help="one on each line; left out, edgekit's documentation")
    options = parser.parse_args()
    try:
        texts = options.texts.read_text(encoding="utf-8").split("\n") if options.texts else paragraphs()
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"error: cannot read {options.texts}: {error}\nGive a UTF-8 file, one text on each line.")
    texts = [text for text in texts if text.strip()]
    if not texts:
        sys.exit(f"error: {options.texts} has no text\nGive a file with one text on each line.")
    embed = Embedder(HERE / options.model / "cpu-x86")
    started = time.perf_counter()
    vectors = embed(texts)
    seconds = time.perf_counter() - started
    scores = vectors @ embed([options.question])[0]
    for index in scores.argsort()[::-1][:SHOWN]:
        print(f"{scores[index]:.3f}  {texts[index]}\n")
    size = (HERE / options.model / "cpu-x86" / "model.onnx").stat().st_size
    print(f"{options.model}, {size / 1e6:.1f} MB: {len(texts)} texts read in {seconds:.2f} s")


if __name__ == "__main__":
    main()
