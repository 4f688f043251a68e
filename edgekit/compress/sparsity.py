"""Set weights to zero. ONNX Runtime multiplies with zeros as with anything: what shrinks is the download.

Zeros survive quantization: weights are quantized symmetrically, so 0 is code 0, and rounding that makes up
for errors moves a weight by less than a step.

Source: Frantar and Alistarh 2023, SparseGPT, arXiv:2301.00774; Sun et al. 2023, Wanda, arXiv:2306.11695;
Mishra et al. 2021, Accelerating Sparse Deep Neural Networks, arXiv:2104.08378 (two of four).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import torch

from edgekit.compress.anatomy import matrix_of, set_matrix
from edgekit.compress.base import Data, branch, finished, sizes
from edgekit.compress.matrices import Moments, blocks_of, features, matrices_of, moments, plain_name
from edgekit.compression import SparsityOptions
from edgekit.errors import RecipeError
from edgekit.model import TorchModel
from edgekit.record import Clock, Skip

_DAMPING = 0.01
"""Share of the inputs' mean energy that is added in every direction. Source: SparseGPT, section 4."""

_BLOCK = 32
"""Columns whose zeros SparseGPT chooses at once. The paper takes 128 of many thousand; at half of MiniLM's
weights the loss on held-out texts is 0.066 with 32 and 0.071 with 128."""

_LOOK_AT_INPUTS = ("wanda", "sparsegpt")


def sparsify(model: TorchModel, options: SparsityOptions, data: Data) -> TorchModel:
    """Return the model with a share of its layers' weights at zero.

    Raises:
        RecipeError: Two of each four are asked for, and a share that is not half.
        ModelError: The model has no matrices.
    """
    clock = Clock()
    if options.pattern == "2:4" and options.share != 0.5:
        raise RecipeError(
            f"[compress] sparsity.share = {options.share:g} does not go with pattern '2:4', which is half",
            "Set share = 0.5, or pattern = 'unstructured'.",
        )
    found = matrices_of(model)
    names, skipped = list(found.names), list(found.skipped)
    if options.pattern == "2:4":
        odd = [name for name in names if features(model.module.get_submodule(name))[0] % 4]
        skipped += [Skip(plain_name(name), "its inputs are no multiple of four") for name in odd]
        names = [name for name in names if name not in odd]
    sparse, done = _sparse(model, names, options, data)
    skipped += [Skip(plain_name(n), "it does not run on the data") for n in names if n not in done]
    loss, zeros = data.judge.loss(sparse), _zeros(sparse, done)
    before, after = deflated(model, done), deflated(sparse, done)
    ratio = after["int8_deflated_bytes"] / max(before["int8_deflated_bytes"], 1)
    record = clock.record(
        "compress",
        "sparsity",
        f"Set {zeros:.1%} of the weights of {len(done)} matrices to zero, loss {loss:.4f} against the "
        f"original: in int8 they deflate to {ratio:.2f} of what they did. ONNX Runtime runs no faster.",
        skipped=tuple(skipped),
        **sizes(model, sparse),
        method=options.method,
        pattern=options.pattern,
        zeros=zeros,
        loss=loss,
        matrices_before=before,
        matrices_after=after,
    )
    return finished(sparse, record)


def _sparse(
    model: TorchModel, names: Sequence[str], options: SparsityOptions, data: Data
) -> tuple[TorchModel, tuple[str, ...]]:
    """Return a branch with zeros, and the matrices that have them now."""
    looks = options.method in _LOOK_AT_INPUTS
    groups = blocks_of(model, names) if looks else (tuple(names),)
    generator = torch.Generator().manual_seed(data.seed)
    sparse, done = branch(model), []
    for index, group in enumerate(groups):
        data.progress("compress", f"sparsity: block {index + 1} of {len(groups)}", index / len(groups))
        # What the blocks before it have become is what a block gets to see.
        seen: dict[str, Moments] = moments(sparse, group, data.fit) if looks else {}
        for name in group:
            if looks and name not in seen:
                continue
            matrix = sparse.module.get_submodule(name)
            weight = matrix_of(matrix).double()
            if options.method == "sparsegpt":
                left = compensated(weight, seen[name].own, options)
            elif options.method == "wanda":
                left = pruned(weight, weight.abs() * seen[name].own.diagonal().sqrt(), options, by_row=True)
            elif options.method == "magnitude":
                left = pruned(weight, weight.abs(), options)
            else:
                left = pruned(weight, torch.rand(weight.shape, generator=generator), options)
            set_matrix(matrix, left.float())
            done.append(name)
    return sparse, tuple(done)


def pruned(
    weight: torch.Tensor, worth: torch.Tensor, options: SparsityOptions, *, by_row: bool = False
) -> torch.Tensor:
    """Return a matrix with its least worthy weights at zero.

    Args:
        weight: [out, in].
        worth: Of each weight, [out, in].
        options: The share and the pattern.
        by_row: Each output loses the same share; otherwise the matrix as a whole does.
    """
    return torch.where(least(worth, options, by_row=by_row), 0.0, weight)


def least(worth: torch.Tensor, options: SparsityOptions, *, by_row: bool = False) -> torch.Tensor:
    """Return which weights go, [out, in]: exactly so many, of equally worthy ones the first."""
    if options.pattern == "2:4":
        rows, number = worth.reshape(-1, 4), 2
    else:
        rows = worth if by_row else worth.reshape(1, -1)
        number = round(options.share * rows.shape[1])
    order = torch.argsort(rows, dim=1, stable=True)[:, :number]
    return torch.zeros(rows.shape, dtype=torch.bool).scatter_(1, order, True).reshape(worth.shape)


def compensated(weight: torch.Tensor, own: torch.Tensor, options: SparsityOptions) -> torch.Tensor:
    """Return a matrix with zeros, whose other weights make up for them on the inputs that it has.

    One column after the other is settled; what its zeros change in the outputs is made up for, as far as it
    can be, by the columns that come later.

    Args:
        weight: [out, in], float64.
        own: E[x·xᵀ] of the inputs, [in, in].
        options: The share and the pattern.
    """
    weight = weight.clone()
    damping = _DAMPING * (float(own.diagonal().mean()) or 1.0)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(own + damping * torch.eye(len(own)).double()))
    pull = torch.linalg.cholesky(inverse, upper=True)  # row i: what settling column i asks of later ones
    for start in range(0, weight.shape[1], _BLOCK):
        stop = min(start + _BLOCK, weight.shape[1])
        sway = pull.diagonal()[start:stop]
        here = weight[:, start:stop]  # a view: what is settled below is settled in `weight`
        gone = least(here.square() / sway.square(), options) if options.pattern == "unstructured" else None
        errors = torch.zeros_like(here)
        for column in range(stop - start):
            if options.pattern == "2:4" and column % 4 == 0:
                four = slice(column, column + 4)
                fours = least(here[:, four].square() / sway[four].square(), options)
            out = gone[:, column] if gone is not None else fours[:, column % 4]
            errors[:, column] = torch.where(out, here[:, column] / sway[column], 0.0)
            here[:, column:] -= errors[:, column, None] * pull[start + column, start + column : stop]
            here[:, column] = torch.where(out, 0.0, here[:, column])
        weight[:, stop:] -= errors @ pull[start:stop, stop:]
    return weight


def deflated(model: TorchModel, names: Sequence[str]) -> dict[str, Any]:
    """Return what matrices weigh, and weigh when deflated: as float32 and rounded to int8, row by row."""
    out = dict.fromkeys(("float32_bytes", "float32_deflated_bytes", "int8_bytes", "int8_deflated_bytes"), 0)
    for name in names:
        weight = matrix_of(model.module.get_submodule(name)).contiguous()
        scale = weight.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / 127
        codes = (weight / scale).round().to(torch.int8)
        for kind, values in (("float32", weight), ("int8", codes)):
            raw = values.numpy().tobytes()
            out[f"{kind}_bytes"] += len(raw)
            out[f"{kind}_deflated_bytes"] += len(zlib.compress(raw))
    return out


def _zeros(model: TorchModel, names: Sequence[str]) -> float:
    weights = [matrix_of(model.module.get_submodule(name)) for name in names]
    return sum(int((w == 0).sum()) for w in weights) / max(sum(w.numel() for w in weights), 1)
