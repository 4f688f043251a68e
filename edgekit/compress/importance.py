"""What each attention head and each neuron of the feed-forward blocks is worth, without labels.

Source: Kwon et al. 2022, A Fast Post-Training Pruning Framework for Transformers, arXiv:2204.09656 (Fisher
information of masks); Sun et al. 2023, Wanda, arXiv:2306.11695 (weights times activations).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from edgekit.compress.anatomy import Layer, layers_of, matrix_of
from edgekit.compress.base import Data, batches, real_rows
from edgekit.compress.probe import probe
from edgekit.compress.surgeon import eliminate
from edgekit.errors import ModelError
from edgekit.model import TorchModel

Kind = Literal["heads", "ffn"]
Method = Literal["surgeon", "fisher", "activation", "magnitude", "random"]

_PROBES = 2
"""Random directions per batch; the samples do the rest of the averaging."""

_MOMENT_BYTES = 1 << 30
"""Second moments that are held at once; where all need more, the samples run several times."""


@dataclass(frozen=True)
class Part:
    """One half of a layer: its attention heads or its neurons, and the matrix that reads them.

    Attributes:
        layer: The layer.
        kind: `heads`, in groups where they share keys and values, or `ffn`.
        matrix: Name of the matrix behind them, below the wrapped module.
        units: How many heads, groups of heads, or neurons.
        columns: Inputs of the matrix that belong to one unit.
    """

    layer: Layer
    kind: Kind
    matrix: str
    units: int
    columns: int

    @property
    def reader(self) -> str:
        """Name of the matrix below its layer."""
        return self.layer.family.output if self.kind == "heads" else self.layer.family.down

    @property
    def name(self) -> str:
        """Readable name, `heads of layer 3`."""
        return f"{'heads' if self.kind == 'heads' else 'neurons'} of layer {self.layer.index}"


@dataclass(frozen=True)
class Ranking:
    """The units of a part, the worthiest first.

    Attributes:
        order: Indices of units.
        lost: `lost[n]` is the worth that goes where only the first n of `order` stay; `lost[units]` is 0.
    """

    order: tuple[int, ...]
    lost: tuple[float, ...]

    def kept(self, count: int) -> list[int]:
        """Return the worthiest units in the order in which the layer has them."""
        return sorted(self.order[:count])


@dataclass
class Seen:
    """What was seen of a part over the samples: sums over samples or tokens, float64.

    Attributes:
        information: Σ (∂/∂mask)² per unit, [units].
        energy: Σ x·xᵀ of what enters the matrix, [columns, columns]; or its diagonal alone, [columns].
        mean: Σ x, [columns].
        steepness: Σ g·gᵀ of the outputs' gradient at what leaves the matrix, [out, out] or [out].
        samples: How many samples.
        tokens: How many tokens.
    """

    information: torch.Tensor
    energy: torch.Tensor
    mean: torch.Tensor
    steepness: torch.Tensor
    samples: int = 0
    tokens: int = 0


def parts_of(model: TorchModel) -> tuple[Part, ...]:
    """Return both halves of each layer, in running order.

    Raises:
        ModelError: The architecture is unknown.
    """
    parts = []
    for layer in layers_of(model):
        family, wide = layer.family, layer.heads // layer.kv_heads * layer.head_dim
        parts.append(Part(layer, "heads", layer.full(family.output), layer.kv_heads, wide))
        parts.append(Part(layer, "ffn", layer.full(family.down), layer.neurons, 1))
    return tuple(parts)


def rank(model: TorchModel, parts: Sequence[Part], method: Method, data: Data) -> dict[str, Ranking]:
    """Return the units of each part by their worth, under the name of the part's matrix.

    Worths of `surgeon` and `fisher` can be compared between parts, as they count what happens to the
    outputs; those of the other methods are shares of their part.

    Args:
        model: The model; it is not changed.
        parts: Halves of its layers.
        method: `surgeon`, what the outputs lose once the units that stay make up for a unit as well as they
            can; `fisher`, what they lose at once; `activation`, the energy of what a unit adds to the
            residual stream; `magnitude`, of the weights that read it; `random`.
        data: `fit` is what is looked at.

    Raises:
        ModelError: A worth is not finite.
    """
    if method == "random":
        generator = torch.Generator().manual_seed(data.seed)
        return {part.matrix: _share(torch.rand(part.units, generator=generator).double()) for part in parts}
    readers = {part.matrix: matrix_of(model.module.get_submodule(part.matrix)).double() for part in parts}
    if method == "magnitude":
        return {part.matrix: _share(_by_unit(readers[part.matrix].square().sum(0), part)) for part in parts}
    crossed = method == "surgeon"
    rankings = {}
    for group in _groups(parts, readers) if crossed else [parts]:
        for name, found in look(model, group, data, crossed=crossed).items():
            part = next(part for part in group if part.matrix == name)
            if not all(torch.isfinite(t).all() for t in (found.information, found.energy, found.steepness)):
                raise ModelError(f"{part.name}: values or gradients on the data are not finite")
            if method == "activation":
                rankings[name] = _share(_by_unit(found.energy * readers[name].square().sum(0), part))
            elif method == "fisher":
                rankings[name] = _ranking(found.information / found.samples)
            else:
                biased = getattr(model.module.get_submodule(name), "bias", None) is not None
                spread, steepness = _spread(found, biased=biased), found.steepness / found.samples
                rankings[name] = Ranking(*eliminate(spread, readers[name].T, steepness, part.columns))
    return rankings


def _groups(parts: Sequence[Part], readers: Mapping[str, torch.Tensor]) -> list[list[Part]]:
    """Return the parts in groups whose second moments fit into memory together."""
    groups: list[list[Part]] = []
    left = 0
    for part in parts:
        needed = 8 * sum(size**2 for size in readers[part.matrix].shape)
        if needed > left:
            groups.append([])
            left = _MOMENT_BYTES
        groups[-1].append(part)
        left -= needed
    return groups


def look(model: TorchModel, parts: Sequence[Part], data: Data, *, crossed: bool = True) -> dict[str, Seen]:
    """Return what is seen at each part's matrix, by its name, on the samples to fit.

    A mask of ones per sample stands before each matrix; the gradient of a probe of the outputs with
    respect to it tells what each unit does to them.

    Args:
        model: The model.
        parts: Halves of its layers.
        data: `fit` is what runs.
        crossed: Take second moments between columns, not of each alone.
    """
    generator = torch.Generator().manual_seed(data.seed)
    seen: dict[str, Seen] = {}
    for inputs in batches(model, data.fit):
        with torch.enable_grad(), _masked(model, parts) as (masks, entering, leaving):
            returned = model.module(**inputs)
        output = next(iter(returned.values())) if isinstance(returned, dict) else returned[0]
        watched = [masks[part.matrix] for part in parts] + [leaving[part.matrix] for part in parts]
        for number in range(_PROBES):
            with torch.enable_grad():
                direction = probe(model, output, inputs, generator)
                gradients = torch.autograd.grad(
                    direction, watched, retain_graph=number + 1 < _PROBES, allow_unused=True
                )
            for part, mask, left in zip(parts, gradients[: len(parts)], gradients[len(parts) :], strict=True):
                if mask is None:  # the outputs do not depend on it
                    mask, left = torch.zeros_like(masks[part.matrix]), torch.zeros_like(leaving[part.matrix])
                if part.matrix not in seen:
                    wide, out = mask.shape[-1], left.shape[-1]
                    twice = 2 if crossed else 1
                    shapes = ((part.units,), (wide,) * twice, (wide,), (out,) * twice)
                    seen[part.matrix] = Seen(*(torch.zeros(s, dtype=torch.float64) for s in shapes))
                found, g = seen[part.matrix], real_rows(left, inputs)
                by_unit = mask.reshape(len(mask), part.units, part.columns).sum(-1).double()
                found.information += by_unit.square().sum(0) / _PROBES
                found.steepness += (g.T @ g if crossed else g.square().sum(0)).double() / _PROBES
        for part in parts:
            found, x = seen[part.matrix], real_rows(entering[part.matrix], inputs)
            found.energy += (x.T @ x if crossed else x.square().sum(0)).double()
            found.mean += x.double().sum(0)
            found.samples += len(output)
            found.tokens += len(x)
    return seen


@contextmanager
def _masked(model: TorchModel, parts: Sequence[Part]) -> Iterator[tuple[dict[str, torch.Tensor], ...]]:
    """Put masks before matrices while the block lasts; yield them, what enters and what leaves, by name."""
    masks: dict[str, torch.Tensor] = {}
    entering: dict[str, torch.Tensor] = {}
    leaving: dict[str, torch.Tensor] = {}

    def before(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            x = args[0]
            entering[name] = x.detach()
            masks[name] = x.new_ones(x.shape[0], *[1] * (x.ndim - 2), x.shape[-1]).requires_grad_()
            return (x * masks[name], *args[1:])

        return hook

    def after(name: str) -> Any:
        return lambda _module, _args, output: leaving.update({name: output})

    with ExitStack() as stack:
        for part in parts:
            matrix = model.module.get_submodule(part.matrix)
            stack.callback(matrix.register_forward_pre_hook(before(part.matrix)).remove)
            stack.callback(matrix.register_forward_hook(after(part.matrix)).remove)
        yield masks, entering, leaving


def _spread(seen: Seen, *, biased: bool) -> torch.Tensor:
    """Return E[x·xᵀ], without the mean where a bias can take it over."""
    energy, mean = seen.energy / seen.tokens, seen.mean / seen.tokens
    return energy - torch.outer(mean, mean) if biased else energy


def _by_unit(worth: torch.Tensor, part: Part) -> torch.Tensor:
    return worth.reshape(part.units, part.columns).sum(-1)


def _share(worth: torch.Tensor) -> Ranking:
    return _ranking(worth / worth.sum().clamp_min(torch.finfo(torch.float64).tiny))


def _ranking(worth: torch.Tensor) -> Ranking:
    """Return units by their worth, float64 [units]; of equal ones the earlier stays."""
    if not torch.isfinite(worth).all():
        raise ModelError("the worth of a head or neuron is not finite", "Check the model's weights and data.")
    order = torch.sort(worth, descending=True, stable=True).indices
    gone = worth[order].flip(0).cumsum(0).flip(0).tolist()
    return Ranking(tuple(order.tolist()), (*gone, 0.0))
