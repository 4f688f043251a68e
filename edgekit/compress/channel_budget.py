"""Which channels go under a budget of multiply-adds: blocks of least worth per multiply-add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from edgekit.compress.base import Data, run_all, watching
from edgekit.compress.channel_groups import CONVOLUTIONS, Group, Removal, Side, is_depthwise, width
from edgekit.compression import ChannelOptions
from edgekit.errors import RecipeError
from edgekit.model import TorchModel

Lost = Mapping[tuple[str, Side], int]
"""(module, side) -> how many of its channels are gone."""


@dataclass(frozen=True)
class Layer:
    """Multiply-adds of one convolution or matrix product for one sample, and its widths."""

    multiply_adds: int
    reads: int
    makes: int
    depthwise: bool


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of a network for one sample, counted while it runs.

    Attributes:
        layers: Name of each convolution and matrix product -> its share.
    """

    layers: dict[str, Layer]

    @classmethod
    def of(cls, model: TorchModel, data: Data) -> Cost:
        """Count by running the model on one sample."""
        parts = {n: m for n, m in model.module.named_modules() if isinstance(m, (*CONVOLUTIONS, nn.Linear))}
        layers: dict[str, Layer] = {}

        def see(name: str, _: torch.Tensor, output: torch.Tensor) -> None:
            part = parts[name]
            weight = part.get_parameter("weight")
            mine = output.numel() * weight[0].numel()  # each output is a sum over one row of weights
            seen = layers[name].multiply_adds if name in layers else 0
            alone = is_depthwise(part)
            side: Side = "both" if alone else "in"
            layers[name] = Layer(mine + seen, width(part, side), len(weight), alone)

        with watching(model.module, tuple(parts), see):
            run_all(model, data.fit[:1])
        return cls(layers)

    def total(self, gone: Lost) -> int:
        """Return the multiply-adds that are left when (module, side) has lost so many channels."""
        return round(sum(self._left(name, gone) for name in self.layers))

    def _left(self, name: str, gone: Lost) -> float:
        layer = self.layers[name]
        if layer.depthwise:
            return layer.multiply_adds * (1 - gone.get((name, "both"), 0) / layer.makes)
        reads, makes = gone.get((name, "in"), 0), gone.get((name, "out"), 0)
        return layer.multiply_adds * (1 - reads / layer.reads) * (1 - makes / layer.makes)

    def saved(self, group: Group, channels: int, gone: Lost) -> float:
        """Return the multiply-adds that removing so many more channels of a group saves."""
        names = {axis.module for axis in group.axes if axis.module in self.layers}
        more = with_lost(gone, group, channels)
        return sum(self._left(name, gone) - self._left(name, more) for name in names)


def with_lost(gone: Lost, group: Group, channels: int) -> Lost:
    """Return how many places each (module, side) has lost when a group loses so many more channels."""
    more = dict(gone)
    for axis in group.axes:
        key = (axis.module, axis.side)
        more[key] = more.get(key, 0) + channels * len(axis.positions) // group.channels
    return more


def choose(
    groups: Sequence[Group], scores: dict[str, torch.Tensor], cost: Cost, options: ChannelOptions
) -> Removal:
    """Return the channels to remove: blocks of least worth per multiply-add saved, until the budget is met.

    Args:
        groups: What can be removed.
        scores: Group -> worth of each channel, comparable between groups.
        cost: Of the whole network.
        options: Budget and multiple.

    Raises:
        RecipeError: The budget cannot be met.
    """
    order = {group.name: torch.argsort(scores[group.name], stable=True).tolist() for group in groups}
    budget = options.multiply_adds * cost.total({})
    gone: Lost = {}
    taken: list[tuple[float, Group, int]] = []  # price, group, how many channels
    lost = {group.name: 0 for group in groups}
    while cost.total(gone) > budget:
        offers = []
        for group in groups:
            left = group.channels - lost[group.name]
            block = left - (left - 1) // options.multiple * options.multiple
            if block < left:  # the last multiple stays
                start = lost[group.name]
                worth = scores[group.name][order[group.name][start : start + block]].sum().item()
                offers.append((worth / max(cost.saved(group, block, gone), 1.0), group, block))
        if not offers:
            least = cost.total(gone) / cost.total({})
            raise RecipeError(
                f"[compress] channels.multiply_adds = {options.multiply_adds:g} cannot be met: with "
                f"{options.multiple} channels left everywhere, {least:.1%} of the multiply-adds remain",
                "Allow more, or set a smaller `multiple`.",
            )
        taken.append(min(offers, key=lambda offer: offer[0]))
        _, group, block = taken[-1]
        lost[group.name] += block
        gone = with_lost(gone, group, block)
    settled: set[str] = set()
    for _, group, block in reversed(taken):  # the last blocks may have saved more than was needed
        restored = with_lost(gone, group, -block)
        if group.name not in settled and cost.total(restored) <= budget:
            lost[group.name] -= block
            gone = restored
        else:
            settled.add(group.name)  # blocks come back in turn, so that the rest stays a multiple
    return {name: order[name][:count] for name, count in lost.items() if count}
