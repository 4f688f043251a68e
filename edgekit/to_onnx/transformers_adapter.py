"""The one file that calls `transformers.exporters`, which is experimental and changes with each release.

Tested on 5.13.0, 5.18.0, 5.22.0 and 5.23.0 (`tools/test_transformers_versions.sh`):

- 5.13 (the first with the package) to 5.22: `OnnxExporter().export(...)` returns a `torch.onnx.ONNXProgram`,
  whose graph is `.model`.
- 5.23: it returns an `ExportedModel`, whose graph is `.program`.

Source: transformers, src/transformers/exporters/exporter_onnx.py at each release.
"""

from __future__ import annotations

import re
from typing import Any

import onnx_ir as ir
import torch

from edgekit.model import TorchModel
from edgekit.to_onnx.plain import dynamic_shapes

OLDEST, NEWEST = (5, 13), (5, 23)


def why_not(version: str) -> str | None:
    """Return why this adapter does not serve a version of transformers, or None where it does."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and OLDEST <= (int(found[1]), int(found[2])) <= NEWEST:
        return None
    tested = f"{'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}"
    return f"transformers {version} is outside the tested versions, {tested}"


def export_with_transformers(model: TorchModel, opset: int) -> ir.Model:
    """Export through transformers' own exporter, which knows the rewrites that its models need.

    Args:
        model: A module that takes its inputs by keyword and returns a dict.
        opset: Version of the default operator set.

    Raises:
        Exception: Whatever the exporter raises; the caller takes the plain road then.
    """
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    config = OnnxConfig(dynamic_shapes=dynamic_shapes(model), opset_version=opset)
    inputs = {name: torch.from_numpy(array) for name, array in model.example_inputs.items()}
    return _graph(OnnxExporter().export(model.module, inputs, config=config))


def _graph(exported: Any) -> ir.Model:
    """Return the graph in an `ONNXProgram` (up to 5.22) or an `ExportedModel` (from 5.23)."""
    graph = exported.program if hasattr(exported, "program") else exported.model
    if not isinstance(graph, ir.Model):
        raise TypeError(f"the exporter returned {type(exported).__name__} with a {type(graph).__name__}")
    return graph
