"""Weights through transformers: loaded, and checked to be the checkpoint's and finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from edgekit import structure
from edgekit.errors import MachineError, ModelError
from edgekit.source.checkpoint import check_finite, read_json, weight_files


@dataclass(frozen=True)
class Pretrained:
    """A transformers model with what is known about how it was loaded.

    Attributes:
        model: fp32, on the CPU, in eval mode.
        files: The weight files.
        missing: Names of weights that the checkpoint lacks; they hold random numbers.
        unused: Names of weights in the checkpoint that the model has no place for.
        attention: The attention implementation.
    """

    model: Any
    files: tuple[Path, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    attention: str

    @property
    def parameters(self) -> int:
        """How many parameters the model has."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def weights_bytes(self) -> int:
        """Size of the weight files."""
        return sum(file.stat().st_size for file in self.files)


def load_pretrained(folder: Path, loader: Any, *, allow_pickle: bool) -> Pretrained:
    """Load a checked model directory.

    Eager attention is asked for, because its graph computes the mask once and not in each layer.

    Args:
        folder: The directory; its config has been checked by `edgekit.source.config.read_config`.
        loader: A class with `from_pretrained`.
        allow_pickle: Take a pickle checkpoint where there are no safetensors.

    Raises:
        ModelError: The weights are missing, damaged, do not fit the model, or are not finite.
        MachineError: A package that this architecture needs is not installed.
    """
    files = weight_files(folder, allow_pickle=allow_pickle)
    if (folder / structure.FILE).exists():
        return _load_structured(folder, loader, files)
    options = {
        "dtype": torch.float32,
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": files[0].suffix == ".safetensors",
        "output_loading_info": True,
    }
    attention = "eager"
    try:
        try:
            model, info = loader.from_pretrained(folder, attn_implementation="eager", **options)
        except ValueError as error:
            if "attn" not in str(error) and "attention" not in str(error):
                raise
            model, info = loader.from_pretrained(folder, **options)
            attention = str(model.config._attn_implementation)
    except ImportError as error:
        raise MachineError(f"{folder} cannot be loaded: {_line(error)}") from None
    except Exception as error:  # transformers, safetensors and torch each raise their own
        raise ModelError(f"{folder} cannot be loaded: {_line(error)}") from None
    if not isinstance(model, transformers.PreTrainedModel):
        raise ModelError(f"{folder} holds no transformers model")
    mismatched = [str(entry[0] if isinstance(entry, tuple) else entry) for entry in info["mismatched_keys"]]
    if mismatched:
        raise ModelError(f"{folder}: the weight {mismatched[0]} has another shape than config.json says")
    check_finite(model)
    return Pretrained(
        model.eval(),
        files,
        tuple(sorted(info["missing_keys"])),
        tuple(sorted(info["unexpected_keys"])),
        attention,
    )


def _load_structured(folder: Path, loader: Any, files: tuple[Path, ...]) -> Pretrained:
    """Load a model whose sizes are not all in its configuration, as `edgekit.source.saving` wrote it."""
    from safetensors.torch import load_model

    where = folder / structure.FILE
    shape = structure.Structure.from_json(read_json(where), str(where))
    try:
        model = fresh(loader, folder)
        structure.rebuild(model, shape, str(where))
        load_model(model, str(files[0]), strict=True)
    except ModelError:
        raise
    except Exception as error:  # transformers, safetensors and torch each raise their own
        raise ModelError(
            f"{folder} cannot be loaded: {_line(error)}",
            "A compressed model loads for the task that it was compressed for.",
        ) from None
    check_finite(model)
    return Pretrained(model.eval(), files, (), (), str(model.config._attn_implementation))


def fresh(loader: Any, folder: Path) -> Any:
    """Return the model that a directory's configuration builds, with random weights."""
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    build = loader.from_config if hasattr(loader, "from_config") else loader._from_config
    try:
        return build(config, attn_implementation="eager", dtype=torch.float32)
    except ValueError as error:
        if "attn" not in str(error) and "attention" not in str(error):
            raise
        return build(config, dtype=torch.float32)


def refuse_random_weights(pretrained: Pretrained, wrapped: Any, inputs: Mapping[str, torch.Tensor]) -> None:
    """Check that no output depends on a weight that the checkpoint lacks.

    A weight counts as used when the outputs have a gradient with respect to it; a missing buffer always
    counts.

    Args:
        pretrained: The loaded model.
        wrapped: The module around it that gives only the outputs that the task uses.
        inputs: One batch of example inputs.

    Raises:
        ModelError: An output depends on random numbers.
    """
    if not pretrained.missing:
        return
    parameters = dict(pretrained.model.named_parameters(remove_duplicate=False))
    suspects = {name: parameters[name] for name in pretrained.missing if name in parameters}
    used = [name for name in pretrained.missing if name not in parameters]
    if suspects:
        with torch.enable_grad():
            total = sum(value.sum() for value in wrapped(**inputs).values() if value.is_floating_point())
            gradients = torch.autograd.grad(total, list(suspects.values()), allow_unused=True)
        used += [name for name, gradient in zip(suspects, gradients, strict=True) if gradient is not None]
    if used:
        more = f" and {len(used) - 1} more" if len(used) > 1 else ""
        raise ModelError(
            f"the checkpoint has no weights for {used[0]}{more}; the model would compute with random numbers",
            "Choose the task that the checkpoint was trained for, or give the complete checkpoint.",
        )


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return (text[:300] + "…") if len(text) > 300 else text or type(error).__name__
