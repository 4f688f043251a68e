"""The shapes that a graph's values really have, found by running it at two input sizes.

Shape inference loses dynamic axes at the first Reshape; running the graph on zeros does not. Two runs with
different sizes tell an axis that follows an input from one that only happens to be as long.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekit import graph as g
from edgekit.model import Signature
from edgekit.runtime import open_session, usable_cores
from edgekit.store import workspace

Shapes = tuple[tuple[int, ...], ...]

_FIRST, _STEP = (2, 3), 2


def probe_shapes(path: Path, signature: Signature) -> dict[str, Shapes]:
    """Return value name -> its shape in each run; empty where the graph cannot run on zeros.

    Args:
        path: The model's file.
        signature: Its inputs; each differently named dynamic axis gets sizes of its own.
    """
    model = g.load(path)
    known = set(model.graph.outputs)
    values = [v for node in model.graph for v in node.outputs if v.name and not v.is_graph_output()]
    model.graph.outputs.extend(value for value in values if value not in known)
    with workspace() as scratch:  # a file, for protobuf takes no message of 2 GiB
        g.save(model, scratch / "probed.onnx")
        session = open_session(scratch / "probed.onnx", optimize=False, threads=usable_cores())
    names = [value.name for value in session.get_outputs()]
    runs = []
    try:
        for first in _FIRST:
            inputs = _zeros(signature, first)
            found = session.run(names, inputs)
            shapes = {name: np.shape(value) for name, value in zip(names, found, strict=True)}
            runs.append(shapes | {name: value.shape for name, value in inputs.items()})
    except Exception:  # the runtime raises a family of its own; a graph that wants real values tells nothing
        return {}
    return {name: tuple(run[name] for run in runs) for name in runs[0]}


def _zeros(signature: Signature, first: int) -> dict[str, Any]:
    axes = dict.fromkeys(d for spec in signature.inputs for d in spec.shape if isinstance(d, str))
    sizes = {axis: first + _STEP * index for index, axis in enumerate(axes)}
    return {
        spec.name: np.zeros([sizes[d] if isinstance(d, str) else d for d in spec.shape], spec.dtype)
        for spec in signature.inputs
    }
