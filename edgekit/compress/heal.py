"""Let the layers that stay do the work of those that went: least squares, layer by layer, without training.

A layer before dropped ones is fitted to give what the last of those gave: its last matrix is fitted anew, and
where a norm stands at the end of the layers, it takes over that one's. Every layer also makes up for the
distance that has built up before it, as after pruning (`edgekit.compress.repair`, target `stream`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from edgekit.compress.anatomy import Layer, layers_of
from edgekit.compress.base import Data, branch
from edgekit.compress.importance import parts_of
from edgekit.compress.least_squares import affine, set_affine, solve
from edgekit.compress.repair import Repaired
from edgekit.compress.walk import accumulate, walks_of
from edgekit.model import TorchModel
from edgekit.record import Fact, Skip


def heal(original: TorchModel, smaller: TorchModel, kept: Sequence[int], data: Data) -> Repaired:
    """Fit the layers that stay.

    Args:
        original: The model with all its layers.
        smaller: The same with some of them; the given one is not changed.
        kept: Which of the original's layers those are, ascending.
        data: Samples to fit, and the judge.
    """
    layers, wanted = layers_of(original), parts_of(original)
    walks, at = walks_of(original, data, 0), 0
    loss = data.judge.loss(smaller)
    fits: list[dict[str, Fact]] = []
    skipped: list[Skip] = []
    for place, own in enumerate(kept):
        data.progress("compress", f"fitting layer {place + 1} of {len(kept)}", place / len(kept))
        last = (*kept, len(layers))[place + 1] - 1
        for kind, like in (("heads", own), ("ffn", last)):
            for index in range(at, like):
                for walk in walks:
                    walk.original = walk.run(layers[index].module, walk.original, index)
            at = max(at, like)
            part = next(p for p in parts_of(smaller) if p.layer.index == place and p.kind == kind)
            goal = next(p for p in wanted if p.layer.index == like and p.kind == kind)
            sums = accumulate(goal, part, walks, own)
            fitted = _with_norm(smaller, place, layers[like]) if like != own else branch(smaller)
            solution = solve(sums, affine(smaller, part.matrix), 1.0)
            set_affine(fitted, part.matrix, solution.weight)
            now = data.judge.loss(fitted)
            if now < loss:
                fits.append({"part": part.name, "like_layer": like, "ridge": solution.ridge, "loss": now})
                smaller, loss = fitted, now
            else:
                skipped.append(Skip(f"fit of {part.name}", f"the loss would not fall below {loss:.4g}"))
        for walk in walks:
            walk.smaller = walk.run(layers_of(smaller)[place].module, walk.smaller, own)
    return Repaired(smaller, loss, tuple(fits), tuple(skipped))


def _with_norm(model: TorchModel, place: int, like: Layer) -> TorchModel:
    """Return a branch whose layer ends in another layer's norm, where a norm stands at its end."""
    out = branch(model)
    if like.family.norm:
        norm = copy.deepcopy(like.part(like.family.norm))
        layers_of(out)[place].module.set_submodule(like.family.norm, norm)
    return out
