"""The files an app needs beside the graph: tokenizer, image preprocessor, configuration."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgekit.errors import ModelError, RecipeError
from edgekit.record import Skip
from edgekit.source.checkpoint import read_json
from edgekit.source.config import shippable
from edgekit.store import dump_json, write_text

_SLOW_TOKENIZERS = ("vocab.txt", "vocab.json", "*.model", "merges.txt")
# Used where neither the tokenizer nor the position table says: what BERT-like models are trained with.
# Source: Devlin et al. 2019, arXiv:1810.04805, appendix A.2.
_DEFAULT_TOKENS = 512
_UNSET_TOKENS = 10**9  # transformers writes int(1e30) for "no limit"


def load_tokenizer(folder: Path) -> Any:
    """Return the transformers tokenizer of a model directory, read with the local files alone.

    Raises:
        ModelError: There is none, or it is damaged or needs remote code.
    """
    import transformers

    if not any(list(folder.glob(pattern)) for pattern in ("tokenizer.json", *_SLOW_TOKENIZERS)):
        raise ModelError(
            f"{folder} has no tokenizer (tokenizer.json or vocab.txt)",
            "Save the tokenizer beside the model: tokenizer.save_pretrained(directory).",
        )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # tokenizers raises Exception itself
        line = " ".join(str(error).split())[:300]
        raise ModelError(f"the tokenizer in {folder} cannot be loaded: {line}") from None
    if not getattr(tokenizer, "backend_tokenizer", None):
        raise ModelError(f"the tokenizer in {folder} has no fast form, which an app could run")
    return tokenizer


def text_files(folder: Path, tokenizer: Any, scratch: Path, *, lowercase: bool = False) -> tuple[Path, ...]:
    """Return tokenizer.json and its companions; one that has to be converted is written to `scratch`.

    Args:
        folder: The model directory.
        tokenizer: What `load_tokenizer` returned for it.
        scratch: Folder for new files.
        lowercase: Put a lower-casing step before the tokenizer's own, as sentence-transformers does.
    """
    from tokenizers import normalizers

    source = folder / "tokenizer.json"
    if lowercase or not source.exists():
        backend = tokenizer.backend_tokenizer
        if lowercase:
            own = [backend.normalizer] if backend.normalizer is not None else []
            backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
        source = scratch / "tokenizer.json"
        write_text(source, backend.to_str(pretty=True))
    companions = (
        folder / name for name in ("tokenizer_config.json", "special_tokens_map.json", "config.json")
    )
    return (source, *cleaned(companions, scratch))


def image_files(folder: Path, scratch: Path) -> tuple[Path, ...]:
    """Return preprocessor_config.json and config.json.

    Raises:
        ModelError: There is no image preprocessor.
    """
    if not (folder / "preprocessor_config.json").exists():
        raise ModelError(
            f"{folder} has no preprocessor_config.json, so the size and scaling of its images are unknown",
            "Save the image processor beside the model: image_processor.save_pretrained(directory).",
        )
    return cleaned((folder / name for name in ("preprocessor_config.json", "config.json")), scratch)


def cleaned(files: Iterable[Path], scratch: Path) -> tuple[Path, ...]:
    """Return those files that exist; one that names paths of a machine as a copy without them."""
    out = []
    for file in files:
        if not file.exists():
            continue
        value = read_json(file)
        if shippable(value) != value:
            write_text(scratch / file.name, dump_json(shippable(value)))
            file = scratch / file.name
        out.append(file)
    return tuple(out)


def longest_text(
    model: Any, tokenizer: Any, wanted: int | None, trained: int | None
) -> tuple[int, tuple[Skip, ...]]:
    """Return how many tokens a text may have, special tokens included.

    Args:
        model: The transformers model; its table of positions is a hard limit.
        tokenizer: Its tokenizer, whose `model_max_length` is a soft one.
        wanted: What the user asked for, or None.
        trained: What the directory says the model was trained with, or None.

    Raises:
        RecipeError: More is wanted than the model has positions.
    """
    positions = _positions(model)
    if wanted is not None:
        if positions is not None and wanted > positions:
            raise RecipeError(
                f"max_length {wanted} is more than the {positions} positions that the model has"
            )
        if wanted <= tokenizer.num_special_tokens_to_add():
            raise RecipeError(f"max_length {wanted} leaves no room for a token between the special tokens")
        return wanted, ()
    soft = trained or (tokenizer.model_max_length if tokenizer.model_max_length < _UNSET_TOKENS else None)
    limits = [limit for limit in (soft, positions) if limit]
    if limits:
        return min(limits), ()
    return _DEFAULT_TOKENS, (
        Skip("longer texts", f"the model names no limit; {_DEFAULT_TOKENS} tokens were assumed"),
    )


def _positions(model: Any) -> int | None:
    """Return how many positions a model has: those of its table, less what RoBERTa keeps for padding."""
    import torch

    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    limit = getattr(model.config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None
