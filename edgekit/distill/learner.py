"""The module that learns: its copies, which weights decay, their running average."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import nn

from edgekit.model import TorchModel


def copied(model: TorchModel, device: torch.device) -> TorchModel:
    """Return a model of the same weights on a device, in eval mode, without gradients."""
    module = copy.deepcopy(model.module).to(device).eval().requires_grad_(False)
    return replace(model, module=module)


def make_trainable(module: nn.Module) -> None:
    """Give every weight a gradient, and let batch norms learn; everything else stays in eval mode."""
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    for part in module.modules():
        if is_batch_norm(part):
            part.train()


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether a part normalises by the statistics of its batch."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def parameter_groups(
    module: nn.Module, parameters: Sequence[nn.Parameter], decay: float
) -> list[dict[str, Any]]:
    """Divide parameters into matrices, which decay, and the rest: vectors, embeddings, learned tokens."""
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    tables |= {
        id(parameter)
        for name, parameter in module.named_parameters()
        if any(word in name.rpartition(".")[2] for word in ("embedding", "token"))
    }
    kept = [p for p in parameters if p.ndim < 2 or id(p) in tables]
    out = {id(p) for p in kept}
    matrices = [p for p in parameters if id(p) not in out]
    return [
        {"params": group, "weight_decay": value} for group, value in ((matrices, decay), (kept, 0.0)) if group
    ]


@torch.no_grad()
def average(into: nn.Module, weights: nn.Module, keep: float) -> None:
    """Move a module's weights and statistics towards another's: keep · own + (1 - keep) · other's."""
    pairs = zip(
        chain(into.parameters(), into.buffers()), chain(weights.parameters(), weights.buffers()), strict=True
    )
    for own, other in pairs:
        if keep and own.is_floating_point():
            own.lerp_(other, 1 - keep)
        else:
            own.copy_(other)


@contextmanager
def fed_from_cpu(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Let a module on another device take and return tensors on the CPU while the block lasts."""
    if device.type == "cpu":
        yield
        return

    def moved(value: Any, where: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(where)
        if isinstance(value, Mapping):
            return {name: moved(item, where) for name, item in value.items()}
        return tuple(moved(item, where) for item in value) if isinstance(value, (tuple, list)) else value

    def there(part: nn.Module, args: Any, kwargs: Any) -> Any:
        return moved(args, device), moved(kwargs, device)

    def back(part: nn.Module, args: Any, output: Any) -> Any:
        return moved(output, "cpu")

    handles = (
        module.register_forward_pre_hook(there, with_kwargs=True),
        module.register_forward_hook(back),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
