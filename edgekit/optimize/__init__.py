"""OnnxModel -> OnnxModel: rewrites that keep the function, one per file."""

from __future__ import annotations

from pathlib import Path

from edgekit import graph as g
from edgekit.model import OnnxModel
from edgekit.optimize.fold_batch_norm import fold_batch_norm
from edgekit.record import Clock

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
    nodes_before = len(loaded.graph)
    folded, skipped = fold_batch_norm(loaded)
    for tidy in (
        IdentityEliminationPass(),
        CommonSubexpressionEliminationPass(),
        DeduplicateInitializersPass(),
    ):
        tidy(loaded)
    g.remove_unused(loaded)
    graph = g.saved(loaded, path, model.only.name)
    nodes_after = len(loaded.graph)
    did = f"{nodes_before} nodes became {nodes_after}; {folded} batch norms were folded into convolutions"
    record = clock.record(
        "optimize",
        "rewrite",
        did,
        skipped=tuple(skipped),
        bytes_before=before,
        bytes_after=path.stat().st_size,
        nodes_before=nodes_before,
        nodes_after=nodes_after,
        batch_norms_folded=folded,
    )
    return model.with_step(record, graphs=(graph,))
