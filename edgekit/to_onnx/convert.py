"""`TorchModel` -> `OnnxModel`: the road that fits the model, then the canonical form."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import ExportError, MissingDependencyError
from edgekit.model import OnnxModel, TorchModel
from edgekit.record import Clock, Skip
from edgekit.store import storage_errors

if TYPE_CHECKING:
    import onnx_ir as ir

FILE_NAME = "float.onnx"
# torch's exporter writes operator sets from here on; below it converts down, and fails on common models.
# Source: torch 2.13, torch/onnx/_constants.py, TORCHLIB_OPSET.
_OLDEST_OPSET = 18


def export_model(model: TorchModel, folder: Path, *, opset: int, ir_version: int) -> OnnxModel:
    """Export a model to `folder/float.onnx`.

    The same model makes the same bytes on every run.

    Args:
        model: The module with its example inputs and dynamic axes.
        folder: Made if it is missing.
        opset: Version of the default operator set.
        ir_version: Version of the ONNX file format.

    Returns:
        One graph named `model`, with the model's history and what was done here.

    Raises:
        ExportError: An op, a branch or an axis of the model cannot be exported; the message names it.
        MissingDependencyError: torch or onnxscript is not installed.
        StorageError: The file cannot be written.
    """
    for package in ("torch", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, "export PyTorch models")
    if opset < _OLDEST_OPSET:
        raise ExportError(f"operator set {opset} cannot be exported; the oldest is {_OLDEST_OPSET}")
    from edgekit import graph as graphs
    from edgekit.source.quiet import quiet
    from edgekit.to_onnx.canonical import GRAPH_NAME, canonicalize

    clock = Clock()
    with quiet():
        exported, road, skipped = _exported(model, opset)
        canonicalize(exported, model, opset=opset, ir_version=ir_version)
    path = folder / FILE_NAME
    with storage_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        graph = graphs.saved(exported, path, GRAPH_NAME)
        graphs.release(exported)  # onnxscript's rewrite rules keep the last graph that they saw
    onnx_model = OnnxModel((graph,), opset, ir_version, model.history)
    ops = Counter(node.op_type for node in exported.graph.all_nodes())
    record = clock.record(
        "export",
        road,
        f"Exported {sum(ops.values())} nodes through {road}, operator set {opset}.",
        skipped=skipped,
        bytes_after=onnx_model.file_bytes,
        opset=opset,
        ir_version=ir_version,
        road=road,
        ops=dict(sorted(ops.items())),
        **_versions(),
    )
    return onnx_model.with_step(record)


def _exported(model: TorchModel, opset: int) -> tuple[ir.Model, str, tuple[Skip, ...]]:
    """Return the graph, the road it came by, and why another was not taken."""
    from edgekit.to_onnx.plain import export_plain

    if not model.from_transformers:
        return export_plain(model, opset), "torch.onnx", ()
    import transformers

    from edgekit.to_onnx.transformers_adapter import export_with_transformers, why_not

    reason = why_not(transformers.__version__)
    if reason is None:
        try:
            return export_with_transformers(model, opset), "transformers.exporters", ()
        except Exception as error:  # experimental code; the plain road gives the errors that name things
            text = " ".join(str(error).split())
            reason = f"it failed: {type(error).__name__}: {text[:200]}"
    return export_plain(model, opset), "torch.onnx", (Skip("transformers.exporters", reason),)


def _versions() -> dict[str, Any]:
    """Return the versions of what made the graph."""
    from importlib.metadata import version

    return {f"{name}_version": version(name) for name in ("torch", "onnxscript", "transformers")}
