"""Fit the matrix behind removed heads or neurons anew, so that what is left does their work: least squares.

Layer by layer in running order. The inputs X are those of the smaller model, repaired so far. Two targets Y
are tried: what the original's matrix gives (`own`), and that plus the distance by which the smaller model's
residual stream is off by then (`stream`), so that a layer makes up for those before it.

    W' = argmin ‖X·W − Y‖² + λ·‖W − W_kept‖²

λ is the one that predicts a quarter of the samples best from the rest. What the outputs of the whole model
are no closer for, on samples that nothing is fitted to, is not taken.

Source: Kwon et al. 2022, arXiv:2204.09656, section 4.4 (least squares after pruning); the target `stream` is
our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from edgekit.compress.anatomy import Layer, layers_of, matrix_of, set_matrix
from edgekit.compress.base import Data, batches, branch, real_rows, watching
from edgekit.compress.importance import Part
from edgekit.errors import DataError, ModelError
from edgekit.model import TorchModel
from edgekit.record import Fact, Skip

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""λ over the inputs' mean square; the largest leaves the kept weights nearly as they are."""

TARGETS = {"own": 0.0, "stream": 1.0}
"""How much of the residual stream's distance the matrix is to make up for."""

_CACHES = ("past_key_values", "past_key_value", "layer_past")


@dataclass(frozen=True)
class Repaired:
    """A model whose matrices were fitted anew.

    Attributes:
        model: It.
        loss: By the judge.
        fits: What was fitted, one entry per matrix that was kept.
        skipped: What was not taken.
    """

    model: TorchModel
    loss: float
    fits: tuple[dict[str, Fact], ...]
    skipped: tuple[Skip, ...]


def repair(original: TorchModel, smaller: TorchModel, parts: Sequence[Part], data: Data) -> Repaired:
    """Fit the matrices behind `parts` anew.

    Args:
        original: The model before its heads and neurons were removed.
        smaller: The same after; the given one is not changed.
        parts: Those that lost units, in running order, as `original` has them.
        data: Samples to fit, and the judge.
    """
    loss = data.judge.loss(smaller)
    fits: list[dict[str, Fact]] = []
    skipped: list[Skip] = []
    if not parts:
        return Repaired(smaller, loss, (), ())
    first, last = parts[0].layer.index, parts[-1].layer.index
    walks = _walks(original, data, first)
    for index in range(first, last + 1):
        for part in (part for part in parts if part.layer.index == index):
            data.progress("compress", f"repairing {part.name}", parts.index(part) / len(parts))
            sums = _accumulate(original, smaller, part, walks)
            best, found = smaller, loss
            fit: dict[str, Fact] = {}
            for target, share in TARGETS.items():
                solution = solve(sums, _affine(smaller, part.matrix), share)
                candidate = branch(smaller)
                _set_affine(candidate, part.matrix, solution.weight)
                now = data.judge.loss(candidate)
                if now < found:
                    best, found = candidate, now
                    fit = {"part": part.name, "target": target, "ridge": solution.ridge, "loss": now}
            if best is smaller:
                skipped.append(Skip(f"repair of {part.name}", f"the loss would not fall below {loss:.4g}"))
            else:
                fits.append(fit)
            smaller, loss = best, found
        if index < last:
            for walk in walks:
                walk.advance(original, smaller, index)
    return Repaired(smaller, loss, tuple(fits), tuple(skipped))


@dataclass(frozen=True)
class Sums:
    """What least squares needs of any number of rows: inputs x with a 1 at the end where there is a bias.

    Attributes:
        rows: How many.
        xx: Σ x·xᵀ, float64 [in, in].
        xy: Σ x·yᵀ, float64 [in, out].
        xs: Σ x·sᵀ, s being the residual stream's distance, [in, out].
        yy: Σ y·y.
        ys: Σ y·s.
        ss: Σ s·s.
        biased: Whether the last input is the 1.
    """

    rows: int
    xx: torch.Tensor
    xy: torch.Tensor
    xs: torch.Tensor
    yy: float
    ys: float
    ss: float
    biased: bool

    @classmethod
    def of(cls, x: torch.Tensor, y: torch.Tensor, s: torch.Tensor, *, biased: bool) -> Sums:
        """Sum over rows: x [rows, in], y and s [rows, out], float32."""
        if biased:
            x = torch.cat([x, torch.ones(len(x), 1)], 1)
        x, y, s = x.double(), y.double(), s.double()
        yy, ys, ss = (float((a * b).sum()) for a, b in ((y, y), (y, s), (s, s)))
        return cls(len(x), x.T @ x, x.T @ y, x.T @ s, yy, ys, ss, biased)

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.rows + other.rows,
            self.xx + other.xx,
            self.xy + other.xy,
            self.xs + other.xs,
            self.yy + other.yy,
            self.ys + other.ys,
            self.ss + other.ss,
            self.biased,
        )


@dataclass(frozen=True)
class Solution:
    """A refitted matrix.

    Attributes:
        weight: float64 [in, out], the bias below it.
        ridge: The λ that was taken, over the inputs' mean square.
        error: Energy of the error per row where λ was chosen, before and after.
    """

    weight: torch.Tensor
    ridge: float
    error: tuple[float, float]


def solve(sums: tuple[Sums, Sums], kept: torch.Tensor, share: float) -> Solution:
    """Return the weights that give y + share·s from x best, λ chosen on the second sums.

    Args:
        sums: Of the rows to fit, and of those that λ is chosen on.
        kept: Weights now, float64 [in, out].
        share: Of the residual stream's distance.
    """
    fit, chosen_on = sums
    errors = {ridge: _error(chosen_on, _ridge(fit, kept, share, ridge), share) for ridge in RIDGES}
    best = min(errors, key=lambda ridge: errors[ridge])
    before = _error(chosen_on, kept, share)
    return Solution(_ridge(fit + chosen_on, kept, share, best), best, (before, errors[best]))


def _ridge(sums: Sums, kept: torch.Tensor, share: float, ridge: float) -> torch.Tensor:
    diagonal = sums.xx.diagonal().clone()
    real = slice(None, -1 if sums.biased else None)
    pull = torch.zeros_like(diagonal)
    pull[real] = ridge * diagonal[real].mean() + torch.finfo(torch.float64).tiny
    left = sums.xx + torch.diag(pull)
    right = sums.xy + share * sums.xs + pull[:, None] * kept
    return torch.linalg.solve(left, right)


def _error(sums: Sums, weight: torch.Tensor, share: float) -> float:
    target = sums.xy + share * sums.xs
    energy = sums.yy + 2 * share * sums.ys + share**2 * sums.ss
    error = float((weight * (sums.xx @ weight - 2 * target)).sum()) + energy
    return max(error, 0.0) / max(sums.rows, 1)


def _affine(model: TorchModel, name: str) -> torch.Tensor:
    """Return a matrix as float64 [in, out], its bias, where there is one, as the last row."""
    matrix = model.module.get_submodule(name)
    weight, bias = matrix_of(matrix).T.double(), getattr(matrix, "bias", None)
    return weight if bias is None else torch.cat([weight, bias.detach().double()[None]])


def _set_affine(model: TorchModel, name: str, weight: torch.Tensor) -> None:
    matrix = model.module.get_submodule(name)
    values = weight.float()
    if getattr(matrix, "bias", None) is None:
        set_matrix(matrix, values.T)
    else:
        set_matrix(matrix, values[:-1].T, values[-1])


@dataclass
class _Walk:
    """A batch on its way through the layers of both models; only what enters the present layer is held.

    Attributes:
        inputs: Of the model.
        calls: What each layer of the original is called with beside the hidden state.
        original: Hidden state that enters the present layer of the original.
        smaller: The same of the smaller model.
    """

    inputs: Mapping[str, torch.Tensor]
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
    original: torch.Tensor
    smaller: torch.Tensor

    def run(self, layer: torch.nn.Module, hidden: torch.Tensor, index: int) -> torch.Tensor:
        """Return what a layer makes of a hidden state [batch, sequence, hidden]."""
        args, kwargs = self.calls[index]
        with torch.no_grad():
            returned = layer(hidden, *args, **kwargs)
        return returned[0] if isinstance(returned, tuple) else returned

    def advance(self, original: TorchModel, smaller: TorchModel, index: int) -> None:
        """Take both hidden states through a layer."""
        self.original = self.run(layers_of(original)[index].module, self.original, index)
        self.smaller = self.run(layers_of(smaller)[index].module, self.smaller, index)


def _walks(original: TorchModel, data: Data, first: int) -> list[_Walk]:
    """Run the original once per batch, and hold what enters layer `first`: so far both models are alike.

    Raises:
        ModelError: A layer is not called with a hidden state first.
        DataError: There is no sample to fit.
    """
    if not data.fit:
        raise DataError("there is no sample to repair the model with", "Give more samples.")
    layers = layers_of(original)
    walks = []
    for inputs in batches(original, data.fit):
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        hidden: list[torch.Tensor] = []

        def note(
            _: Any,
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
            calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = calls,
            hidden: list[torch.Tensor] = hidden,
        ) -> None:
            kwargs = {key: None if key in _CACHES else value for key, value in kwargs.items()}
            state = args[0] if args else kwargs.pop("hidden_states", None)
            if not isinstance(state, torch.Tensor):
                raise ModelError("a layer is not called with a hidden state, so nothing can be repaired")
            calls.append((args[1:], kwargs))
            hidden.append(state if len(calls) == first + 1 else state[:0])

        with ExitStack() as stack:
            for layer in layers:
                handle = layer.module.register_forward_pre_hook(note, with_kwargs=True)
                stack.callback(handle.remove)
            with torch.no_grad():
                original.module(**inputs)
        walks.append(_Walk(inputs, calls, hidden[first], hidden[first]))
    return walks


def _accumulate(
    original: TorchModel, smaller: TorchModel, part: Part, walks: Sequence[_Walk]
) -> tuple[Sums, Sums]:
    """Return the sums over three quarters of the batches, and over the others."""
    index = part.layer.index
    before, after = layers_of(original)[index], layers_of(smaller)[index]
    biased = getattr(smaller.module.get_submodule(part.matrix), "bias", None) is not None
    totals: list[Sums | None] = [None, None]
    for number, walk in enumerate(walks):
        _, y, there = _look(before, part, walk, walk.original)
        x, _, here = _look(after, part, walk, walk.smaller)
        rows = [real_rows(values, walk.inputs) for values in (x, y, there - here)]
        sums, side = Sums.of(*rows, biased=biased), number % 4 == 3
        total = totals[side]
        totals[side] = sums if total is None else total + sums
    fit, other = totals
    assert fit is not None
    return fit, other or fit


def _look(
    layer: Layer, part: Part, walk: _Walk, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run a layer; return what enters the part's matrix, what leaves it, and the stream it is added to."""
    family = layer.family
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    names = (family.output, family.up[0], family.down)
    with watching(layer.module, names, lambda name, x, y: seen.update({name: (x, y)})):
        output = walk.run(layer.module, hidden, layer.index)
    attended, (_, lifted) = seen[family.output], seen[family.down]
    if part.kind == "heads":
        return *attended, hidden
    # A block that normalizes before it computes adds to its input; one that normalizes after, to what
    # it reads.
    stream = hidden + attended[1]
    adds = torch.allclose(stream + lifted, output, rtol=1e-3, atol=1e-3 * float(output.abs().mean()))
    return *seen[family.down], stream if adds else seen[family.up[0]][0]
