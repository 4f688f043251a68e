"""Which channels of a convolutional network go together, and how they are taken out.

torch-pruning traces which layers share a channel: a batch norm behind a convolution, a depthwise convolution,
all branches of a residual sum, the layers that read it. What it finds is turned into values here, and the
network itself is changed by this file: torch-pruning never sees the weights that models share.

Source: G. Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from edgekit.errors import MissingDependencyError, ModelError
from edgekit.model import TorchModel
from edgekit.record import Skip

Side = Literal["in", "out", "both"]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Axis:
    """Where the channels of a group lie in one module.

    Attributes:
        module: Name below the wrapped module.
        side: What it does with them: reads (`in`), makes (`out`), or passes on each by itself (`both`).
        positions: Places on the module's axis.
        channels: The group's channel at each of these places; behind a flattened map, a channel has many.
    """

    module: str
    side: Side
    positions: tuple[int, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Channels that can be removed one by one, each from every module that has it.

    Attributes:
        name: The first module that makes them.
        channels: How many there are.
        axes: Where they lie.
    """

    name: str
    channels: int
    axes: tuple[Axis, ...]


Removal = Mapping[str, Sequence[int]]
"""Name of a group -> the channels to take out of it."""


def find_groups(model: TorchModel) -> tuple[tuple[Group, ...], tuple[Skip, ...]]:
    """Return the groups of channels that can be removed, and why the others cannot.

    Raises:
        MissingDependencyError: torch-pruning is not installed.
        ModelError: torch-pruning cannot trace the model, or nothing in it can be removed.
    """
    try:
        import torch_pruning
    except ImportError:
        raise MissingDependencyError("torch-pruning", "remove channels", "prune") from None
    probe = copy.deepcopy(model.module).requires_grad_(True)  # it follows gradients, and may change flags
    graph = torch_pruning.DependencyGraph()
    try:
        graph.build_dependency(probe, example_inputs(model), output_transform=_beyond, verbose=False)
        found = list(graph.get_all_groups())
    except Exception as error:  # it asserts, and fails on what it does not know
        line = " ".join(str(error).split())[:200]
        raise ModelError(f"torch-pruning cannot follow the channels of {model.name}: {line}") from error
    names = {module: name for name, module in probe.named_modules()}
    groups, skipped = [], []
    for group in found:
        root = names[group[0].dep.target.module]
        why = _obstacle(group, names)
        if why:
            skipped.append(Skip(root, why))
        else:
            groups.append(_as_value(root, group, names, graph))
    if not groups:
        reason = f", e.g. {skipped[0].what}: {skipped[0].why}" if skipped else ""
        raise ModelError(
            f"{model.name} has no channels that can be removed{reason}",
            "Channels are removed from convolutional networks; for transformers there is [compress.width].",
        )
    return tuple(groups), tuple(skipped)


def _beyond(returned: Any) -> list[torch.Tensor]:
    """Put one more operation behind each output: where a layer is the last, torch-pruning sees no output."""
    values = returned.values() if isinstance(returned, Mapping) else returned
    return [value * 1.0 for value in values if value.is_floating_point()]


def _obstacle(group: Any, names: Mapping[nn.Module, str]) -> str:
    """Return why the channels of a group have to stay, or nothing."""
    for dep, _ in group:
        module, kind = dep.target.module, dep.target.type.name
        name = names.get(module, "")
        if kind == "OUTPUT":
            return "they are the model's outputs"
        if kind == "PARAMETER":
            return "a parameter outside of any layer has the same channels"
        if module not in names:
            continue  # a sum, an activation, a reshape
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            return f"{name} normalizes over them, so each changes all others"
        if not isinstance(module, (*CONVOLUTIONS, nn.Linear, *NORMS)):
            if kind != "ELEMENTWISE":
                return f"{name} is a {type(module).__name__}"
        elif isinstance(module, CONVOLUTIONS) and module.groups > 1 and not is_depthwise(module):
            return f"{name} is a convolution in {module.groups} groups"
        elif passes_on(module) and not dep.target.inputs:
            return f"{name} works on the model's own input"
    return ""


def _as_value(root: str, group: Any, names: Mapping[nn.Module, str], graph: Any) -> Group:
    axes = []
    for item in group:
        module = item.dep.target.module
        if module not in names or not isinstance(module, (*CONVOLUTIONS, nn.Linear, *NORMS)):
            continue
        side: Side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
        side = "both" if passes_on(module) else side
        axes.append(Axis(names[module], side, tuple(item.idxs), tuple(item.root_idxs)))
    return Group(root, len(group[0].idxs), tuple(axes))


def is_depthwise(module: nn.Module) -> bool:
    """Return whether a convolution makes each channel of the same channel alone."""
    return (
        isinstance(module, CONVOLUTIONS)
        and module.groups == module.in_channels == module.out_channels
        and module.groups > 1
    )


def passes_on(module: nn.Module) -> bool:
    """Return whether each channel that goes out comes from the same one that goes in."""
    return isinstance(module, NORMS) or is_depthwise(module)


def example_inputs(model: TorchModel) -> dict[str, torch.Tensor]:
    """Return the model's example inputs as tensors."""
    return {name: torch.from_numpy(model.example_inputs[name]) for name in model.input_names}


def first_output(returned: Any) -> torch.Tensor:
    """Return the first output of a wrapped module."""
    return next(iter(returned.values())) if isinstance(returned, Mapping) else returned[0]


def positions_of(groups: Iterable[Group], removal: Removal) -> dict[tuple[str, Side], list[int]]:
    """Return what a removal takes out of each side of each module, sorted."""
    gone: dict[tuple[str, Side], set[int]] = {}
    for group in groups:
        removed = set(removal.get(group.name, ()))
        for axis in group.axes:
            places = (
                p for p, channel in zip(axis.positions, axis.channels, strict=True) if channel in removed
            )
            gone.setdefault((axis.module, axis.side), set()).update(places)
    return {key: sorted(places) for key, places in gone.items() if places}


def remove(module: nn.Module, groups: Iterable[Group], removal: Removal) -> None:
    """Take channels out of a module, which may share its weights: all of them are replaced, none is written.

    Args:
        module: What the groups were found in, or a branch of it.
        groups: All groups.
        removal: The channels to take out.
    """
    for (name, side), places in positions_of(groups, removal).items():
        part = module.get_submodule(name)
        dim = 1 if side == "in" else 0
        gone = set(places)
        index = torch.tensor([p for p in range(width(part, side)) if p not in gone])
        for key, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is None or tensor.ndim <= dim or (side == "in" and key != "weight"):
                continue
            kept = tensor.detach().index_select(dim, index)
            if key in part._parameters:
                part._parameters[key] = nn.Parameter(kept, requires_grad=tensor.requires_grad)
            else:
                part._buffers[key] = kept
        for key in _sizes(part, side):
            setattr(part, key, len(index))


def _sizes(part: nn.Module, side: Side) -> tuple[str, ...]:
    """Return the attributes that hold the width of one side of a part."""
    if isinstance(part, NORMS):
        return ("num_features",)
    if isinstance(part, nn.Linear):
        return (f"{side}_features",)
    return ("in_channels", "out_channels", "groups") if side == "both" else (f"{side}_channels",)


def width(part: nn.Module, side: Side) -> int:
    """Return how many channels one side of a part has."""
    return int(getattr(part, _sizes(part, side)[0]))


@contextmanager
def gated(module: nn.Module, groups: Sequence[Group], gates: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Multiply each channel by a gate wherever a layer reads it, while the block lasts.

    A gate of 0 is what removing the channel amounts to.

    Args:
        module: What the groups were found in.
        groups: All groups.
        gates: Group -> [batch, channels], or [1, channels] for all samples alike.
    """
    readers: dict[str, list[tuple[str, torch.Tensor, torch.Tensor]]] = {}
    for group in groups:
        for axis in group.axes:
            if axis.side == "in" and group.name in gates:
                places, channels = torch.tensor(axis.positions), torch.tensor(axis.channels)
                readers.setdefault(axis.module, []).append((group.name, places, channels))

    def before(part: nn.Module, name: str) -> Any:
        def multiply(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            x = inputs[0]
            rows = [gates[key] for key, _, _ in readers[name]]
            factor = torch.ones(len(rows[0]), width(part, "in"))
            for (_, places, channels), gate in zip(readers[name], rows, strict=True):
                factor = factor.index_copy(1, places, gate[:, channels])
            if len(factor) > 1:  # a reshape may have put frames or windows into the batch
                factor = factor.repeat_interleave(len(x) // len(factor), dim=0)
            middle = [1] * (x.ndim - 2)
            shape = (len(factor), *middle, -1) if isinstance(part, nn.Linear) else (len(factor), -1, *middle)
            return (x * factor.view(shape), *inputs[1:])

        return multiply

    parts = {name: module.get_submodule(name) for name in readers}
    handles = [part.register_forward_pre_hook(before(part, name)) for name, part in parts.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
