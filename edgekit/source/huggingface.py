"""Hugging Face model directories: `config.json`, safetensors, a tokenizer or an image preprocessor."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit import structure
from edgekit.errors import ModelError
from edgekit.model import ModelRef, TorchModel
from edgekit.record import Clock, Skip, StepRecord
from edgekit.source import files as app_files
from edgekit.source.checkpoint import digest, read_json
from edgekit.source.config import read_config, shippable
from edgekit.source.infer import TRANSFORMERS_TASKS, check_task, infer_task, loader_class
from edgekit.source.pretrained import Pretrained, load_pretrained, refuse_random_weights
from edgekit.source.quiet import quiet
from edgekit.source.wrap import Selected, named, run
from edgekit.tasks.base import Preprocessor
from edgekit.tasks.image import ImagePreprocessor
from edgekit.tasks.text import Padding, TextPreprocessor

# Two texts of different length, so that the traced batch has padding; what they say does not matter.
_EXAMPLE_TEXTS = ("The quick brown fox jumps over the lazy dog.", "A shorter sentence.")
_TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Inputs:
    """How a model is fed.

    Attributes:
        preprocessor: Turns the user's samples into inputs.
        examples: One batch of two, in graph order.
        axes: Input name -> dynamic axis -> axis name.
        files: What an app needs beside the graph.
        skipped: What was left out or assumed.
        facts: For the step record.
    """

    preprocessor: Preprocessor
    examples: dict[str, np.ndarray]
    axes: dict[str, dict[int, str]]
    files: tuple[Path, ...]
    skipped: tuple[Skip, ...]
    facts: dict[str, Any]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the example batch as tensors."""
        return {name: torch.from_numpy(array) for name, array in self.examples.items()}


def load_huggingface(
    folder: Path, ref: ModelRef, task: str | None, scratch: Path, *, revision: str | None
) -> TorchModel:
    """Load a Hugging Face directory for a task; see `edgekit.source.load`."""
    clock = Clock()
    with quiet():
        config = read_config(folder)
        if task is None:
            task = infer_task(config)
        check_task(task)
        pretrained = load_pretrained(folder, loader_class(config, task), allow_pickle=ref.allow_pickle)
        if pretrained.model.main_input_name == "pixel_values":
            inputs = image_inputs(folder, pretrained.model, config, scratch)
        else:
            inputs = text_inputs(folder, pretrained.model, ref, config, task, scratch)
        constants = {"return_dict": True}
        if "use_cache" in inspect.signature(pretrained.model.forward).parameters:
            constants["use_cache"] = False
        returned = named(run(pretrained.model, inputs.tensors(), constants))
        outputs, skipped = _outputs(returned, task)
        wrapped = Selected(pretrained.model, {name: name for name in outputs}, constants).eval()
        refuse_random_weights(pretrained, wrapped, inputs.tensors())
    return TorchModel(
        module=wrapped,
        task=task,
        input_names=tuple(inputs.examples),
        output_names=outputs,
        example_inputs=inputs.examples,
        dynamic_axes=inputs.axes,
        preprocessor=inputs.preprocessor,
        from_transformers=True,
        name=display_name(ref, folder),
        files=inputs.files,
        folder=folder,
        config=shippable(config),
        source_sha256=digest_of(folder, pretrained, inputs),
        history=(loaded_record(clock, "huggingface", ref, pretrained, inputs, skipped, task, revision),),
    )


def text_inputs(
    folder: Path,
    model: Any,
    ref: ModelRef,
    config: dict[str, Any],
    task: str,
    scratch: Path,
    *,
    trained_length: int | None = None,
    lowercase: bool = False,
) -> Inputs:
    """Return how a text model is fed.

    Raises:
        ModelError: The tokenizer is missing or damaged, or the model takes no tokens.
        RecipeError: The wanted length does not fit the model.
    """
    takes = inspect.signature(model.forward).parameters
    if model.main_input_name not in _TOKEN_INPUTS:
        raise ModelError(f"{folder} takes '{model.main_input_name}'; only texts and images are supported")
    tokenizer = app_files.load_tokenizer(folder)
    gives = [*tokenizer.model_input_names, "attention_mask"]
    names = tuple(name for name in _TOKEN_INPUTS if name in gives and name in takes)
    length, skipped = app_files.longest_text(model, tokenizer, ref.max_length, trained_length)
    files = app_files.text_files(folder, tokenizer, scratch, lowercase=lowercase)
    pad_id = config.get("pad_token_id") if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    preprocessor = TextPreprocessor.from_file(
        files[0],
        max_length=length,
        input_names=names,
        pad_token_id=pad_id,
        padding_side=tokenizer.padding_side,
        label2id=label2id(config),
        per_token_labels=task == "token-classification",
    )
    examples = _token_examples(tokenizer, names, preprocessor.padding, length)
    if not examples["input_ids"].size:
        raise ModelError(
            f"{folder}: the tokenizer finds no token in {_EXAMPLE_TEXTS[0]!r}",
            "Check that tokenizer.json is the one that the model was trained with.",
        )
    vocabulary = model.get_input_embeddings().num_embeddings
    if (largest := int(examples["input_ids"].max())) >= vocabulary:
        raise ModelError(
            f"{folder}: the tokenizer gives token {largest}, but the model knows {vocabulary} tokens"
        )
    axes = {name: {0: "batch", 1: "sequence"} for name in names}
    return Inputs(preprocessor, examples, axes, files, skipped, {"max_length": length})


def _token_examples(
    tokenizer: Any, names: tuple[str, ...], padding: Padding, length: int
) -> dict[str, np.ndarray]:
    """Return a batch of two texts with padding, int64 [2, sequence]."""
    rows = [tokenizer(text, truncation=True, max_length=length)["input_ids"] for text in _EXAMPLE_TEXTS]
    width = max(map(len, rows))
    columns = {name: np.zeros((len(rows), width), np.int64) for name in _TOKEN_INPUTS}
    columns["input_ids"] += padding.id
    for index, row in enumerate(rows):
        filled = slice(len(row)) if padding.side == "right" else slice(width - len(row), None)
        columns["input_ids"][index, filled] = row
        columns["attention_mask"][index, filled] = 1
    return {name: columns[name] for name in names}


def label2id(config: dict[str, Any]) -> dict[str, int]:
    """Return class name -> index; empty where the config has none or only what transformers makes up.

    Raises:
        ModelError: The config's label2id is no mapping of names to indices.
    """
    labels = config.get("label2id") or {}
    if not isinstance(labels, dict) or not all(isinstance(index, int) for index in labels.values()):
        raise ModelError("config.json: label2id does not map names to indices")
    return {str(name): index for name, index in labels.items()}


def image_inputs(folder: Path, model: Any, config: dict[str, Any], scratch: Path) -> Inputs:
    """Return how an image model is fed: pixel_values [batch, channels, height, width].

    Raises:
        ModelError: The image preprocessor is missing, or its images have no fixed size.
    """
    files = app_files.image_files(folder, scratch)
    channels = getattr(model.config, "num_channels", 3)
    preprocessor = ImagePreprocessor.from_config(
        read_json(files[0]), channels=channels, label2id=label2id(config)
    )
    if preprocessor.size is None:
        raise ModelError(
            f"{files[0]} leaves the size of the images open; the graph needs a fixed one",
            "Give it a height and width, or a center crop.",
        )
    shape = (2, channels, *preprocessor.size)
    pixels = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    axes = {"pixel_values": {0: "batch"}}
    return Inputs(
        preprocessor, {"pixel_values": pixels}, axes, files, (), {"image_size": list(preprocessor.size)}
    )


def _outputs(returned: dict[str | int, Any], task: str) -> tuple[tuple[str, ...], tuple[Skip, ...]]:
    """Return the names of the outputs that a task uses, and what is left out."""
    wanted = TRANSFORMERS_TASKS[task][1]
    tensors = [str(name) for name, value in returned.items() if isinstance(value, torch.Tensor)]
    others = tuple(Skip(str(name), "it is no tensor") for name in returned if str(name) not in tensors)
    if wanted is None:
        return tuple(tensors), others
    if wanted not in tensors:
        raise ModelError(
            f"the model gives no '{wanted}', which the task {task} needs; it gives {', '.join(tensors)}"
        )
    unused = tuple(Skip(name, f"the task {task} does not use it") for name in tensors if name != wanted)
    return (wanted,), unused + others


def loaded_record(
    clock: Clock,
    step: str,
    ref: ModelRef,
    pretrained: Pretrained,
    inputs: Inputs,
    skipped: tuple[Skip, ...],
    task: str,
    revision: str | None,
    **facts: Any,
) -> StepRecord:
    """Return the record of a loaded transformers model."""
    absent = tuple(Skip(name, "the checkpoint lacks it and no output uses it") for name in pretrained.missing)
    unused = tuple(Skip(name, "the task's model has no place for this weight") for name in pretrained.unused)
    name = type(pretrained.model).__name__
    return clock.record(
        "load",
        step,
        f"Loaded a {name} with {pretrained.parameters:,} parameters.",
        skipped=skipped + inputs.skipped + absent + unused,
        bytes_after=pretrained.weights_bytes,
        source=display_name(ref, Path(ref.spec)),
        model_class=name,
        parameters=pretrained.parameters,
        weights_bytes=pretrained.weights_bytes,
        attention=pretrained.attention,
        revision=revision,
        task=task,
        **inputs.facts,
        **facts,
    )


def display_name(ref: ModelRef, folder: Path) -> str:
    """Return a short name: the last part of the Hub id or directory."""
    return (
        (ref.spec.rstrip("/").rsplit("/", 1)[-1] or folder.resolve().name)
        if ref.spec != "."
        else folder.resolve().name
    )


def digest_of(folder: Path, pretrained: Pretrained, inputs: Inputs, *more: Path) -> str:
    """Return the digest of what was loaded: weights, configuration, tokenizer."""
    own = [file for file in inputs.files if file.parent == folder]
    shaped = [path for path in {file.parent / structure.FILE for file in pretrained.files} if path.exists()]
    return digest(folder, sorted({*pretrained.files, folder / "config.json", *shaped, *own, *more}))
