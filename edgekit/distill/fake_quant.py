"""Modules that compute in float what a target's 8-bit kernels will compute in codes, and still learn.

What is rounded forwards passes its gradient as if it had not been, and none where it was cut off. Scales of
weights and of rows follow them at every step, as the quantizer takes them; those of activations and of 4-bit
blocks are given and stay.

Source: Jacob et al. 2018, arXiv:1712.05877, section 3 (training with simulated quantization); Bengio et al.
2013, arXiv:1308.3432 (the straight-through estimator).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edgekit.model import TorchModel

_LARGEST = 127.0
_TINY = float(np.finfo(np.float32).tiny)
_HALF = torch.finfo(torch.float16)


@dataclass(frozen=True)
class InputCodes:
    """Codes of what a matrix product reads, and how its weight is rounded.

    Attributes:
        scale: real = scale * (code - zero_point).
        zero_point: Within the codes.
        lowest: Lowest code.
        highest: Highest code.
        saturation_safe: The weight's codes cannot overflow 16-bit lanes.
    """

    scale: float
    zero_point: int
    lowest: int
    highest: int
    saturation_safe: bool


@dataclass(frozen=True)
class BlockScales:
    """Codes of a table's blocks in 4 bits.

    Attributes:
        size: Columns of a block.
        scale: float32 [rows, blocks].
        zero_point: 0 to 15, [rows, blocks].
    """

    size: int
    scale: np.ndarray
    zero_point: np.ndarray


class _Round(torch.autograd.Function):
    """x → scale · (clip(rint(x / scale) + zero) - zero); the gradient passes where nothing is clipped."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, lowest: int, highest: int
    ) -> torch.Tensor:
        codes = torch.round(x.float() / scale).add_(zero)
        ctx.save_for_backward((codes >= lowest) & (codes <= highest))
        return codes.clamp_(lowest, highest).sub_(zero).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None, None, None


def rounded(
    x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, lowest: int, highest: int
) -> torch.Tensor:
    """Return the real values of x's codes, elementwise.

    Args:
        x: Any shape.
        scale: Broadcasts to it, as does `zero`.
        zero: Zero point.
        lowest: Lowest code.
        highest: Highest code.

    Returns:
        float32 of x's shape, with gradient 1 where the code lies between the two and 0 elsewhere.
    """
    return _Round.apply(x, scale, zero, lowest, highest)


@torch.no_grad()
def weight_scale(weight: torch.Tensor, *, saturation_safe: bool) -> torch.Tensor:
    """Return the scale of each output channel: [channels, K] → float32 [channels, 1].

    The same numbers, to the bit, as `edgekit.quantize.schemes.quantize_product_weight` takes per channel.
    That room is above this one, and a GPU is not to wait for numpy at every step.
    """
    weight = weight.float()
    peak = weight.abs().amax(-1)
    # A divisor on the same device: PyTorch multiplies by the inverse of one that is a Python number.
    largest = torch.full_like(peak, _LARGEST)
    scale = torch.where(peak > _TINY * _LARGEST, peak / largest, torch.ones_like(peak))
    if saturation_safe:
        pairs = functional.pad(weight, (0, weight.shape[-1] % 2)).unflatten(-1, (-1, 2))
        sums = torch.maximum(pairs.clamp_min(0).sum(-1), pairs.neg().clamp_min(0).sum(-1)).amax(-1)
        scale = torch.maximum(scale, sums / largest)
    half = scale.half()
    next_half = (half.view(torch.int16) + 1).view(torch.float16)
    half = torch.where(half.float() < scale, next_half, half)
    normal = (half >= _HALF.tiny) & half.isfinite()
    return torch.where(normal, half.float(), scale).unsqueeze(-1)


class CodedLinear(nn.Linear):
    """A matrix product on 8-bit codes: [..., in_features] → [..., out_features]."""

    step: torch.Tensor
    zero: torch.Tensor

    @classmethod
    def of(cls, part: nn.Linear, codes: InputCodes) -> CodedLinear:
        """Return a part with the same weights."""
        with torch.device("meta"):
            new = cls(part.in_features, part.out_features, bias=part.bias is not None)
        new.weight, new.bias = part.weight, part.bias
        new.register_buffer("step", torch.tensor(codes.scale, dtype=torch.float32))
        new.register_buffer("zero", torch.tensor(float(codes.zero_point)))
        new.lowest, new.highest = codes.lowest, codes.highest
        new.saturation_safe = codes.saturation_safe
        return new

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply what the codes stand for."""
        read = rounded(x, self.step, self.zero, int(self.lowest), int(self.highest))
        scale = weight_scale(self.weight, saturation_safe=bool(self.saturation_safe))
        weight = rounded(self.weight, scale, torch.zeros_like(scale), -127, 127)
        return functional.linear(read, weight, self.bias)


class CodedEmbedding(nn.Embedding):
    """A table in 8 bits with a scale per row, or in 4 with one per block: ids [...] → [..., columns]."""

    @classmethod
    def of(cls, part: nn.Embedding, blocks: BlockScales | None) -> CodedEmbedding:
        """Return a part with the same rows; 8 bits where no blocks are given."""
        with torch.device("meta"):
            new = cls(part.num_embeddings, part.embedding_dim, padding_idx=part.padding_idx)
        new.weight = part.weight
        new.block = blocks.size if blocks is not None else 0
        if blocks is not None:
            new.register_buffer("scale", torch.from_numpy(blocks.scale.astype(np.float32)))
            new.register_buffer("zero", torch.from_numpy(blocks.zero_point.astype(np.uint8)))
        return new

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the rows as their codes give them back."""
        rows, block = super().forward(ids), int(self.block)
        if not block:
            scale = weight_scale(rows, saturation_safe=False)
            return rounded(rows, scale, torch.zeros_like(scale), -127, 127)
        scale, zero = self.get_buffer("scale")[ids], self.get_buffer("zero")[ids].float()
        scale, zero = (v.repeat_interleave(block, -1)[..., : rows.shape[-1]] for v in (scale, zero))
        return rounded(rows, scale, zero, 0, 15)


def with_codes(
    model: TorchModel, products: Mapping[str, InputCodes], tables: Mapping[str, BlockScales | None]
) -> TorchModel:
    """Return a copy of a model that computes in codes.

    Args:
        model: Left as it is.
        products: Path of an `nn.Linear` -> its codes.
        tables: Path of an `nn.Embedding` -> its blocks; None for 8 bits.
    """
    module = copy.deepcopy(model.module)
    for path, codes in products.items():
        part: Any = module.get_submodule(path)
        module.set_submodule(path, CodedLinear.of(part, codes))
    for path, blocks in tables.items():
        part = module.get_submodule(path)
        module.set_submodule(path, CodedEmbedding.of(part, blocks))
    return replace(model, module=module.eval())


def without_codes(coded: TorchModel, plain: TorchModel) -> TorchModel:
    """Return the trained weights in a copy of the model as it was before `with_codes`."""
    module = copy.deepcopy(plain.module)
    names = module.state_dict().keys()
    module.load_state_dict(
        {name: value for name, value in coded.module.state_dict().items() if name in names}
    )
    return replace(plain, module=module)
