"""Drop whole layers: each layer adds to what runs through the model, so the others work without some.

Which ones is found by trying: all subsets where they are few; otherwise one layer goes at a time, the one
without which the outputs change least among those that change least what runs through them.

Source: Sajjad et al. 2023, On the Effect of Dropping Layers of Pre-trained Transformer Models,
arXiv:2004.03844; Men et al. 2024, ShortGPT, arXiv:2403.03853 (block influence).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
from torch import nn

from edgekit.compress.anatomy import family_of, layer_list, layers_of, per_layer
from edgekit.compress.base import (
    Data,
    batches,
    branch,
    finished,
    real_rows,
    sizes,
    watching,
)
from edgekit.compress.heal import heal
from edgekit.compress.judge import Judge
from edgekit.compression import LayerOptions
from edgekit.data import Sample
from edgekit.errors import ModelError, RecipeError
from edgekit.model import TorchModel
from edgekit.record import Clock, Skip

ALL_SUBSETS = 500
"""Most subsets that are all tried: 4 of 12 are 495."""

_CLOSELY = 32
"""Candidates that are judged on all samples; more than that are first sifted on as many samples."""

_LEAST_INFLUENCE = 4
"""Layers that greedy removal tries at each step."""

_SHOWN = 5

_INDICES = ("layer_idx", "layer_id")
"""Attributes in which a layer's parts hold its place."""


@dataclass(frozen=True)
class Candidate:
    """Some of the layers, and how far the outputs are from the original's with these alone.

    Attributes:
        kept: Indices of the layers, ascending.
        loss: The judge's.
    """

    kept: tuple[int, ...]
    loss: float

    def to_json(self) -> dict[str, Any]:
        """Return the candidate as JSON values."""
        return {"kept": list(self.kept), "loss": self.loss}


def drop_layers(model: TorchModel, options: LayerOptions, data: Data) -> TorchModel:
    """Return the model with some of its layers only.

    Raises:
        RecipeError: So many layers, or these, cannot be kept.
        ModelError: The architecture is unknown, or its layers cannot do without each other.
    """
    clock = Clock()
    fixed = _fixed(model)
    count = len(layers_of(model))
    number = _number(options, count, fixed)
    control = every_kth(count, number)
    facts: dict[str, Any] = {}
    if isinstance(options.keep, tuple):
        kept = options.keep
    elif options.choose == "similarity":
        kept, facts = _most_similar(model, number, fixed, data)
    elif options.choose == "influence":
        kept, facts = _least_influence_out(model, number, fixed, data)
    elif options.choose == "random":
        generator = torch.Generator().manual_seed(data.seed)
        drawn = fixed + torch.randperm(count - fixed, generator=generator)[: number - fixed]
        kept = (*range(fixed), *sorted(drawn.tolist()))
    else:
        kept = tuple(range(number)) if options.choose == "first" else control
    smaller = with_layers(model, kept)
    loss, control_loss = data.judge.loss(smaller), data.judge.loss(with_layers(model, control))
    chosen = "given" if isinstance(options.keep, tuple) else options.choose
    said, skipped = f"loss {loss:.4f} against the original", tuple[Skip, ...]()
    if options.repair and number < count:
        healed = heal(model, smaller, kept, data)
        smaller, skipped = healed.model, healed.skipped
        facts |= {"loss_dropped": loss, "fits": list(healed.fits)}
        said, loss = f"{said}, {healed.loss:.4f} after repair", healed.loss
    record = clock.record(
        "compress",
        "layers",
        f"Kept {number} of {count} layers ({_listed(kept)}): {said}; "
        f"with {_listed(control)}, which are evenly spaced, it is {control_loss:.4f} without repair.",
        skipped=(Skip("layer 0", "it is built without a norm of its own, so it stays the first"),) * fixed
        + skipped,
        **sizes(model, smaller),
        layers_before=count,
        layers_after=number,
        kept=list(kept),
        choose=chosen,
        loss=loss,
        every_kth=Candidate(control, control_loss).to_json(),
        **facts,
    )
    return finished(smaller, record)


def with_layers(model: TorchModel, kept: Sequence[int]) -> TorchModel:
    """Return a branch of the model that has some of the layers only, and whose configuration says so.

    Args:
        model: The model.
        kept: Indices of the layers that stay, ascending.
    """
    smaller = branch(model)
    family, (name, blocks) = family_of(smaller), layer_list(smaller)
    config: Any = smaller.module.get_submodule("model").config
    for key, entries in per_layer(config, len(blocks)).items():
        setattr(config, key, type(entries)(entries[index] for index in kept))
    setattr(config, family.depth, len(kept))
    owner = smaller.module.get_submodule(name.rpartition(".")[0])
    if family.depth in vars(owner):  # DistilBERT
        setattr(owner, family.depth, len(kept))
    for place, index in enumerate(kept):
        for part in blocks[index].modules():
            for key in _INDICES:
                if vars(part).get(key) == index:
                    setattr(part, key, place)
    smaller.module.set_submodule(name, nn.ModuleList(blocks[index] for index in kept))
    return smaller


def every_kth(count: int, number: int) -> tuple[int, ...]:
    """Return so many indices below `count`, evenly spaced from 0: the control."""
    return tuple(index * count // number for index in range(number))


def influences(model: TorchModel, samples: Sequence[Sample]) -> list[float]:
    """Return how much each layer changes what runs through it: 1 - E cos(before, after), over all tokens."""
    name, blocks = layer_list(model)
    names = [f"{name}.{index}" for index in range(len(blocks))]
    totals, tokens = dict.fromkeys(names, 0.0), 0
    for inputs in batches(model, samples):
        seen: dict[str, torch.Tensor] = {}

        def see(layer: str, before: torch.Tensor, after: torch.Tensor, seen: dict[str, Any] = seen) -> None:
            seen[layer] = torch.cosine_similarity(before.double(), after.double(), dim=-1)[..., None]

        with torch.no_grad(), watching(model.module, names, see):
            model.module(**inputs)
        for layer in names:
            cosines = real_rows(seen[layer], inputs)
            totals[layer] += float((1 - cosines).sum())
        tokens += len(cosines)
    return [totals[layer] / tokens for layer in names]


def _fixed(model: TorchModel) -> int:
    """Return how many of the first layers cannot go."""
    layers = layers_of(model)
    if getattr(layers[0].part(layers[0].family.attention), "scale_attn_by_inverse_layer_idx", False):
        raise ModelError(
            f"{model.name}: each layer scales its attention by its own place, so none can be dropped",
            "Leave [compress] layers out; widths can be pruned.",
        )
    return int(isinstance(getattr(layers[0].module, "attn_norm", None), nn.Identity))  # ModernBERT


def _number(options: LayerOptions, count: int, fixed: int) -> int:
    keep = options.keep
    if isinstance(keep, int):
        if keep > count:
            raise RecipeError(f"[compress] layers.keep = {keep}: the model has {count} layers")
        return keep
    if not keep or list(keep) != sorted(set(keep)) or keep[-1] >= count:
        raise RecipeError(
            f"[compress] layers.keep = {list(keep)} does not name layers of this model",
            f"Name at least one of 0 to {count - 1}, each once, in ascending order.",
        )
    if fixed and keep[0] != 0:
        raise RecipeError(
            f"[compress] layers.keep = {list(keep)}: layer 0 has to stay the first",
            "This architecture builds it with no norm of its own: begin the list with 0.",
        )
    return len(keep)


def _most_similar(
    model: TorchModel, number: int, fixed: int, data: Data
) -> tuple[tuple[int, ...], dict[str, Any]]:
    count = len(layers_of(model))
    facts: dict[str, Any] = {}
    if math.comb(count - fixed, number - fixed) <= ALL_SUBSETS:
        subsets = [(*range(fixed), *rest) for rest in combinations(range(fixed, count), number - fixed)]
        facts["search"] = "all subsets"
    else:
        subsets = [_greedy(model, number, fixed, data), every_kth(count, number)]
        facts["search"] = f"greedy, of the {_LEAST_INFLUENCE} layers of least influence at each step"
    first = subsets
    if len(subsets) > _CLOSELY:
        sifted = _judged(model, subsets, _part(data.judge), data)
        first = [candidate.kept for candidate in sifted[:_CLOSELY]]
    judged = _judged(model, first, data.judge, data)
    facts["subsets"] = len(subsets)
    facts["best"] = [candidate.to_json() for candidate in judged[:_SHOWN]]
    if facts["search"] == "all subsets" and len(first) == len(subsets):
        facts["random_mean_loss"] = sum(candidate.loss for candidate in judged) / len(judged)
    return judged[0].kept, facts


def _greedy(model: TorchModel, number: int, fixed: int, data: Data) -> tuple[int, ...]:
    kept = tuple(range(len(layers_of(model))))
    while len(kept) > number:
        measured = influences(with_layers(model, kept), data.fit[: 2 * _CLOSELY])
        least = sorted(range(fixed, len(kept)), key=measured.__getitem__)[:_LEAST_INFLUENCE]
        subsets = [kept[:place] + kept[place + 1 :] for place in least]
        kept = _judged(model, subsets, _part(data.judge), data)[0].kept
    return kept


def _least_influence_out(
    model: TorchModel, number: int, fixed: int, data: Data
) -> tuple[tuple[int, ...], dict[str, Any]]:
    kept = tuple(range(len(layers_of(model))))
    at_first = influences(model, data.fit)
    measured = at_first
    while len(kept) > number:
        out = min(range(fixed, len(kept)), key=measured.__getitem__)
        kept = kept[:out] + kept[out + 1 :]
        measured = influences(with_layers(model, kept), data.fit)
    return kept, {"influences": at_first}


def _judged(
    model: TorchModel, subsets: Iterable[tuple[int, ...]], judge: Judge, data: Data
) -> list[Candidate]:
    """Return the subsets with their losses, the lowest loss first."""
    found, wanted = [], list(dict.fromkeys(subsets))
    for index, kept in enumerate(wanted):
        data.progress("compress", f"layers: subset {index + 1} of {len(wanted)}", index / len(wanted))
        found.append(Candidate(kept, judge.loss(with_layers(model, kept))))
    return sorted(found, key=lambda candidate: (candidate.loss, candidate.kept))


def _listed(kept: Sequence[int]) -> str:
    return ", ".join(map(str, kept))


def _part(judge: Judge) -> Judge:
    return replace(judge, samples=judge.samples[:_CLOSELY], reference=judge.reference[:_CLOSELY])
