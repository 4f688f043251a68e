"""OnnxModel -> OnnxModel: rewrites that keep the function, one per file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from edgekit import graph as g
from edgekit.model import OnnxModel
from edgekit.optimize.divide_by_root import divide_by_root
from edgekit.optimize.finite_masks import finite_masks
from edgekit.optimize.flatten_tokens import flatten_tokens
from edgekit.optimize.fold_batch_norm import fold_batch_norm
from edgekit.optimize.fold_transpose import fold_transpose
from edgekit.optimize.l2_normalization import l2_normalization
from edgekit.optimize.mean_to_pool import mean_to_pool
from edgekit.optimize.pack_projections import pack_projections
from edgekit.optimize.probe_shapes import Shapes, probe_shapes
from edgekit.optimize.tanh_gelu import tanh_gelu
from edgekit.record import Clock, Skip

__all__ = ["EVERY_REWRITE", "REWRITES", "GraphRewrite", "optimize"]

GraphRewrite = Callable[[ir.Model, Mapping[str, Shapes]], int]
"""Edits a graph, whose values had these shapes, in place; returns how often."""

REWRITES: dict[str, GraphRewrite] = {
    "divide-by-root": lambda model, _: divide_by_root(model),
    "tanh-gelu": lambda model, _: tanh_gelu(model),
    "rows": flatten_tokens,
    "packed-projections": lambda model, _: pack_projections(model),
}
"""Those that are a matter of speed, in the order they are done; a profile names what wins on its CPUs.

`benchmarks/rewrites.py` measures them. The others are always done: a transposed weight, a BatchNormalization
and a mean over an image have no int8 kernel.
"""

EVERY_REWRITE: dict[str, GraphRewrite] = {
    **REWRITES,
    "finite-masks": lambda model, _: finite_masks(model),
    "l2-normalization": lambda model, _: l2_normalization(model),
}
"""Those of speed, and those that processors for whole graphs need."""


def optimize(
    model: OnnxModel,
    path: Path,
    chosen: Collection[str] = tuple(REWRITES),
    *,
    rewrites: Mapping[str, GraphRewrite] = EVERY_REWRITE,
) -> OnnxModel:
    """Write the optimized graph to `path` and return it; ONNX Runtime does its own when it opens the file.

    Args:
        model: The exported float graph.
        path: The new file.
        chosen: Names of the rewrites to do, besides those that quantization needs.
        rewrites: All that there are, in order; for measuring others.
    """
    from onnx_ir.passes.common import (
        CommonSubexpressionEliminationPass,
        DeduplicateInitializersPass,
        IdentityEliminationPass,
    )

    clock, before = Clock(), model.file_bytes
    shapes = probe_shapes(model.only.path, model.only.signature)
    loaded = g.load(model.only.path)
    nodes_before = len(loaded.graph)
    transposed = fold_transpose(loaded)
    folded, skipped = fold_batch_norm(loaded)
    if not shapes:
        skipped.append(
            Skip("flattening of tokens", "the graph does not run on zeros, so shapes are not known")
        )
    pools = mean_to_pool(loaded)
    done = {name: rewrite(loaded, shapes) for name, rewrite in rewrites.items() if name in chosen}
    for tidy in (
        IdentityEliminationPass(),
        CommonSubexpressionEliminationPass(),
        DeduplicateInitializersPass(),
    ):
        tidy(loaded)
    g.remove_unused(loaded)
    graph = g.saved(loaded, path, model.only.name)
    g.release(loaded)
    nodes_after = len(loaded.graph)
    record = clock.record(
        "optimize",
        "rewrite",
        f"{nodes_before} nodes became {nodes_after}",
        skipped=tuple(skipped),
        bytes_before=before,
        bytes_after=replace(model, graphs=(graph,)).file_bytes,
        nodes_before=nodes_before,
        nodes_after=nodes_after,
        transposes_folded=transposed,
        batch_norms_folded=folded,
        means_to_pools=pools,
        rewrites=done,
    )
    return model.with_step(record, graphs=(graph,))
