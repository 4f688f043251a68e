"""Semantic search with a package, as an app does it: onnxruntime, tokenizers and numpy, no edgekit."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import

from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

PACKAGES = Path("build/packages")
NOTES = [
    "The train to Munich leaves from platform 12 at a quarter past nine.",
    "Water the tomatoes every evening, but not their leaves.",
    "Bake the bread for forty minutes until the crust is dark.",
    "My grandmother's piano was tuned last spring.",
    "The battery of the electric bicycle lasts about sixty kilometres.",
    "The doctor said to take one tablet after breakfast and one before bed.",
    "Our cat sleeps on the radiator whenever it snows.",
    "The interest on the loan falls due on the first of the month.",
]
QUERIES = [
    "when do I have to catch my railway connection",
    "how far can I ride before charging",
    "looking after vegetables in the garden",
    "when should I swallow my medicine",
    "money that I owe the bank",
    "a pet in winter",
]

tokenizer = Tokenizer.from_file(str(PACKAGES / "cpu-x86/tokenizer.json"))
tokenizer.enable_truncation(256)
tokenizer.enable_padding()


def embed(model: Path, texts: list[str]) -> np.ndarray:
    """Texts → unit vectors, float32 [texts, 384]."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    encoded = tokenizer.encode_batch(texts)
    fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    names = [value.name for value in session.get_inputs()]
    inputs = {n: np.array([getattr(e, fields[n]) for e in encoded], np.int64) for n in names}
    return session.run(["sentence_embedding"], inputs)[0]


def scores(model: Path) -> np.ndarray:
    """Return the cosine of every query with every note, [queries, notes]."""
    return embed(model, QUERIES) @ embed(model, NOTES).T


before, after = scores(PACKAGES / "float-opset20.onnx"), scores(PACKAGES / "cpu-x86/model.onnx")
for query, float_row, int8_row in zip(QUERIES, before, after, strict=True):
    best = int8_row.argmax()
    print(f"{query}\n    {int8_row[best]:.3f} (float {float_row[best]:.3f})  {NOTES[best]}")
same_best = (before.argmax(axis=1) == after.argmax(axis=1)).sum()
same_order = sum((f.argsort()[-3:] == q.argsort()[-3:]).all() for f, q in zip(before, after, strict=True))
print(f"\nsame best note for {same_best} of {len(QUERIES)} queries, same best three for {same_order};")
print(f"largest difference of a cosine: {np.abs(before - after).max():.4f}")
