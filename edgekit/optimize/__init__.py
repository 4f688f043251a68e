"""OnnxModel -> OnnxModel: rewrites that keep the function, one per file."""

from __future__ import annotations

from pathlib import Path

from edgekit import graph as g
from edgekit.model import OnnxModel
from edgekit.optimize.divide_by_root import divide_by_root
from edgekit.optimize.flatten_tokens import flatten_tokens
from edgekit.optimize.fold_batch_norm import fold_batch_norm
from edgekit.optimize.mean_to_pool import mean_to_pool
from edgekit.optimize.pack_projections import pack_projections
from edgekit.optimize.probe_shapes import probe_shapes
from edgekit.record import Clock, Skip

__all__ = ["optimize"]


def optimize(model: OnnxModel, path: Path) -> OnnxModel:
    """Write the optimized graph to `path` and return it.

    Only rewrites that every target wants are here; ONNX Runtime does its own when it opens the file.

    Args:
        model: The exported float graph.
        path: The new file.
    """
    from onnx_ir.passes.common import (
        CommonSubexpressionEliminationPass,
        DeduplicateInitializersPass,
        IdentityEliminationPass,
    )

    clock, loaded, before = Clock(), g.load(model.only.path), model.file_bytes
    shapes = probe_shapes(model.only.path, model.only.signature)
    nodes_before = len(loaded.graph)
    folded, skipped = fold_batch_norm(loaded)
    if not shapes:
        skipped.append(
            Skip("flattening of tokens", "the graph does not run on zeros, so shapes are not known")
        )
    done = {
        "batch_norms_folded": folded,
        "means_to_pools": mean_to_pool(loaded),
        "divisions_by_root": divide_by_root(loaded),
        "products_to_gemm": flatten_tokens(loaded, shapes),
        "projections_packed": pack_projections(loaded),
    }
    for tidy in (
        IdentityEliminationPass(),
        CommonSubexpressionEliminationPass(),
        DeduplicateInitializersPass(),
    ):
        tidy(loaded)
    g.remove_unused(loaded)
    graph = g.saved(loaded, path, model.only.name)
    nodes_after = len(loaded.graph)
    record = clock.record(
        "optimize",
        "rewrite",
        f"{nodes_before} nodes became {nodes_after}",
        skipped=tuple(skipped),
        bytes_before=before,
        bytes_after=path.stat().st_size,
        nodes_before=nodes_before,
        nodes_after=nodes_after,
        **done,
    )
    return model.with_step(record, graphs=(graph,))
