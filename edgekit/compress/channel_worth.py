"""What each channel is worth to the outputs, without labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from edgekit.compress.base import Data, batches, run_all, watching
from edgekit.compress.channel_groups import CONVOLUTIONS, Group, first_output, gated
from edgekit.compression import ChannelOptions
from edgekit.errors import ModelError
from edgekit.model import TorchModel

PROBES = 4
"""Random projections per sample: their mean estimates the same sum over all outputs with less noise."""


def importances(
    model: TorchModel, groups: Sequence[Group], options: ChannelOptions, data: Data
) -> dict[str, torch.Tensor]:
    """Return the worth of each channel, by group, float64.

    Raises:
        ModelError: It is not finite.
    """
    data.progress("compress", f"judging channels by {options.importance}", None)
    if options.importance == "fisher":
        scores = fisher(model, groups, data)
    elif options.importance == "activation":
        scores = _energies(model, groups, data)
    elif options.importance == "magnitude":
        scores = _magnitudes(model.module, groups)
    else:
        random = torch.Generator().manual_seed(data.seed)
        scores = {g.name: torch.rand(g.channels, generator=random, dtype=torch.float64) for g in groups}
    for name, values in scores.items():
        if not values.isfinite().all():
            raise ModelError(
                f"the importances of the channels of {name} are not finite",
                "Check the model's outputs on the data; NaN there means that the model itself is broken.",
            )
    return scores


def fisher(model: TorchModel, groups: Sequence[Group], data: Data) -> dict[str, torch.Tensor]:
    """Return E[(d(u·f)/dm)²] for a gate m on each channel and random u: what the outputs lose without it.

    The outputs f are projected, because the gradient of any distance to the model itself is zero where
    nothing is removed yet. Of class scores only the differences count, so their mean is taken out of u.
    Source: W. Kwon et al., "A Fast Post-Training Pruning Framework for Transformers", NeurIPS 2022
    (empirical Fisher of masks, there with labels).
    """
    random = torch.Generator().manual_seed(data.seed)
    scores = {group.name: torch.zeros(group.channels, dtype=torch.float64) for group in groups}
    for inputs in batches(model, data.fit):
        count = len(next(iter(inputs.values())))
        for _ in range(PROBES):
            gates = {g.name: torch.ones(count, g.channels, requires_grad=True) for g in groups}
            with torch.enable_grad(), gated(model.module, groups, gates):
                out = first_output(model.module(**inputs))
                u = torch.randn(out.shape, generator=random)
                if out.ndim == 2 and out.shape[1] > 1:
                    u -= u.mean(dim=1, keepdim=True)
                slopes = torch.autograd.grad((out * u).sum(), list(gates.values()), allow_unused=True)
            for name, slope in zip(gates, slopes, strict=True):
                if slope is not None:
                    scores[name] += slope.double().square().sum(dim=0)
    return {name: values / (PROBES * len(data.fit)) for name, values in scores.items()}


def _energies(model: TorchModel, groups: Sequence[Group], data: Data) -> dict[str, torch.Tensor]:
    """Return each channel's share of what goes into the layers that read it: E[x²]·|w|²."""
    readers = {axis.module for group in groups for axis in group.axes if axis.side == "in"}
    squares: dict[str, torch.Tensor] = {}

    def see(name: str, x: torch.Tensor, _: torch.Tensor) -> None:
        linear = isinstance(model.module.get_submodule(name), nn.Linear)
        others = [d for d in range(x.ndim) if d != (x.ndim - 1 if linear else 1)]
        squares[name] = squares.get(name, torch.zeros(())) + x.double().square().sum(dim=others)

    with watching(model.module, sorted(readers), see):
        run_all(model, data.fit)
    scores = {group.name: torch.zeros(group.channels, dtype=torch.float64) for group in groups}
    for group in groups:
        for axis in group.axes:
            if axis.side == "in":
                weight = model.module.get_submodule(axis.module).get_parameter("weight").detach().double()
                energy = squares[axis.module] * weight.transpose(0, 1).flatten(1).square().sum(dim=1)
                share = (energy / energy.sum().clamp_min(1e-30))[list(axis.positions)]
                scores[group.name].index_add_(0, torch.tensor(axis.channels), share)
    return scores


def _magnitudes(module: nn.Module, groups: Sequence[Group]) -> dict[str, torch.Tensor]:
    """Return the squared weights that make and read each channel, over their mean in the group."""
    scores = {}
    for group in groups:
        total = torch.zeros(group.channels, dtype=torch.float64)
        for axis in group.axes:
            part = module.get_submodule(axis.module)
            if isinstance(part, (*CONVOLUTIONS, nn.Linear)):
                weight = part.get_parameter("weight").detach().double()
                rows = weight.transpose(0, 1) if axis.side == "in" else weight
                values = rows.flatten(1).square().sum(dim=1)[list(axis.positions)]
                total.index_add_(0, torch.tensor(axis.channels), values)
        scores[group.name] = total / total.mean()
    return scores
