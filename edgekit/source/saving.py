"""TorchModel -> a directory that `edgekit.source.load` reads again.

What the configuration can say is said there, so that transformers alone loads it too; other sizes are in
`structure.json` beside it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from edgekit import structure
from edgekit.model import TorchModel
from edgekit.source.config import shippable
from edgekit.source.pretrained import fresh
from edgekit.source.quiet import quiet
from edgekit.store import dump_json, write_text
from edgekit.trained_scales import FILE as TRAINED_SCALES

_SENTENCE_FILES = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")


def settled(model: TorchModel, scratch: Path) -> TorchModel:
    """Return a changed model whose configuration, as an app gets it, is what its module has become.

    Args:
        model: After the techniques; `files` holds the new tokenizer where there is one.
        scratch: Folder for the new `config.json`.
    """
    if not model.from_transformers:
        return model
    config = shippable(_config(model))
    path = scratch / "settled" / "config.json"
    write_text(path, dump_json(config))
    files = tuple(path if file.name == "config.json" else file for file in model.files)
    return replace(model, files=files, config=config)


def save(model: TorchModel, folder: Path, original: TorchModel) -> None:
    """Write a model's directory; `folder` exists and is empty.

    Args:
        model: What to write; `settled`.
        folder: Where to.
        original: As it was loaded; a factory's module is described by what differs from it.

    Raises:
        ModelError: The module is not one that its configuration and a list of sizes describe.
    """
    if model.trained is not None:
        model.trained.save(folder / TRAINED_SCALES)
    if not model.from_transformers:
        # The code stays the user's: `--weights` puts these into what the factory makes.
        module = model.module.get_submodule("model")
        structure.difference(original.module.get_submodule("model"), module).save(folder / structure.FILE)
        _save_weights(module, folder / "model.safetensors")
        return
    inner: Any = model.module.get_submodule("model")
    root, config = folder, dump_json(_config(model))
    if model.task == "sentence-embedding" and model.folder is not None:
        root = folder / _copy_sentence_files(model.folder, folder)
        root.mkdir(exist_ok=True)
    write_text(root / "config.json", config)  # which `fresh` reads
    for file in model.files:
        if file.name != "config.json":
            shutil.copyfile(file, root / file.name)
    with quiet():
        shape = structure.difference(fresh(type(inner), root), inner)
        if shape.empty:
            # Under the names of the checkpoints of this architecture, which differ from the module's own.
            inner.save_pretrained(root)
        else:
            shape.save(root / structure.FILE)
            _save_weights(inner, root / "model.safetensors")
    write_text(root / "config.json", config)  # `save_pretrained` wrote its own


def _save_weights(module: nn.Module, path: Path) -> None:
    from safetensors.torch import save_model

    save_model(module, str(path), metadata={"format": "pt"})


def _config(model: TorchModel) -> dict[str, Any]:
    """Return the configuration of the module as JSON values, with its class."""
    inner: Any = model.module.get_submodule("model")
    config = json.loads(inner.config.to_json_string())
    config["architectures"] = [type(inner).__name__]
    config.pop("_name_or_path", None)
    return {**config, "dtype": "float32"}


def _copy_sentence_files(source: Path, folder: Path) -> str:
    """Copy what makes a sentence-transformers directory; return where its transformer goes."""
    modules = json.loads((source / "modules.json").read_text(encoding="utf-8"))
    for name in _SENTENCE_FILES:
        for path in {"", modules[0]["path"]}:
            if (source / path / name).is_file():
                (folder / path).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / path / name, folder / path / name)
    for entry in modules[1:]:
        if (source / entry["path"]).is_dir():
            shutil.copytree(source / entry["path"], folder / entry["path"])
    return str(modules[0]["path"])
