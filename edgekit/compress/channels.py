"""Remove channels of convolutional networks under a budget of multiply-adds, and repair the layers behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from edgekit.compress import channel_repair
from edgekit.compress.base import Data, branch, finished, sizes
from edgekit.compress.channel_budget import Cost, choose
from edgekit.compress.channel_groups import (
    Group,
    Removal,
    example_inputs,
    find_groups,
    first_output,
    gated,
    positions_of,
    remove,
)
from edgekit.compress.channel_worth import importances
from edgekit.compression import ChannelOptions
from edgekit.errors import ModelError
from edgekit.model import TorchModel
from edgekit.record import Clock, Skip


def prune_channels(model: TorchModel, options: ChannelOptions, data: Data) -> TorchModel:
    """Remove the channels of least worth until the multiply-adds fit the budget, then repair what reads them.

    Channels of all layers compete: always that block of `multiple` channels goes next which is worth least
    per multiply-add that it saves.

    Args:
        model: A convolutional network.
        options: The budget, and how to judge and repair.
        data: What importances and repair are taken from, and what they are judged by.

    Raises:
        MissingDependencyError: torch-pruning is not installed.
        ModelError: No channels can be removed, or the importances are not finite.
        RecipeError: The budget cannot be met.
    """
    clock = Clock()
    data.progress("compress", "following the channels through the network", None)
    groups, skipped = find_groups(model)
    groups, tied = _removable(model, groups, options.multiple)
    scores = importances(model, groups, options, data)
    cost = Cost.of(model, data)
    removal = choose(groups, scores, cost, options)
    if not is_silencing(model, groups, removal):
        raise _mixed(model)
    smaller = branch(model)
    remove(smaller.module, groups, removal)
    losses: dict[str, Any] = {"loss_before": data.judge.loss(model), "loss_pruned": data.judge.loss(smaller)}
    refused: tuple[Skip, ...] = ()
    refitted = 0
    if options.repair:
        gone = positions_of(groups, removal)
        smaller, refitted, refused = channel_repair.repair(smaller, model, gone, data, losses["loss_pruned"])
        losses["loss_repaired"] = data.judge.loss(smaller)
    before, after = cost.total({}), Cost.of(smaller, data).total({})
    removed = sum(len(channels) for channels in removal.values())
    did = f"Removed {removed:,} channels: {after / before:.1%} of the multiply-adds remain"
    did += f", {refitted} layers refitted." if options.repair else "."
    return finished(
        smaller,
        clock.record(
            "compress",
            "channels",
            did,
            skipped=(*skipped, *tied, *refused),
            **sizes(model, smaller),
            multiply_adds_before=before,
            multiply_adds_after=after,
            importance=options.importance,
            channels={g.name: [g.channels, g.channels - len(removal.get(g.name, ()))] for g in groups},
            layers_refitted=refitted,
            **losses,
        ),
    )


def _removable(
    model: TorchModel, groups: tuple[Group, ...], multiple: int
) -> tuple[tuple[Group, ...], tuple[Skip, ...]]:
    """Return the groups whose removal is what silencing them is, and why the others have to stay.

    torch-pruning takes an operation that it does not know for one that treats each channel alike, so what
    it says is tried out: all groups at once and, where that fails, each by itself.

    Raises:
        ModelError: None is left.
    """
    random = torch.Generator().manual_seed(0)  # not neighbours: together they may be one attention head
    some = {
        g.name: torch.randperm(g.channels, generator=random)[: min(multiple, g.channels - 1)].tolist()
        for g in groups
    }
    if is_silencing(model, groups, some):
        return groups, ()
    good = tuple(group for group in groups if is_silencing(model, groups, {group.name: some[group.name]}))
    if not good or not is_silencing(model, groups, {group.name: some[group.name] for group in good}):
        raise _mixed(model)
    why = "removing them changes other channels: an operation mixes them that torch-pruning does not know"
    return good, tuple(Skip(group.name, why) for group in groups if group not in good)


def _mixed(model: TorchModel) -> ModelError:
    return ModelError(
        f"channels of {model.name} cannot be removed: an operation between its layers mixes them",
        "Use another technique for this model, e.g. [compress.low_rank].",
    )


def is_silencing(model: TorchModel, groups: Sequence[Group], removal: Removal) -> bool:
    """Return whether a removal does to the example inputs what gates of 0 on its channels do."""
    gates = {}
    for group in groups:
        if group.name in removal:
            gates[group.name] = torch.ones(1, group.channels)
            gates[group.name][:, list(removal[group.name])] = 0
    smaller = branch(model)
    remove(smaller.module, groups, removal)
    inputs = example_inputs(model)
    with torch.no_grad():
        whole = first_output(model.module(**inputs))
        with gated(model.module, groups, gates):
            silenced = first_output(model.module(**inputs))
        try:
            removed = first_output(smaller.module(**inputs))
        except RuntimeError:  # shapes that do not fit
            return False
    if removed.shape != silenced.shape:
        return False
    error, effect, size = (
        values.abs().max().item() for values in (removed - silenced, whole - silenced, whole)
    )
    return error <= max(0.01 * effect, 3e-6 * size)
