"""Who learns: a fresh smaller model of the teacher's family, or one changed as only training can pay for.

A student that `edgekit.compress` made brings the teacher's weights along and is only changed here.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit import structure
from edgekit.compress.anatomy import family_of, layer_list, per_layer
from edgekit.compress.base import parameters_of
from edgekit.data import Sample
from edgekit.distill.norms import one_norm_a_layer
from edgekit.distillation import ChangeOptions, FreshOptions
from edgekit.errors import ModelError, RecipeError
from edgekit.model import TorchModel
from edgekit.record import Clock
from edgekit.source.pretrained import fresh
from edgekit.source.quiet import quiet
from edgekit.store import dump_json, write_text
from edgekit.tasks.text import TextPreprocessor, columns_kept

_ACTIVATIONS = ("hidden_act", "activation", "activation_function", "hidden_activation")
"""Keys by which configurations name the activation of the feed-forward blocks."""

_SIZES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
}
"""Key of `[distill.fresh]` -> name that transformers maps to each family's own; `ffn` is mapped for few."""


def fresh_student(teacher: TorchModel, sizes: FreshOptions, seed: int, scratch: Path) -> TorchModel:
    """Return a model of the teacher's family with other sizes and random weights.

    Args:
        teacher: Its configuration, tokenizer and task are taken.
        sizes: What differs.
        seed: Of the weights.
        scratch: Folder for the new configuration.

    Raises:
        ModelError: The teacher is no transformers model, or its architecture cannot have these sizes.
    """
    clock = Clock()
    _config_of(teacher)
    names = {**_SIZES, "ffn": family_of(teacher).width}
    wanted: dict[str, Any] = {names[key]: value for key, value in sizes.model_dump(exclude_none=True).items()}
    if sizes.layers is not None:
        for key, entries in per_layer(_config_of(teacher), len(layer_list(teacher)[1])).items():
            wanted[key] = [entries[index % len(entries)] for index in range(sizes.layers)]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        inner = _built(teacher, wanted, scratch)
    student = _around(teacher, inner)
    layers = ", ".join(f"{key} {value}" for key, value in sizes.model_dump(exclude_none=True).items())
    record = clock.record(
        "distill",
        "fresh",
        f"a fresh student with {layers or 'the sizes of its teacher'}: {parameters_of(inner):,} parameters",
        parameters_after=parameters_of(student.module),
    )
    return replace(student, history=(*teacher.history, record))


def changed(
    student: TorchModel, changes: ChangeOptions, scratch: Path, samples: Sequence[Sample] = ()
) -> TorchModel:
    """Return a student with another activation, other heads or fewer norms around the same weights.

    Args:
        student: Any transformers model; the given one is left as it is.
        changes: What is changed.
        scratch: Folder for the new configuration.
        samples: What the matrices are fitted on that do the work of norms.

    Raises:
        ModelError: Its architecture does not have what is to be changed.
        RecipeError: The matrices cannot be split into so many heads.
    """
    student = _configured(student, changes, scratch)
    return student if changes.norms is None else one_norm_a_layer(student, samples)


def _configured(student: TorchModel, changes: ChangeOptions, scratch: Path) -> TorchModel:
    """Return a student with the changes that its configuration can say."""
    wanted: dict[str, Any] = {}
    if changes.activation is not None:
        config = _config_of(student)
        key = next((key for key in _ACTIVATIONS if hasattr(config, key)), None)
        if key is None:
            raise ModelError(f"a {config.model_type!r} model names no activation that could be changed")
        wanted[key] = changes.activation
    if changes.heads is not None:
        width = _config_of(student).hidden_size
        if width % changes.heads:
            raise RecipeError(f"[distill.changes] heads = {changes.heads} does not divide the width {width}")
        wanted["num_attention_heads"] = changes.heads
    if not wanted:
        return student
    clock = Clock()
    inner: Any = student.module.get_submodule("model")
    new = _built(student, wanted, scratch, like=inner)
    try:
        new.load_state_dict(inner.state_dict())
    except RuntimeError as error:
        raise ModelError(f"the changed student cannot take the weights: {error}") from None
    did = "changed " + ", ".join(f"{key} to {value}" for key, value in wanted.items())
    out = _around(student, new)
    return replace(out, history=(*student.history, clock.record("distill", "changes", did)))


def refuse_unfit(teacher: TorchModel, student: TorchModel) -> None:
    """Refuse a student that cannot learn from this teacher.

    Raises:
        RecipeError: Another task, other classes, another tokenizer, another width of embeddings, or more
            parameters than the teacher has.
    """
    if student.task != teacher.task:
        raise RecipeError(
            f"the student is for {student.task}, the teacher for {teacher.task}",
            "Give a student of the teacher's task, or --task for both.",
        )
    mine, theirs = (getattr(model.preprocessor, "label2id", None) or {} for model in (student, teacher))
    if mine != theirs:
        odd = sorted(set(mine.items()) ^ set(theirs.items()))[0][0]
        raise RecipeError(
            f"teacher and student do not have the same labels in the same order, e.g. {odd!r}",
            "Give the student the teacher's id2label in its config.json, or take a fresh student.",
        )
    _refuse_tokenizer(teacher, student)
    widths = [_width(model) for model in (student, teacher)]
    if widths[0] != widths[1] and teacher.task != "text-generation":
        raise RecipeError(
            f"the student gives {widths[0]} numbers where the teacher gives {widths[1]}",
            "Give a student with outputs of the same width; between its layers it may be narrower.",
        )
    sizes = [parameters_of(model.module) for model in (student, teacher)]
    if sizes[0] > sizes[1]:
        raise RecipeError(
            f"the student has {sizes[0]:,} parameters, the teacher {sizes[1]:,}",
            "Give a smaller student: that is what distillation is for.",
        )


def _refuse_tokenizer(teacher: TorchModel, student: TorchModel) -> None:
    ours, own = teacher.preprocessor, student.preprocessor
    if not (isinstance(ours, TextPreprocessor) and isinstance(own, TextPreprocessor)):
        return
    if columns_kept(ours, own) is not None:
        return  # a trimmed vocabulary
    both = (ours.tokenizer, own.tokenizer)
    if both[0].get_vocab() != both[1].get_vocab():
        odd = min(both[1].get_vocab().keys() - both[0].get_vocab().keys(), default="")
        raise RecipeError(
            "teacher and student have different tokenizers"
            + (f": {odd!r} is a token of the student only" if odd else ""),
            "Take a student that was made from this teacher, such as edgekit compress makes, or a fresh one.",
        )


def _width(model: TorchModel) -> int:
    inputs = {name: torch.from_numpy(value) for name, value in model.example_inputs.items()}
    with torch.no_grad():
        returned = model.module(**inputs)
    first = next(iter(returned.values())) if isinstance(returned, dict) else returned[0]
    return int(first.shape[-1])


def _config_of(model: TorchModel) -> Any:
    inner: Any = model.module.get_submodule("model")
    if not hasattr(inner, "config"):
        raise ModelError(
            "only transformers models can be built anew with other sizes",
            "Make the smaller model yourself, save it, and give its directory as the student.",
        )
    return inner.config


def _built(model: TorchModel, changes: dict[str, Any], scratch: Path, like: nn.Module | None = None) -> Any:
    """Return a model of the same class with a changed configuration, sized like another one where given."""
    config = copy.deepcopy(_config_of(model))
    inner = model.module.get_submodule("model")
    shape = None
    try:
        with quiet():
            if like is not None:
                shape = structure.difference(fresh(type(inner), _written(config, scratch)), like)
            for key, value in changes.items():
                setattr(config, key, value)
            built = fresh(type(inner), _written(config, scratch))
    except (ValueError, TypeError) as error:
        line = " ".join(str(error).split())
        raise ModelError(f"a {config.model_type!r} model cannot be built like that: {line}") from None
    if shape is not None:
        heads = {key for key in changes if "heads" in key}
        structure.rebuild(built, _without(shape, heads), "the student")
    return built.eval().requires_grad_(False)


def _without(shape: structure.Structure, keys: set[str]) -> structure.Structure:
    sizes = {
        name: {key: size for key, size in values.items() if key not in keys}
        for name, values in shape.sizes.items()
    }
    return replace(shape, sizes=sizes)


def _written(config: Any, scratch: Path) -> Path:
    folder = scratch / "student"
    write_text(folder / "config.json", dump_json(json.loads(config.to_json_string())))
    return folder


def _around(model: TorchModel, inner: nn.Module) -> TorchModel:
    """Return the model with another module inside what selects its outputs."""
    memo = {id(tensor): tensor for tensor in (*model.module.parameters(), *model.module.buffers())}
    memo[id(model.module.get_submodule("model"))] = inner  # in the copy, the new one stands for the old
    return replace(model, module=copy.deepcopy(model.module, memo).eval())
