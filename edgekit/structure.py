"""What a module has become: the sizes in which it differs from what its configuration builds.

A configuration of transformers has one width for all layers; a pruned model has many. `difference` compares
a module with one that was freshly built, and `rebuild` makes the fresh one like it, so that the weights fit.
Any technique may change any size: nothing here knows what a head or a channel is.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.errors import ModelError
from edgekit.store import dump_json, write_text

FILE = "structure.json"
"""Lies beside `config.json` where the configuration alone does not tell the sizes."""

_SCHEMA = 1


class LowRankLinear(nn.Module):
    """Two matrices in the place of one: y = (x · downᵀ) · upᵀ + bias.

    Args:
        in_features: Width of what comes in.
        rank: Width between the two.
        out_features: Width of what goes out.
        bias: Whether something is added at the end.
    """

    def __init__(self, in_features: int, rank: int, out_features: int, *, bias: bool) -> None:
        super().__init__()
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in_features] → [..., out_features]."""
        return self.up(self.down(x))


class LowRankEmbedding(nn.Module):
    """A narrow table with a matrix that widens its rows.

    Args:
        num_embeddings: Rows of the table.
        rank: Width of the table.
        embedding_dim: Width of what goes out.
        padding_idx: The row of padding, or None.
    """

    def __init__(
        self, num_embeddings: int, rank: int, embedding_dim: int, padding_idx: int | None = None
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.table = nn.Embedding(num_embeddings, rank)
        self.up = nn.Linear(rank, embedding_dim, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [...] → [..., embedding_dim]."""
        return self.up(self.table(ids))


@dataclass(frozen=True)
class Structure:
    """How a module differs from what its configuration builds.

    Attributes:
        sizes: Module -> its whole-number attributes that differ, such as `out_features`.
        shapes: Parameter or buffer -> its shape, where it differs.
        low_rank: Module that is a `LowRankLinear` or `LowRankEmbedding` now -> its rank.
        absent: Norms that are gone: what enters them leaves them as it is.
    """

    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    low_rank: Mapping[str, int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """True where the configuration tells everything."""
        return not (self.sizes or self.shapes or self.low_rank or self.absent)

    def save(self, path: Path) -> None:
        """Write the structure as JSON."""
        document = {
            "schema_version": _SCHEMA,
            "sizes": {name: dict(values) for name, values in self.sizes.items()},
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "low_rank": dict(self.low_rank),
            "absent": list(self.absent),
        }
        write_text(path, dump_json(document))

    @classmethod
    def from_json(cls, document: Mapping[str, Any], where: str) -> Structure:
        """Read what `save` wrote.

        Raises:
            ModelError: It is of another version, or says something that no structure says.
        """
        if document.get("schema_version") != _SCHEMA:
            raise ModelError(f"{where}: schema {document.get('schema_version')!r} is not {_SCHEMA}")
        try:
            return cls(
                {str(n): {str(k): _size(v) for k, v in d.items()} for n, d in document["sizes"].items()},
                {str(n): tuple(map(_size, shape)) for n, shape in document["shapes"].items()},
                {str(n): _size(rank) for n, rank in document["low_rank"].items()},
                tuple(map(str, document.get("absent", ()))),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{where} is damaged: {type(error).__name__}: {error}") from None


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no size")
    return value


def difference(fresh: nn.Module, module: nn.Module) -> Structure:
    """Return how `module` differs from `fresh`, which its configuration builds.

    Args:
        fresh: Freshly built, on any device.
        module: The module as it is now.

    Raises:
        ModelError: They differ in more than sizes, low rank and norms, so that no file can tell it.
    """
    low_rank = {
        name: _rank(part)
        for name, part in module.named_modules()
        if isinstance(part, (LowRankLinear, LowRankEmbedding)) and not _is_low_rank(fresh, name)
    }
    rebuilt = copy.deepcopy(fresh)
    for name, rank in low_rank.items():
        _replace(rebuilt, name, rank, module.get_submodule(name))
    before, after = dict(rebuilt.named_modules()), dict(module.named_modules())
    absent = tuple(n for n, part in after.items() if type(part) is nn.Identity and _is_norm(before.get(n)))
    for name in absent:
        rebuilt.set_submodule(name, nn.Identity())
        before[name] = rebuilt.get_submodule(name)
    odd = sorted(before.keys() ^ after.keys())
    if odd:
        raise ModelError(f"the module has other parts than its configuration says, e.g. {odd[0]!r}")
    sizes = {}
    for name, part in after.items():
        old = vars(before[name])
        new = {key: v for key, v in vars(part).items() if _counts(key, v) and old.get(key) != v}
        if new:
            sizes[name] = new
    fresh_shapes = {name: tuple(t.shape) for name, t in _tensors(rebuilt).items()}
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in _tensors(module).items()
        if fresh_shapes.get(name) != tuple(tensor.shape)
    }
    return Structure(sizes, shapes, low_rank, absent)


def rebuild(fresh: nn.Module, structure: Structure, where: str) -> None:
    """Make a freshly built module like the one that a structure was taken from; its weights are not set.

    Args:
        fresh: The module, changed in place.
        structure: What differs.
        where: The file that said so, for errors.

    Raises:
        ModelError: The structure names a part that the module does not have.
    """
    parts = dict(fresh.named_modules())
    for name, rank in structure.low_rank.items():
        if not (isinstance(parts.get(name), (nn.Linear, nn.Embedding)) or is_conv1d(parts.get(name))):
            raise ModelError(f"{where} names {name!r}, which is no matrix or table of this model")
        _replace(fresh, name, rank, parts[name])
        device = next(parts[name].parameters()).device
        fresh.get_submodule(name).to_empty(device=device)
    parts = dict(fresh.named_modules())
    for name in structure.absent:
        if not _is_norm(parts.get(name)):
            raise ModelError(f"{where} names {name!r}, which is no norm of this model")
        fresh.set_submodule(name, nn.Identity())
    parts = dict(fresh.named_modules())
    for name, values in structure.sizes.items():
        for key, value in values.items():
            if name not in parts or not _counts(key, vars(parts[name]).get(key)):
                raise ModelError(f"{where} names the size {name}.{key}, which this model does not have")
            setattr(parts[name], key, value)
    tensors = _tensors(fresh)
    for name, shape in structure.shapes.items():
        if name not in tensors:
            raise ModelError(f"{where} names the weight {name!r}, which this model does not have")
        path, _, leaf = name.rpartition(".")
        old = tensors[name]
        new = torch.empty(shape, dtype=old.dtype, device=old.device)
        owner = parts[path]
        if leaf in owner._parameters:
            owner._parameters[leaf] = nn.Parameter(new, requires_grad=old.requires_grad)
        else:
            owner._buffers[leaf] = new


def _is_norm(part: nn.Module | None) -> bool:
    """Return whether a part is a LayerNorm or RMSNorm, whatever the library calls it."""
    return type(part).__name__.endswith("Norm")


def _counts(key: str, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and not key.startswith("__")


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and those buffers that are saved."""
    return dict(module.state_dict(keep_vars=True))


def _is_low_rank(module: nn.Module, name: str) -> bool:
    return isinstance(dict(module.named_modules()).get(name), (LowRankLinear, LowRankEmbedding))


def is_conv1d(part: nn.Module | None) -> bool:
    """Return whether a part is the matrix product of transformers' GPT-2, whose weight is [in, out]."""
    return type(part).__name__ == "Conv1D"


def _rank(part: nn.Module) -> int:
    table = part.table if isinstance(part, LowRankEmbedding) else part.up
    return int(table.embedding_dim if isinstance(part, LowRankEmbedding) else table.in_features)


def _replace(root: nn.Module, name: str, rank: int, like: nn.Module) -> None:
    """Put a low-rank pair, without values, in the place of a matrix or table."""
    with torch.device("meta"):
        if isinstance(like, (nn.Embedding, LowRankEmbedding)):
            new: nn.Module = LowRankEmbedding(like.num_embeddings, rank, like.embedding_dim, like.padding_idx)
        elif isinstance(like, LowRankLinear):
            bias = like.up.bias is not None
            new = LowRankLinear(like.down.in_features, rank, like.up.out_features, bias=bias)
        elif is_conv1d(like):
            wide, out = like.get_parameter("weight").shape
            new = LowRankLinear(wide, rank, out, bias=True)
        else:
            assert isinstance(like, nn.Linear)
            new = LowRankLinear(like.in_features, rank, like.out_features, bias=like.bias is not None)
    root.set_submodule(name, new)
