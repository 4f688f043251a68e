"""sentence-transformers directories: the pooling and normalization become part of the model."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from torch import nn

from edgekit.errors import ModelError
from edgekit.model import ModelRef, TorchModel
from edgekit.record import Clock, Skip
from edgekit.source.checkpoint import check_finite, read_json, weight_files
from edgekit.source.config import read_config, shippable
from edgekit.source.huggingface import digest_of, display_name, loaded_record, text_inputs
from edgekit.source.pretrained import load_pretrained, refuse_random_weights
from edgekit.source.quiet import quiet
from edgekit.source.wrap import SentenceEmbedder, run

# Modules that work on the token or sentence embeddings alone; True: they have weights of their own.
_HEADS = {"Pooling": False, "Dense": True, "Normalize": False, "LayerNorm": True, "Dropout": False}
_NESTED_CONFIGS = ("sentence_bert_config.json", "config_sentence_transformers.json")


def load_sentence_transformer(
    folder: Path, ref: ModelRef, scratch: Path, *, revision: str | None
) -> TorchModel:
    """Load a sentence-transformers directory as one module that gives `sentence_embedding`.

    Raises:
        ModelError: A module is not one of sentence-transformers' own that can be exported, its folder or
            weights are missing or unsafe, or the transformer in it cannot be loaded.
    """
    import transformers

    clock = Clock()
    with quiet():
        first, *others = _modules(folder)
        inner = folder / first["path"]
        config = read_config(inner)
        limits = _optional(inner / "sentence_bert_config.json")
        own = _optional(folder / "config_sentence_transformers.json")
        pretrained = load_pretrained(inner, transformers.AutoModel, allow_pickle=ref.allow_pickle)
        heads = [_head(folder, entry, allow_pickle=ref.allow_pickle) for entry in others]
        inputs = text_inputs(
            inner,
            pretrained.model,
            ref,
            config,
            "sentence-embedding",
            scratch,
            trained_length=limits.get("max_seq_length"),
            lowercase=bool(limits.get("do_lower_case")),
        )
        wrapped = SentenceEmbedder(pretrained.model, heads, own.get("truncate_dim")).eval()
        check_finite(wrapped.heads)
        run(wrapped, inputs.tensors())
        refuse_random_weights(pretrained, wrapped, inputs.tensors())
    own_files = [path for entry in others for path in (folder / entry["path"]).glob("*") if path.is_file()]
    return TorchModel(
        module=wrapped,
        task="sentence-embedding",
        input_names=tuple(inputs.examples),
        output_names=("sentence_embedding",),
        example_inputs=inputs.examples,
        dynamic_axes=inputs.axes,
        preprocessor=inputs.preprocessor,
        from_transformers=True,
        name=display_name(ref, folder),
        files=inputs.files,
        folder=folder,
        config=shippable(config),
        source_sha256=digest_of(
            folder, pretrained, inputs, folder / "modules.json", inner / "config.json", *own_files
        ),
        history=(
            loaded_record(
                clock,
                "sentence-transformers",
                ref,
                pretrained,
                inputs,
                (Skip("token_embeddings", "the task sentence-embedding does not use it"), *_prompts(own)),
                "sentence-embedding",
                revision,
                modules=[entry["type"].rsplit(".", 1)[-1] for entry in (first, *others)],
            ),
        ),
    )


def _modules(folder: Path) -> list[dict[str, str]]:
    """Return the entries of modules.json, the transformer first, each checked."""
    path = folder / "modules.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        modules = [{"type": str(entry["type"]), "path": str(entry["path"])} for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"cannot read {path}: {error}") from None
    for index, entry in enumerate(modules):
        package, _, name = entry["type"].partition(".")
        name = name.rsplit(".", 1)[-1]
        # Loading a class of another package would run code that the model chose.
        if package != "sentence_transformers":
            raise ModelError(
                f"{path} needs remote code ({entry['type']}), which edgekit never runs",
                "Import the model's code yourself and give it as package.module:factory.",
            )
        if (name != "Transformer") if index == 0 else (name not in _HEADS):
            raise ModelError(
                f"{path}: module {index} is a {name}, which cannot be exported",
                f"Supported are Transformer, then any of {', '.join(_HEADS)}.",
            )
        where = PurePosixPath(entry["path"])
        if where.is_absolute() or ".." in where.parts:
            raise ModelError(f"{path}: module {index} lies outside the model's folder ({where})")
    if not modules:
        raise ModelError(f"{path} lists no modules")
    return modules


def _head(folder: Path, entry: dict[str, str], *, allow_pickle: bool) -> nn.Module:
    from sentence_transformers.util import import_from_string

    where = folder / entry["path"]
    name = entry["type"].rsplit(".", 1)[-1]
    if name == "Dropout":
        return nn.Identity()  # it does nothing outside training
    activation = _optional(where / "config.json").get("activation_function", "torch.nn.")
    if not str(activation).startswith("torch.nn."):
        raise ModelError(f"{where} needs remote code (activation {activation}); it cannot be exported")
    if _HEADS[name]:
        weight_files(where, allow_pickle=allow_pickle)
    try:
        return import_from_string(entry["type"]).load(
            str(folder), subfolder=entry["path"], local_files_only=True
        )
    except Exception as error:  # the library raises whatever its parts do
        line = " ".join(str(error).split())[:300]
        raise ModelError(f"{where} cannot be loaded as {name}: {line or type(error).__name__}") from None


def _prompts(own: dict[str, Any]) -> tuple[Skip, ...]:
    """Return a note for each text that sentence-transformers would put before the user's."""
    default = own.get("default_prompt_name")
    return tuple(
        Skip(
            f"prompt '{name}'", f"texts are tokenized as they are; put {text!r} before them where you want it"
        )
        for name, text in (own.get("prompts") or {}).items()
        if text and (default is None or name == default)
    )


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
