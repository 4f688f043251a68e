"""One norm a layer: that behind attention goes, that at the layer's end stays.

    before: x₁ = norm(h), h = x + attention(x);  out = end(x₁ + ffn(x₁))
    after:  out = end(h + ffn(h))

What a norm does to the user's data is taken over as far as two linear maps can. The feed-forward block reads
D·h + c, the least squares fit of the norm channel by channel, which goes into its first matrix. The residual
path has no matrix: of it only one number d, for the norm at the end gives the same for d·h + z and h + z / d,
and 1 / d goes into the last matrix. Training does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from edgekit.compress.anatomy import Family, family_of, layer_list, matrix_of, set_matrix
from edgekit.compress.base import batches, branch, real_rows, sizes, watching
from edgekit.data import Sample
from edgekit.errors import ModelError
from edgekit.model import TorchModel
from edgekit.record import Clock
from edgekit.structure import LowRankLinear

_SMALLEST = 1e-3


def one_norm_a_layer(student: TorchModel, samples: Sequence[Sample]) -> TorchModel:
    """Return a student whose layers have one norm each.

    Args:
        student: A transformer with norms behind what they are for; the given one is left as it is.
        samples: What the norms are fitted on; without any, they are left out as they are.

    Raises:
        ModelError: Its architecture is unknown, or its norms stand before what they are for.
    """
    clock, out = Clock(), branch(student)
    family, (where, layers) = family_of(out), layer_list(out)
    if not family.inner_norm:
        kind = getattr(student.module.get_submodule("model").config, "model_type", "")
        raise ModelError(
            f"each norm of a {kind!r} layer stands before a block of its own, so none of them can go",
            "Leave [distill.changes] norms out; of BERT-like encoders one of two can go.",
        )
    going = {
        f"{where}.{index}.{family.inner_norm}": layer
        for index, layer in enumerate(layers)
        if not isinstance(layer.get_submodule(family.inner_norm), nn.Identity)
    }
    fits = _fits(student, list(going), samples) if samples else {}
    for name, layer in going.items():
        if name in fits:
            _take_over(layer, family, fits[name])
        layer.set_submodule(family.inner_norm, nn.Identity())
    did = f"{len(going)} of {2 * len(layers)} norms of the layers went"
    did += (
        f"; least squares over {len(samples):,} samples put into the matrices what they did" if fits else ""
    )
    record = clock.record("distill", "norms", did, **sizes(student, out), samples=len(samples))
    return replace(out, module=out.module.eval(), history=(*student.history, record))


@dataclass(frozen=True)
class _Fit:
    """The linear maps nearest to a norm: scale · h + shift by channel, and of one scale for all channels."""

    scale: torch.Tensor
    shift: torch.Tensor
    whole_scale: float
    whole_shift: torch.Tensor


@dataclass
class _Sums:
    """Sums over tokens of what enters a norm and what leaves it, float64 [channels] each."""

    count: int = 0
    h: torch.Tensor | float = 0.0
    y: torch.Tensor | float = 0.0
    hh: torch.Tensor | float = 0.0
    hy: torch.Tensor | float = 0.0

    def add(self, h: torch.Tensor, y: torch.Tensor) -> None:
        """Take in rows [tokens, channels]."""
        h, y = h.double(), y.double()
        self.count += len(h)
        self.h, self.y = self.h + h.sum(0), self.y + y.sum(0)
        self.hh, self.hy = self.hh + (h * h).sum(0), self.hy + (h * y).sum(0)

    def fit(self) -> _Fit:
        """Return the least squares fits of y to h."""
        h, y = torch.as_tensor(self.h) / self.count, torch.as_tensor(self.y) / self.count
        spread = (torch.as_tensor(self.hh) / self.count - h * h).clamp(min=torch.finfo(torch.float32).tiny)
        together = torch.as_tensor(self.hy) / self.count - h * y
        scale, whole = together / spread, max(float(together.sum() / spread.sum()), _SMALLEST)
        return _Fit(scale, y - scale * h, whole, y - whole * h)


def _fits(student: TorchModel, names: Sequence[str], samples: Sequence[Sample]) -> dict[str, _Fit]:
    """Return what each of the named norms is nearest to on the samples."""
    sums = {name: _Sums() for name in names}
    with torch.no_grad():
        for inputs in batches(student, samples):

            def see(
                name: str, h: torch.Tensor, y: torch.Tensor, inputs: dict[str, torch.Tensor] = inputs
            ) -> None:
                sums[name].add(real_rows(h, inputs), real_rows(y, inputs))

            with watching(student.module, names, see):
                student.module(**inputs)
    return {name: found.fit() for name, found in sums.items()}


def _take_over(layer: nn.Module, family: Family, fit: _Fit) -> None:
    """Put a norm's linear maps into the feed-forward block behind it."""
    for name in family.up:
        first, last = _ends(layer.get_submodule(name))
        old = matrix_of(first).double()
        through = old if first is last else matrix_of(last).double() @ old
        bias = _bias(last) + through @ fit.shift
        set_matrix(first, (old * fit.scale).float())
        set_matrix(last, matrix_of(last), bias.float())
    _, last = _ends(layer.get_submodule(family.down))
    bias = (_bias(last) + fit.whole_shift) / fit.whole_scale
    set_matrix(last, (matrix_of(last).double() / fit.whole_scale).float(), bias.float())


def _ends(block: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return the matrix that reads and the one that writes: the same where they are one."""
    return (block.down, block.up) if isinstance(block, LowRankLinear) else (block, block)


def _bias(matrix: nn.Module) -> torch.Tensor:
    return matrix.get_parameter("bias").detach().double()
