"""Which layer of the teacher a layer of the student learns from, and what both give on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from edgekit.compress.anatomy import family_of, layer_list
from edgekit.errors import ModelError
from edgekit.model import TorchModel


def layer_map(student_layers: int, teacher_layers: int, kept: Sequence[int] | None) -> tuple[int, ...]:
    """Return, for each layer of the student, the teacher's layer whose output it is to give.

    Layers that were kept while others were dropped also do the work of those dropped behind them: each learns
    from the last one before the next that was kept. Otherwise layer m of S learns from layer ⌈m·T/S⌉ of T,
    counted from 1: evenly spaced, the last from the last.

    Source: Jiao et al. 2020, arXiv:1909.10351 (TinyBERT): the uniform map g(m) = m·T/S, there for depths
    that divide.

    Args:
        student_layers: S.
        teacher_layers: T.
        kept: Which of the teacher's layers the student's were, ascending; None where it was made otherwise.

    Raises:
        ModelError: `kept` does not name as many layers of the teacher as the student has, in running order.
    """
    if kept is None:
        return tuple(
            -(-place * teacher_layers // student_layers) - 1 for place in range(1, student_layers + 1)
        )
    in_order = list(kept) == sorted(set(kept) & set(range(teacher_layers)))
    if len(kept) != student_layers or not in_order:
        raise ModelError(
            f"the student's {student_layers} layers cannot be layers {[*kept]} of the teacher's "
            f"{teacher_layers}, in running order",
            "Distil from the model that this student was made of.",
        )
    return tuple(following - 1 for following in (*kept[1:], teacher_layers))


@dataclass(frozen=True)
class Seen:
    """What chosen layers gave in one forward, by the layer's index, with its gradient.

    Attributes:
        hidden: Outputs [batch, sequence, width].
        queries: Outputs of the projections [batch, sequence, heads · dim], before norms or rotation of heads.
        keys: The same of keys, which may have fewer heads.
        values: And of values.
    """

    hidden: dict[int, torch.Tensor] = field(default_factory=dict)
    queries: dict[int, torch.Tensor] = field(default_factory=dict)
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)


class Watch:
    """Holds what was seen in the latest forward.

    Attributes:
        seen: Empty before the first.
    """

    def __init__(self) -> None:
        self.seen = Seen()


@contextmanager
def watched(model: TorchModel, layers: Sequence[int], *, hidden: bool, relations: bool) -> Iterator[Watch]:
    """Look at layers of a model while the block lasts.

    Args:
        model: Its own module is watched, not a copy of it.
        layers: Indices, from 0.
        hidden: Whether to hold the layers' outputs.
        relations: Whether to hold queries, keys and values.

    Yields:
        What each forward refills.

    Raises:
        ModelError: The architecture is unknown, or it has no such layer.
    """
    family, (_, blocks) = family_of(model), layer_list(model)
    missing = [index for index in layers if not 0 <= index < len(blocks)]
    if missing:
        raise ModelError(f"{model.name} has no layer {missing[0]}: its {len(blocks)} are counted from 0")
    watch = Watch()

    def empty(*_: Any) -> None:
        watch.seen = Seen()

    handles = [model.module.register_forward_pre_hook(empty)]
    for index in layers:
        if hidden:
            handles.append(blocks[index].register_forward_hook(_keeping(watch, index, ("hidden",))))
        names = ("queries", "keys", "values")
        parts = (names,) if len(family.qkv) == 1 else tuple((name,) for name in names)
        for part, kinds in zip(family.qkv, parts, strict=True) if relations else ():
            hook = _keeping(watch, index, kinds)
            handles.append(blocks[index].get_submodule(part).register_forward_hook(hook))
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def _keeping(watch: Watch, index: int, kinds: tuple[str, ...]) -> Callable[..., None]:
    """Return a hook that holds a part's output as what it is; one of several kinds is as wide for each."""

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        for kind, part in zip(kinds, first.chunk(len(kinds), dim=-1), strict=True):
            getattr(watch.seen, kind)[index] = part

    return hook


class Projections(nn.Module):
    """Bring the student's hidden states to the teacher's width, a matrix for each layer where they differ.

    They are trained along with the student and thrown away. Their rows or columns are orthogonal at first, so
    that the states keep their geometry, and so scaled that they keep their mean square.

    Source: Jiao et al. 2020, arXiv:1909.10351 (TinyBERT): a learned matrix without a bias, there one for all
    layers. The initialisation is our own.

    Args:
        widths: (student's, teacher's) for each matched layer.
        seed: Of the matrices.
    """

    def __init__(self, widths: Sequence[tuple[int, int]], *, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList()
        for own, wanted in widths:
            if own == wanted:
                self.layers.append(nn.Identity())
                continue
            # an initialisation of its own would draw from the global generator
            matrix = nn.utils.skip_init(nn.Linear, own, wanted, bias=False)
            nn.init.orthogonal_(matrix.weight, gain=max(1.0, wanted / own) ** 0.5, generator=generator)
            self.layers.append(matrix)

    def project(self, layer: int, states: torch.Tensor) -> torch.Tensor:
        """Return a layer's states at the teacher's width: [..., student's] → [..., teacher's], in fp32.

        Args:
            layer: Its place in `widths`.
            states: What the student's layer gave.
        """
        return self.layers[layer](states.float()).float()
