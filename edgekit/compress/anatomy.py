"""Where the layers, heads and feed-forward blocks of a transformer are: one entry per family.

A new architecture is a new entry in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgekit.errors import ModelError
from edgekit.model import TorchModel
from edgekit.structure import is_conv1d

_PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")
"""Keys of a configuration that hold an entry for each layer."""


@dataclass(frozen=True)
class Family:
    """Names of the parts of an architecture, as transformers has them.

    Attributes:
        layers: The list of layers, below the model without its head.
        attention: The part of a layer that holds the sizes of attention.
        qkv: The projections into queries, keys and values; one name where they are one matrix, in that order.
        output: The projection behind attention.
        up: The projections into the feed-forward block; two where one is a gate.
        down: The projection out of it.
        depth: Key of the configuration that counts layers.
        width: Key of the configuration that counts a block's neurons; empty where it does not.
        head_sizes: Attributes of `attention` that grow with the heads -> how much each head adds; -1 stands
            for the width of a head.
        gate_in_up: The one matrix in `up` holds value and gate, one after the other.
        norm: The norm that ends a layer; empty where norms stand before what they are for.
        inner_norm: Where `norm` stands at the end: the other norm of a layer, behind attention.
        fixed_heads: Why single heads cannot be removed; empty where they can.
    """

    layers: str
    attention: str
    qkv: tuple[str, ...]
    output: str
    up: tuple[str, ...]
    down: str
    depth: str = "num_hidden_layers"
    width: str = "intermediate_size"
    head_sizes: tuple[tuple[str, int], ...] = ()
    gate_in_up: bool = False
    norm: str = ""
    inner_norm: str = ""
    fixed_heads: str = ""


_BERT = Family(
    "encoder.layer",
    "attention.self",
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output.dense",
    ("intermediate.dense",),
    "output.dense",
    head_sizes=(("num_attention_heads", 1), ("all_head_size", -1)),
    norm="output.LayerNorm",
    inner_norm="attention.output.LayerNorm",
)
_LLAMA = Family(
    "layers",
    "self_attn",
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj",
    ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj",
)
_VIT = Family(
    "layers",
    "attention",
    ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attention.o_proj",
    ("mlp.fc1",),
    "mlp.fc2",
    head_sizes=(("num_attention_heads", 1),),
)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "distilbert": Family(
        "transformer.layer",
        "attention",
        ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "attention.out_lin",
        ("ffn.lin1",),
        "ffn.lin2",
        depth="n_layers",
        width="hidden_dim",
        head_sizes=(("n_heads", 1), ("dim", -1)),
        norm="output_layer_norm",
        inner_norm="sa_layer_norm",
    ),
    "mpnet": Family(
        "encoder.layer",
        "attention.attn",
        ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        "attention.attn.o",
        ("intermediate.dense",),
        "output.dense",
        norm="output.LayerNorm",
        inner_norm="attention.LayerNorm",
        fixed_heads="all layers share one table of position biases, with a column for each head",
    ),
    "modernbert": Family(
        "layers",
        "attn",
        ("attn.Wqkv",),
        "attn.Wo",
        ("mlp.Wi",),
        "mlp.Wo",
        gate_in_up=True,
    ),
    "vit": _VIT,
    "deit": _VIT,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gpt2": Family(
        "h",
        "attn",
        ("attn.c_attn",),
        "attn.c_proj",
        ("mlp.c_fc",),
        "mlp.c_proj",
        depth="n_layer",
        width="n_inner",
        head_sizes=(("num_heads", 1), ("split_size", -1)),
    ),
}
"""`model_type` of a configuration -> where its parts are."""


@dataclass(frozen=True)
class Layer:
    """One layer of a loaded model.

    Attributes:
        index: Its place, from 0.
        name: Its name below the wrapped module, `model.encoder.layer.0`.
        module: The layer.
        family: Where its parts are.
        heads: Attention heads for queries.
        kv_heads: Heads for keys and values; fewer where queries share them.
        head_dim: Width of a head.
        neurons: Of the feed-forward block.
    """

    index: int
    name: str
    module: nn.Module
    family: Family
    heads: int
    kv_heads: int
    head_dim: int
    neurons: int

    def part(self, name: str) -> nn.Module:
        """Return a part by its name in the family."""
        return self.module.get_submodule(name)

    def full(self, name: str) -> str:
        """Return a part's name below the wrapped module."""
        return f"{self.name}.{name}"


def family_of(model: TorchModel) -> Family:
    """Return where the parts of a model are.

    Raises:
        ModelError: Its architecture is none that edgekit knows from inside.
    """
    kind = getattr(getattr(_inner(model), "config", None), "model_type", None)
    if kind not in FAMILIES:
        raise ModelError(
            f"the layers of {f'a {kind!r} model' if kind else 'this module'} are not known to edgekit",
            f"Layers and widths can be changed in: {', '.join(sorted(FAMILIES))}.",
        )
    return FAMILIES[kind]


def layers_of(model: TorchModel) -> tuple[Layer, ...]:
    """Return the layers of a model, in running order.

    Raises:
        ModelError: Its architecture is unknown, or a layer is not as its family says.
    """
    family = family_of(model)
    name, blocks = layer_list(model)
    return tuple(_layer(index, f"{name}.{index}", block, family) for index, block in enumerate(blocks))


def layer_list(model: TorchModel) -> tuple[str, nn.ModuleList]:
    """Return the list of layers with its name below the wrapped module."""
    family, inner = family_of(model), _inner(model)
    base = inner.base_model
    prefix = "" if base is inner else f"{inner.base_model_prefix}."
    return f"model.{prefix}{family.layers}", base.get_submodule(family.layers)


def per_layer(config: Any, layers: int) -> dict[str, list[Any] | tuple[Any, ...]]:
    """Return what of a configuration has an entry for each of so many layers, by key."""
    found = {key: getattr(config, key, None) for key in _PER_LAYER}
    return {
        key: entries
        for key, entries in found.items()
        if isinstance(entries, (list, tuple)) and len(entries) == layers
    }


def _inner(model: TorchModel) -> Any:
    return model.module.get_submodule("model")


def _layer(index: int, name: str, block: nn.Module, family: Family) -> Layer:
    attention = block.get_submodule(family.attention)
    head_dim = getattr(attention, "head_dim", None) or getattr(attention, "attention_head_size", None)
    _, wide = _features(block.get_submodule(family.output))[::-1]
    if head_dim is None:  # DistilBERT keeps the number of heads alone
        head_dim = wide // attention.n_heads
    heads = wide // head_dim
    if len(family.qkv) == 3:
        kv_heads = _features(block.get_submodule(family.qkv[1]))[1] // head_dim
    else:
        kv_heads = heads
    neurons = _features(block.get_submodule(family.down))[0]
    if heads * head_dim != wide:
        raise ModelError(f"{name}: {wide} columns are no multiple of the head width {head_dim}")
    return Layer(index, name, block, family, heads, kv_heads, int(head_dim), neurons)


def _features(matrix: nn.Module) -> tuple[int, int]:
    """Return (in, out) of a matrix product."""
    if isinstance(matrix, nn.Linear):
        return matrix.in_features, matrix.out_features
    if not is_conv1d(matrix):
        raise ModelError(f"a {type(matrix).__name__} is no matrix product that edgekit can change")
    weight = matrix.get_parameter("weight")
    return int(weight.shape[0]), int(weight.shape[1])


def is_matrix(module: nn.Module) -> bool:
    """Return whether a module is a matrix product: `nn.Linear`, or transformers' `Conv1D`."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def matrix_of(module: nn.Module) -> torch.Tensor:
    """Return the weights of a matrix product as [out, in]."""
    weight = module.get_parameter("weight").detach()
    return weight if isinstance(module, nn.Linear) else weight.T


def set_matrix(module: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
    """Give a matrix product new weights [out, in], and a new bias where one is given; sizes follow.

    The old parameters are left as they are: another model may share them.
    """
    stored = weight if isinstance(module, nn.Linear) else weight.T
    module.weight = nn.Parameter(stored.contiguous().clone(), requires_grad=False)
    if bias is not None:
        module.bias = nn.Parameter(bias.contiguous().clone(), requires_grad=False)
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    else:
        module.nx, module.nf = stored.shape


def keep_outputs(module: nn.Module, kept: Sequence[int] | torch.Tensor) -> None:
    """Keep some outputs of a matrix product, in the order given."""
    index = torch.as_tensor(kept)
    bias = getattr(module, "bias", None)
    set_matrix(module, matrix_of(module)[index], None if bias is None else bias.detach()[index])


def keep_inputs(module: nn.Module, kept: Sequence[int] | torch.Tensor) -> None:
    """Keep some inputs of a matrix product, in the order given."""
    set_matrix(module, matrix_of(module)[:, torch.as_tensor(kept)])


def keep_neurons(layer: Layer, kept: Sequence[int] | torch.Tensor) -> None:
    """Keep some neurons of a feed-forward block; a gate loses the same ones."""
    index = torch.as_tensor(kept)
    for name in layer.family.up:
        both = torch.cat([index, index + layer.neurons]) if layer.family.gate_in_up else index
        keep_outputs(layer.part(name), both)
    keep_inputs(layer.part(layer.family.down), index)
    for owner in (layer.part(layer.family.down.rpartition(".")[0]), layer.module):
        if "intermediate_size" in vars(owner):
            owner.intermediate_size = len(index)


def keep_heads(layer: Layer, kept: Sequence[int]) -> None:
    """Keep some attention heads; where queries share keys and values, some groups of them.

    Args:
        layer: The layer, on a branch of the model.
        kept: Indices of key-value heads, which are the query heads where none are shared.
    """
    dim, share = layer.head_dim, layer.heads // layer.kv_heads
    kv = torch.cat([torch.arange(head * dim, (head + 1) * dim) for head in kept])
    query = torch.cat([torch.arange(head * share * dim, (head + 1) * share * dim) for head in kept])
    names = layer.family.qkv
    if len(names) == 1:
        wide = layer.heads * dim
        keep_outputs(layer.part(names[0]), torch.cat([query, kv + wide, kv + 2 * wide]))
    else:
        for name, index in zip(names, (query, kv, kv), strict=True):
            keep_outputs(layer.part(name), index)
    keep_inputs(layer.part(layer.family.output), query)
    attention = layer.part(layer.family.attention)
    for name, each in layer.family.head_sizes:
        setattr(attention, name, len(kept) * share * (dim if each < 0 else each))
