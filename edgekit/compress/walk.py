"""Two models side by side, layer by layer: what is held is only what enters the present layer of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from edgekit.compress.anatomy import layers_of
from edgekit.compress.base import Data, batches, real_rows, watching
from edgekit.compress.importance import Part
from edgekit.compress.least_squares import Sums
from edgekit.errors import DataError, ModelError
from edgekit.model import TorchModel

_CACHES = ("past_key_values", "past_key_value", "layer_past")

_EVERY = 4
"""One batch of so many chooses how strongly weights are held back; the others are fitted to."""


@dataclass
class Walk:
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


def walks_of(original: TorchModel, data: Data, first: int) -> list[Walk]:
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
        walks.append(Walk(inputs, calls, hidden[first], hidden[first]))
    return walks


def accumulate(goal: Part, part: Part, walks: Sequence[Walk], called: int) -> tuple[Sums, Sums]:
    """Return what least squares needs to make a part of one model give what a part of the other gives.

    Args:
        goal: The part of the original.
        part: The part of the smaller model, of the same kind.
        walks: Where both models are: before the goal's layer, and before the part's.
        called: Index of the original's layer whose call the smaller model's layer is run with.

    Returns:
        The sums over three quarters of the batches, and over the others.
    """
    biased = getattr(part.layer.part(part.reader), "bias", None) is not None
    totals: list[Sums | None] = [None, None]
    for number, walk in enumerate(walks):
        _, y, there = look(goal, walk, walk.original, goal.layer.index)
        x, _, here = look(part, walk, walk.smaller, called)
        rows = [real_rows(values, walk.inputs) for values in (x, y, there - here)]
        sums, side = Sums.of(*rows, biased=biased), int(number % _EVERY == _EVERY - 1)
        total = totals[side]
        totals[side] = sums if total is None else total + sums
    fit, other = totals
    assert fit is not None
    return fit, other or fit


def look(
    part: Part, walk: Walk, hidden: torch.Tensor, called: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run a part's layer; return what enters its matrix, what leaves it, and the stream it is added to."""
    layer = part.layer
    family = layer.family
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    names = (family.output, family.up[0], family.down)
    with watching(layer.module, names, lambda name, x, y: seen.update({name: (x, y)})):
        output = walk.run(layer.module, hidden, called)
    attended, (_, lifted) = seen[family.output], seen[family.down]
    if part.kind == "heads":
        return *attended, hidden
    # A block that normalizes before it computes adds to its input; one that normalizes after, to what
    # it reads.
    stream = hidden + attended[1]
    adds = torch.allclose(stream + lifted, output, rtol=1e-3, atol=1e-3 * float(output.abs().mean()))
    return *seen[family.down], stream if adds else seen[family.up[0]][0]
