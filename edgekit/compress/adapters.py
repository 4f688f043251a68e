"""Merge LoRA adapters into the weights that they adapt: W + s·B·A, the same function without the detour.

The folders are those that PEFT writes. Nothing of PEFT is needed: what is in them is two small matrices for
each weight, and the scale s is alpha / rank, or alpha / √rank (rsLoRA). DoRA gives each output's weights a
length of its own.

Source: Hu et al. 2021, LoRA, arXiv:2106.09685; Kalajdzievski 2023, rsLoRA, arXiv:2312.03732; Liu et al. 2024,
DoRA, arXiv:2402.09353; the file format is that of PEFT 0.21.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from edgekit.compress.anatomy import is_matrix, matrix_of, set_matrix
from edgekit.compress.base import Data, branch, finished, sizes
from edgekit.compression import AdapterOptions
from edgekit.errors import ModelError, RecipeError, nearest
from edgekit.model import TorchModel
from edgekit.record import Clock
from edgekit.store import sha256_file

_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+)\.lora_(?P<part>A|B|embedding_A|embedding_B|magnitude_vector)(?P<leaf>\..+)?"
)
_INITIAL = (True, False, None, "gaussian", "eva", "orthogonal")
"""`init_lora_weights` that leave the base model's weights as they were; others take something from them."""

_ELSEWHERE = (
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "arrow_config",
    "use_bdlora",
    "kasa_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
)
"""Keys of an adapter's configuration that, where they are set, make it more than a sum of weights."""


@dataclass(frozen=True)
class Adapter:
    """An adapter as it was read.

    Attributes:
        folder: Where it is.
        config: `adapter_config.json`.
        loras: Name of a part -> `A`, `B`, ... -> its tensor, float32.
        weights: Name of a weight that was trained as a whole -> its values, float32.
        sha256: Digest of the weight file.
    """

    folder: Path
    config: Mapping[str, Any]
    loras: Mapping[str, Mapping[str, torch.Tensor]]
    weights: Mapping[str, torch.Tensor]
    sha256: str

    def scale(self, module: str, rank: int) -> float:
        """Return what B·A is multiplied with in one part of the model."""
        alpha = self.config.get("lora_alpha", 8)
        for pattern, own in (self.config.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = own
                break
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def merge_adapters(model: TorchModel, options: AdapterOptions, data: Data) -> TorchModel:
    """Return the model with adapters in its weights, merged one after the other.

    Raises:
        RecipeError: There is no such folder.
        ModelError: An adapter is damaged, not LoRA, a pickle, or was trained on another architecture.
    """
    clock = Clock()
    merged = branch(model)
    facts: list[dict[str, Any]] = []
    for path in options.paths:
        adapter = read_adapter(Path(path).expanduser())
        for name, values in adapter.weights.items():
            _replace(merged, adapter, name, values)
        for name, tensors in adapter.loras.items():
            _merge(merged, adapter, name, tensors)
        facts.append(
            {
                "name": adapter.folder.name,
                "sha256": adapter.sha256,
                "base": adapter.config.get("base_model_name_or_path"),
                "matrices": len(adapter.loras),
                "ranks": sorted({_rank(tensors) for tensors in adapter.loras.values()}),
                "whole_weights": len(adapter.weights),
            }
        )
    record = clock.record(
        "compress",
        "adapters",
        "Merged "
        + "; ".join(f"{f['name']}: {f['matrices']} matrices of rank {_listed(f['ranks'])}" for f in facts)
        + ".",
        **sizes(model, merged),
        adapters=list(facts),
        loss=data.judge.loss(merged),
    )
    return finished(merged, record)


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter that PEFT wrote.

    Raises:
        RecipeError: There is no such folder.
        ModelError: It is damaged, not LoRA or more than LoRA, or a pickle.
    """
    if not folder.is_dir():
        raise RecipeError(
            f"[compress] adapters.paths: there is no folder {folder}",
            "Give the folder that PEFT's save_pretrained wrote, with adapter_config.json in it.",
        )
    path, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not path.is_file():
        raise ModelError(f"{folder} has no adapter_config.json", "Give a folder that PEFT wrote.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config.get("peft_type")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path} is damaged: {error}") from None
    _check_kind(folder, config, kind)
    if not weights.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        raise ModelError(
            f"{folder} has its weights in a pickle (adapter_model.bin), and loading one can run code"
            if pickled
            else f"{folder} has no adapter_model.safetensors",
            "Save the adapter again with PEFT's save_pretrained, which writes safetensors.",
        )
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{weights} is damaged: {error}", "Copy or download the adapter again.") from None
    return _sorted(folder, config, tensors, sha256_file(weights))


def _check_kind(folder: Path, config: Mapping[str, Any], kind: Any) -> None:
    if kind != "LORA":
        raise ModelError(
            f"{folder} is a {kind or 'nameless'} adapter, which cannot be merged here",
            "LoRA adapters can, with or without rsLoRA and DoRA.",
        )
    for key in _ELSEWHERE:
        if config.get(key):
            raise ModelError(
                f"{folder} sets {key}: it is more than LoRA, and cannot be merged here",
                "Merge it with PEFT's merge_and_unload, if it can, and give the merged model.",
            )
    initial = config.get("init_lora_weights", True)
    if initial not in _INITIAL:
        raise ModelError(
            f"{folder} was begun with init_lora_weights = {initial!r}, which changes the base weights",
            "Save it with PEFT's path_initial_model_for_weight_conversion, which makes it an ordinary LoRA.",
        )


def _sorted(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Any], digest: str) -> Adapter:
    loras: dict[str, dict[str, torch.Tensor]] = {}
    weights: dict[str, torch.Tensor] = {}
    for key, values in tensors.items():
        if not torch.isfinite(values).all():
            raise ModelError(f"{folder}: {key} holds NaN or infinity", "Train the adapter again.")
        name = key.removeprefix(_PREFIX)
        found = _PART.fullmatch(name)
        if found:
            part = found["part"].removeprefix("embedding_")
            bias = "_bias" if found["leaf"] == ".bias" else ""
            loras.setdefault(found["module"], {})[part + bias] = values.float()
        elif "lora_" in name:
            raise ModelError(f"{folder}: {key} is nothing that a LoRA adapter is known to have")
        else:
            weights[name.replace(".modules_to_save.", ".").replace(".base_layer.", ".")] = values.float()
    for name, parts in loras.items():
        if not {"A", "B"} <= parts.keys():
            raise ModelError(f"{folder} is damaged: {name} has no lora_{'B' if 'A' in parts else 'A'}")
    return Adapter(folder, config, loras, weights, digest)


def _merge(model: TorchModel, adapter: Adapter, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give one part of a branch its merged weight."""
    part = model.module.get_submodule(_part_name(model, adapter, name))
    a, b = tensors["A"].double(), tensors["B"].double()
    if isinstance(part, nn.Embedding):
        old = part.weight.detach()
        made = (b @ a).T
    elif is_matrix(part):
        old = matrix_of(part)
        made = b.flatten(1) @ a.flatten(1)
    elif isinstance(part, nn.Conv2d):
        old = part.weight.detach()
        made = (b.flatten(1) @ a.flatten(1)).reshape(len(b), *a.shape[1:])
    else:
        raise ModelError(f"{adapter.folder}: {name} is a {type(part).__name__} here, which LoRA cannot adapt")
    if made.shape != old.shape:
        raise _misfit(adapter, name, made.shape, old.shape)
    new = old.double() + adapter.scale(name, _rank(tensors)) * made
    if "magnitude_vector" in tensors:
        if not is_matrix(part):
            raise ModelError(f"{adapter.folder}: {name} is no matrix, and DoRA can only be merged into those")
        new *= tensors["magnitude_vector"].double().reshape(-1, 1) / new.norm(dim=1, keepdim=True)
    bias = tensors.get("B_bias")
    if bias is not None:
        added = adapter.scale(name, _rank(tensors)) * bias.double()
        own = getattr(part, "bias", None)
        if own is None:
            raise ModelError(f"{adapter.folder}: {name} has no bias, and the adapter adds one")
        part.bias = nn.Parameter((own.detach().double() + added).float(), requires_grad=False)
    if is_matrix(part):
        _untie(model, part.get_parameter("weight"))
        set_matrix(part, new.float())
    else:
        _untie(model, part.weight)
        part.weight = nn.Parameter(new.float(), requires_grad=False)


def _replace(model: TorchModel, adapter: Adapter, name: str, values: torch.Tensor) -> None:
    """Give a branch a weight that was trained as a whole: a head's, or a bias."""
    module, _, leaf = name.rpartition(".")
    part = model.module.get_submodule(_part_name(model, adapter, module))
    old = part._parameters.get(leaf)
    if old is None:
        raise ModelError(f"{adapter.folder}: {module} has no {leaf} here; it was trained on another model")
    if old.shape != values.shape:
        raise _misfit(adapter, name, values.shape, old.shape)
    _untie(model, old)
    setattr(part, leaf, nn.Parameter(values, requires_grad=False))


def _part_name(model: TorchModel, adapter: Adapter, name: str) -> str:
    """Return a part's name below the wrapped module; with or without the name of the model inside a head."""
    inner: Any = model.module.get_submodule("model")
    inside = f"{getattr(inner, 'base_model_prefix', '') or 'model'}."
    known = dict(inner.named_modules())
    for candidate in (name, inside + name, name.removeprefix(inside)):
        if candidate in known:
            return f"model.{candidate}"
    close = nearest(name, known).partition(" Known")[0]
    raise ModelError(
        f"{adapter.folder} adapts {name}, which this {type(inner).__name__} does not have",
        f"It was trained on {adapter.config.get('base_model_name_or_path') or 'another model'}. "
        f"{close if close.startswith('Did') else ''}".strip(),
    )


def _misfit(adapter: Adapter, name: str, found: Any, wanted: Any) -> ModelError:
    return ModelError(
        f"{adapter.folder} does not fit: {name} is {'×'.join(map(str, wanted))} here and "
        f"{'×'.join(map(str, found))} in the adapter",
        f"It was trained on {adapter.config.get('base_model_name_or_path') or 'another model'}.",
    )


def _untie(model: TorchModel, weight: nn.Parameter) -> None:
    """Let the configuration say that a head has its own weight, where one of two that shared it changes."""
    holders = sum(weight is p for part in model.module.modules() for p in part._parameters.values())
    inner: Any = model.module.get_submodule("model")
    if holders > 1 and getattr(getattr(inner, "config", None), "tie_word_embeddings", False):
        inner.config.tie_word_embeddings = False


def _rank(tensors: Mapping[str, torch.Tensor]) -> int:
    return len(tensors["A"])


def _listed(ranks: list[int]) -> str:
    return f"{ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else "".join(map(str, ranks))
