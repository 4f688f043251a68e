"""From what the user wrote to a loaded PyTorch module: `ModelRef` -> `TorchModel`."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

from edgekit.errors import MissingDependencyError, ModelError, RecipeError
from edgekit.model import ModelRef, TorchModel
from edgekit.store import sha256_file, sha256_json
from edgekit.trained_scales import FILE as TRAINED_SCALES
from edgekit.trained_scales import TrainedScales


def load(ref: ModelRef, task: str | None, *, scratch: Path) -> TorchModel:
    """Load a model.

    Args:
        ref: A directory (sentence-transformers or Hugging Face), `package.module:factory`, or a Hub id.
        task: Name of the task; None infers it.
        scratch: Folder for files that have to be made (a converted tokenizer); it has to outlive the
            returned model.

    Raises:
        ModelError: There is no such model, or it is damaged, unsafe to load, or not finite.
        RecipeError: The task is unknown, or is not one that this model can do.
        MachineError: The Hub was asked and cannot be reached.
        MissingDependencyError: A package that this kind of model needs is not installed.
    """
    for package in ("torch", "transformers", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, "load PyTorch models")
    folder = Path(ref.spec).expanduser()
    if ref.weights is not None and (":" not in ref.spec or folder.exists()):
        raise RecipeError(
            f"weights of their own ({ref.weights}) go with package.module:factory; MODEL is {ref.spec}",
            "A directory has its weights in it: leave --weights out.",
        )
    if folder.is_dir():
        return _from_folder(folder, ref, task, scratch, revision=None)
    if folder.is_file() and folder.suffix in (".onnx", ".ort"):
        raise ModelError(
            f"{folder} is a graph already: edgekit starts from the PyTorch model",
            "Give the directory or factory that the graph was exported from.",
        )
    if folder.is_file():
        raise ModelError(
            f"{folder} is a file, not a model directory",
            "Give the directory that holds config.json, a Hub id, or package.module:factory.",
        )
    if ":" in ref.spec:
        from edgekit.source.factory import load_factory

        return load_factory(ref, task)
    from edgekit.source.hub import fetch

    snapshot = fetch(ref)
    return _from_folder(snapshot.folder, ref, task, scratch, revision=snapshot.commit)


def forget_weights(model: TorchModel) -> None:
    """Empty the weights of a model that edgekit loaded itself; what a factory made stays as it is.

    Deleting it is not enough: rewrite rules of onnxscript keep the last graph that they saw, with the weights
    in it.
    """
    import torch

    if model.from_transformers:
        for tensor in (*model.module.parameters(), *model.module.buffers()):
            tensor.data = torch.empty(0, dtype=tensor.dtype)


def _from_folder(
    folder: Path, ref: ModelRef, task: str | None, scratch: Path, *, revision: str | None
) -> TorchModel:
    if (folder / "manifest.json").exists() and (folder / "model.onnx").exists():
        raise ModelError(
            f"{folder} is a package that edgekit made already",
            "Give the model that it was made from; its recipe.toml names it.",
        )
    if (folder / "modules.json").exists() and task in (None, "sentence-embedding"):
        if importlib.util.find_spec("sentence_transformers") is None:
            raise MissingDependencyError("sentence-transformers", "load sentence-transformers directories")
        from edgekit.source.sentence import load_sentence_transformer

        return _with_scales(load_sentence_transformer(folder, ref, scratch, revision=revision), folder)
    if (folder / "config.json").exists():
        from edgekit.source.huggingface import load_huggingface

        return _with_scales(load_huggingface(folder, ref, task, scratch, revision=revision), folder)
    if (folder / "structure.json").exists():
        raise ModelError(
            f"{folder} holds the weights of a factory's model, not its code",
            f"Give the factory as MODEL and this folder as --weights {folder}.",
        )
    raise ModelError(
        f"the directory {folder} is no model: it has neither config.json nor modules.json",
        "Give the directory that save_pretrained wrote.",
    )


def _with_scales(model: TorchModel, folder: Path) -> TorchModel:
    """Return the model with the codes that it was trained with, where its directory holds some."""
    path = folder / TRAINED_SCALES
    if not path.is_file():
        return model
    digest = sha256_json([model.source_sha256, sha256_file(path)])
    return replace(model, trained=TrainedScales.load(path), source_sha256=digest)


__all__ = ["forget_weights", "load"]
