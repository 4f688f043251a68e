"""The matrix products that can be factorized or made sparse, and the moments of what goes through them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from edgekit.compress.anatomy import FAMILIES, is_matrix, layer_list
from edgekit.compress.base import batches, real_rows, watching
from edgekit.compress.probe import probe
from edgekit.data import Sample
from edgekit.errors import ModelError, RecipeError, nearest
from edgekit.model import TorchModel
from edgekit.record import Skip
from edgekit.structure import LowRankLinear

_PROBES = 2
"""Random directions per batch; the samples do the rest of the averaging."""


@dataclass(frozen=True)
class Matrices:
    """Matrix products of a model that may be changed.

    Attributes:
        names: Below the wrapped module, in running order as far as the model lists them so.
        skipped: What was left out, and why.
    """

    names: tuple[str, ...]
    skipped: tuple[Skip, ...]


def matrices_of(model: TorchModel, *, exclude: Sequence[str] = (), key: str = "") -> Matrices:
    """Return the matrix products in a transformer's layers; in a module of no known family, all of them.

    Args:
        model: The model.
        exclude: Shell patterns of names that stay as they are.
        key: The recipe's key that `exclude` came from, for errors.

    Raises:
        RecipeError: A pattern fits nothing.
        ModelError: There is no matrix product at all.
    """
    inside, where = "", "embeddings, poolers and heads stay as they are"
    if _is_transformer(model):
        inside = f"{layer_list(model)[0]}."
    parts = dict(model.module.named_modules())
    holders: dict[int, int] = {}
    for part in parts.values():
        for parameter in part._parameters.values():
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1
    found = [name for name, part in parts.items() if name.startswith("model.") and is_matrix(part)]
    named = {name: plain_name(name) for name in found}
    for pattern in exclude:
        if not any(fnmatchcase(named[name], pattern) for name in found):
            raise RecipeError(f"{key}: no matrix is called {pattern!r}", nearest(pattern, named.values()))
    names, skipped = [], []
    for name in found:
        if any(fnmatchcase(named[name], pattern) for pattern in exclude):
            skipped.append(Skip(named[name], f"excluded by {key}"))
        elif not name.startswith(inside):
            skipped.append(Skip(named[name], f"it is in none of the layers: {where}"))
        elif holders[id(parts[name].get_parameter("weight"))] > 1:
            skipped.append(Skip(named[name], "another part shares its weight"))
        else:
            names.append(name)
    if not found:
        raise ModelError(
            f"{model.name} has no matrix product that could be factorized or made sparse",
            "What can be changed are nn.Linear and the Conv1D of transformers; channels can be pruned.",
        )
    return Matrices(tuple(names), tuple(skipped))


def plain_name(name: str) -> str:
    """Return a part's name as the model's own checkpoint has it."""
    return name.removeprefix("model.")


def blocks_of(model: TorchModel, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return names in groups that run one after the other: those of one layer, in running order.

    In a module of no known family each is a group of its own.
    """
    if not _is_transformer(model):
        return tuple((name,) for name in names)
    depth = layer_list(model)[0].count(".") + 2
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(".".join(name.split(".")[:depth]), []).append(name)
    return tuple(map(tuple, groups.values()))


def _is_transformer(model: TorchModel) -> bool:
    inner: Any = model.module.get_submodule("model")
    return getattr(getattr(inner, "config", None), "model_type", None) in FAMILIES


def features(matrix: nn.Module) -> tuple[int, int]:
    """Return (in, out) of a matrix product or of a pair in its place."""
    if isinstance(matrix, LowRankLinear):
        return matrix.down.in_features, matrix.up.out_features
    if isinstance(matrix, nn.Linear):
        return matrix.in_features, matrix.out_features
    stored = matrix.get_parameter("weight").shape  # Conv1D, [in, out]
    return int(stored[0]), int(stored[1])


@dataclass(frozen=True)
class Moments:
    """Second moments of what goes into a matrix.

    Attributes:
        own: E[x·xᵀ] of its inputs, float64 [in, in].
        cross: E[x₀·xᵀ] with its inputs x₀ in another model, float64 [in, in]; `own` where there is none.
    """

    own: torch.Tensor
    cross: torch.Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.own + other.own, self.cross + other.cross)

    def __truediv__(self, count: int) -> Moments:
        return Moments(self.own / count, self.cross / count)


def moments(
    model: TorchModel,
    names: Sequence[str],
    samples: Sequence[Sample],
    reference: TorchModel | None = None,
) -> dict[str, Moments]:
    """Return the moments of those of the matrices that run.

    Args:
        model: The model that runs.
        names: Matrix products.
        samples: What it runs on.
        reference: Another model with inputs x₀ of the same shapes in the same places.
    """
    sums: dict[str, Moments] = {}
    rows: dict[str, int] = {}
    for inputs in batches(model, samples):
        x = _inputs(model, names, inputs)
        x0 = x if reference is None else _inputs(reference, names, inputs)
        # Queries, keys and values read the same tensor: it is multiplied once.
        seen: dict[tuple[int, int], Moments] = {}
        for name, values in x.items():
            right = real_rows(values, inputs)
            rows[name] = rows.get(name, 0) + len(right)
            here = (values.data_ptr(), x0[name].data_ptr())
            if here not in seen:
                own = (right.T @ right).double()
                cross = own if reference is None else (real_rows(x0[name], inputs).T @ right).double()
                seen[here] = Moments(own, cross)
            sums[name] = sums[name] + seen[here] if name in sums else seen[here]
    return {name: total / rows[name] for name, total in sums.items()}


def gradient_energy(
    model: TorchModel, names: Sequence[str], samples: Sequence[Sample], seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return how much the model's outputs move with each output of a matrix: E[g²] per token, float64 [out].

    No labels are needed. The loss between a model and itself has no gradient, so it is taken of the outputs
    in random directions, which is the diagonal of the Gauss-Newton matrix; for logits, of the log-likelihood
    of labels that are drawn from the model itself, which is the Fisher information.

    Source: Martens 2020, New Insights and Perspectives on the Natural Gradient Method, section 5.
    """
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, torch.Tensor] = {}
    rows: dict[str, int] = {}
    for inputs in batches(model, samples):
        made: dict[str, torch.Tensor] = {}
        with torch.enable_grad(), _keeping_outputs(model, names, made):
            returned = model.module(**inputs)
        output = next(iter(returned.values())) if isinstance(returned, dict) else returned[0]
        if not made:  # none of them runs
            continue
        for number in range(_PROBES):
            with torch.enable_grad():
                total = probe(model, output, inputs, generator)
                gradients = torch.autograd.grad(
                    total, list(made.values()), retain_graph=number + 1 < _PROBES, allow_unused=True
                )
            for name, gradient in zip(made, gradients, strict=True):
                if gradient is None:
                    continue
                real = real_rows(gradient, inputs)
                sums[name] = sums.get(name, 0) + real.double().square().sum(0)
                rows[name] = rows.get(name, 0) + len(real)
    return {name: total / rows[name] for name, total in sums.items()}


def _inputs(
    model: TorchModel, names: Sequence[str], inputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}
    with torch.no_grad(), watching(model.module, names, lambda name, x, _: seen.update({name: x})):
        model.module(**inputs)
    return seen


@contextmanager
def _keeping_outputs(
    model: TorchModel, names: Sequence[str], made: dict[str, torch.Tensor]
) -> Iterator[None]:
    """Keep the outputs of parts, with gradients, while the block lasts."""

    def hook(name: str) -> Any:
        def after(part: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            made[name] = output if output.requires_grad else output.requires_grad_()
            return made[name]

        return after

    handles = [model.module.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
