"""Run a graph and hand out tensors inside it, in as many passes as a memory budget needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.errors import RecipeError
from edgekit.model import OnnxModel
from edgekit.quantize.observers import HISTOGRAM_BINS, ROWS_KEPT
from edgekit.runtime import open_session, usable_cores
from edgekit.store import workspace

Batch = Mapping[str, np.ndarray]
_MB = 10**6
_COPIES = 3


def observe(
    path: Path, names: Sequence[str], batches: Iterable[Batch]
) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
    """Yield each batch with the values of some tensors.

    The nodes run as they are written, without the runtime's fusions: those depend on which tensors are
    asked for, and the last digits would with them. Nodes that none of the tensors needs do not run.

    Args:
        path: The graph.
        names: Tensors of its top level; inputs among them are handed through.
        batches: Inputs, one batch after the other.
    """
    with workspace() as scratch:
        fetched = _write_observed(path, names, scratch / "observed.onnx")
        session = _session(scratch / "observed.onnx") if fetched else None
        read = {value.name for value in session.get_inputs()} if session else set()
        for batch in batches:
            fed = {name: batch[name] for name in batch if name in read}
            found = session.run(fetched, fed) if session else []
            tensors = dict(zip(fetched, found, strict=True))
            yield batch, {name: tensors[name] if name in tensors else batch[name] for name in names}


@dataclass(frozen=True)
class MemoryNeed:
    """What calibration holds in memory at once, in bytes.

    Attributes:
        model: The runtime with the weights and the largest sample's activations, measured.
        tensors: Tensor name -> its values on the largest sample, twice, and its statistics.
    """

    model: int
    tensors: Mapping[str, int]


def memory_need(model: OnnxModel, axes: Mapping[str, int], largest: Batch) -> MemoryNeed:
    """Measure what the model needs on the largest batch, and add up what its tensors will.

    Args:
        model: The float graph.
        axes: Observed tensor -> channel axis.
        largest: The batch with the most values.
    """
    with workspace() as scratch:
        _write_shapes(model.only.path, list(axes), scratch / "shapes.onnx")
        before = resident_bytes()
        session = _session(scratch / "shapes.onnx")
        read = {value.name for value in session.get_inputs()}
        found = session.run(None, {name: largest[name] for name in largest if name in read})
        grown = resident_bytes() - before
    # While the graph is opened its weights are there as the file's bytes and as tensors, those of products
    # packed as well. With what the allocator keeps between passes all-MiniLM-L6-v2 took 2.4 times its size.
    own = max(grown, _COPIES * model.file_bytes)
    tensors = {}
    for (name, axis), shape in zip(axes.items(), found, strict=True):
        size, channels = int(np.prod(shape)), int(shape[axis]) if len(shape) > max(axis, 0) else 1
        rows = ROWS_KEPT * (4 * channels + 8) if axis == -1 else 0
        # One batch as it comes and scaled for the histogram; the bins and numbers per channel, twice.
        tensors[name] = 4 * size + 12 * size + rows + 2 * (8 * HISTOGRAM_BINS + 16 * channels)
    return MemoryNeed(own, tensors)


def groups_within(need: MemoryNeed, names: Sequence[str], max_memory_mb: float) -> list[tuple[str, ...]]:
    """Split tensors into groups that fit a budget, each to be observed in a pass of its own.

    Raises:
        RecipeError: The budget is too small for the model with its largest tensor; it says what is needed.
    """
    budget = max_memory_mb * _MB
    worst = max(names, key=lambda name: need.tensors[name])
    least = need.model + need.tensors[worst]
    if least > budget:
        raise RecipeError(
            f"--max-memory {max_memory_mb:g} MB is too small: calibration needs at least"
            f" {-(-least // _MB)} MB ({-(-need.model // _MB)} for the model on its largest sample,"
            f" {-(-need.tensors[worst] // _MB)} for the tensor '{worst}')",
            f"Give --max-memory {-(-least // _MB)} or more, or cut the samples with --max-length.",
        )
    groups: list[list[str]] = [[]]
    used = need.model
    for name in names:
        if used + need.tensors[name] > budget:
            groups.append([])
            used = need.model
        groups[-1].append(name)
        used += need.tensors[name]
    return [tuple(group) for group in groups]


def resident_bytes() -> int:
    """Return the memory that this process holds now, in bytes; 0 where the system does not tell.

    Source: Linux proc(5), /proc/pid/status, VmRSS.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0
    lines = status.read_text(encoding="utf-8").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def _write_observed(path: Path, names: Sequence[str], to: Path) -> list[str]:
    """Write a graph that gives some tensors and nothing else; return those that are no inputs."""
    model = g.load(path)
    inputs = {value.name for value in model.graph.inputs}
    fetched = [name for name in names if name not in inputs]
    by_name = {value.name: value for node in model.graph for value in node.outputs}
    if fetched:
        _write(model, [by_name[name] for name in fetched], to)
    return fetched


def _write_shapes(path: Path, names: Sequence[str], to: Path) -> None:
    """Write a graph that gives the shapes of some tensors, so that none of them is kept while it runs."""
    model = g.load(path)
    values = {v.name: v for v in model.graph.inputs} | {v.name: v for n in model.graph for v in n.outputs}
    shapes = []
    for number, name in enumerate(names):
        node = ir.node("Shape", [values[name]], name=f"calibration_shape_{number}")
        node.outputs[0].name = f"calibration_shape_{number}"
        model.graph.append(node)
        shapes.append(node.outputs[0])
    _write(model, shapes, to)


def _write(model: ir.Model, outputs: Sequence[ir.Value], to: Path) -> None:
    model.graph.outputs.clear()
    model.graph.outputs.extend(outputs)
    g.remove_unused(model)
    g.save(model, to)


def _session(path: Path) -> Any:
    return open_session(path, threads=usable_cores(), optimize=False)
