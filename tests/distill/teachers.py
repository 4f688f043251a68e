"""Teachers of a few numbers, fed by edgekit's own preprocessors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekit.data import Sample
from edgekit.model import TensorSpec, TorchModel
from edgekit.tasks.arrays import ArrayPreprocessor
from edgekit.tasks.text import Padding, TextPreprocessor

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "then", "sleeps"]


class Pooled(nn.Module):
    """[batch, 4] → [batch, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        self.linear = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"embedding": self.linear(x) * self.scale}


class PerToken(nn.Module):
    """[batch, sequence] → [batch, sequence, 5], each position by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(len(WORDS) + 2, 5)

    def forward(self, input_ids: torch.Tensor, **mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.table(input_ids) * 3}


class AsItIs(nn.Module):
    """Gives what it is given, but `bad` where that is 99."""

    def __init__(self, bad: float = 99.0) -> None:
        super().__init__()
        self.bad = bad

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": torch.where(x == 99, self.bad, x)}


def array_teacher(module: nn.Module, *shape: int) -> TorchModel:
    """Return a model that takes one float array of some shape."""
    spec = TensorSpec("x", "float32", ("batch", *shape))
    return _model(module, ("x",), ArrayPreprocessor((spec,)))


def text_teacher(
    *, masked: bool = True, side: Any = "right", words: list[str] = WORDS, max_length: int = 32
) -> TorchModel:
    """Return a model of one row of logits per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["[PAD]", "[UNK]", *words])}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = ("input_ids", "attention_mask") if masked else ("input_ids",)
    preprocessor = TextPreprocessor(tokenizer, names, max_length, Padding(0, side=side), unknown_id=1)
    return _model(seeded(PerToken), names, preprocessor)


def pooled_teacher() -> TorchModel:
    """Return a model of one row per sample."""
    return array_teacher(seeded(Pooled), 4)


def seeded(cls: type[nn.Module]) -> nn.Module:
    """Return a module with weights that are the same every time."""
    torch.manual_seed(0)
    return cls().eval().requires_grad_(False)


def arrays(count: int, *shape: int, seed: int = 0) -> list[Sample]:
    """Return samples of random numbers."""
    rows = np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)
    return [Sample({"x": row}) for row in rows]


def texts(count: int, seed: int = 0) -> list[Sample]:
    """Return texts of 1 to 12 words."""
    rng = np.random.default_rng(seed)
    return [Sample(" ".join(rng.choice(WORDS, rng.integers(1, 13)))) for _ in range(count)]


def contents(folder: Path) -> dict[str, bytes]:
    """Return file name -> bytes of a cache's own files."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def _model(module: nn.Module, names: tuple[str, ...], preprocessor: Any) -> TorchModel:
    return TorchModel(
        module=module,
        task="text-classification",
        input_names=names,
        output_names=("logits",),
        example_inputs={},
        dynamic_axes={},
        preprocessor=preprocessor,
        from_transformers=False,
        name="tiny",
        source_sha256="0" * 64,
    )
