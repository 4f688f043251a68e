"""Run the float graph on the user's data and remember each tensor's statistics.

One calibration serves every target: what is observed does not depend on a profile. Memory does not grow
with the number of samples, and samples may have any lengths, because each batch is folded into the
statistics and forgotten.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.errors import DataError, ModelError
from edgekit.model import OnnxModel
from edgekit.profile import Quantization
from edgekit.quantize.observe import Batch, groups_within, memory_need, observe
from edgekit.quantize.observers import ROWS_KEPT, TensorStats
from edgekit.quantize.plan import make_plan
from edgekit.quantize.statistics import DataSeen, Statistics, graph_sha256, load, save, seen_in
from edgekit.quantize.windows import KeptInputs
from edgekit.record import Clock, StepRecord
from edgekit.trained_scales import TrainedScales

CHECKPOINT_BATCHES = 64
"""Batches between two checkpoints: what a kill can cost, a few seconds of a small transformer."""

_INT8_OPS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")


@dataclass(frozen=True)
class Calibration:
    """Statistics of a float graph's tensors over the user's data.

    Attributes:
        tensors: Tensor name -> statistics.
        samples: Samples that were run.
        record: What was done.
        seen: The data: how much, its digest, what each input held.
        passes: Passes over the data; 0 where the statistics came from a file.
        resumed_from: Batches that a checkpoint spared. Neither is in the record, for the same statistics
            have to make the same package.
        inputs: A few of the inputs, to measure on what form of a convolution loses least.
        trained: Scales that the model was trained with; they come with the model, not from the data.
    """

    tensors: Mapping[str, TensorStats]
    samples: int
    record: StepRecord
    seen: DataSeen = field(default_factory=DataSeen)
    passes: int = 1
    resumed_from: int = 0
    inputs: tuple[Batch, ...] = ()
    trained: TrainedScales | None = None


def calibrate(
    model: OnnxModel,
    batches: Iterable[Batch],
    *,
    statistics: Path | None = None,
    checkpoint_batches: int = CHECKPOINT_BATCHES,
    max_memory_mb: float | None = None,
    every_tensor: bool = False,
) -> Calibration:
    """Observe every tensor that any target for CPUs could quantize, or every float tensor that there is.

    Args:
        model: The float graph.
        batches: Inputs, one batch after the other; each is run and dropped. Batches of one sample keep
            padding out of the statistics. Several passes need an iterable that can begin anew.
        statistics: Keep the statistics in this file, with a checkpoint on the way. Where it is there
            already and is of this graph and this data, calibration goes on from it, or is done.
        checkpoint_batches: Batches between two checkpoints.
        max_memory_mb: Most memory to add, in 10**6 bytes; tensors that do not fit together are observed in
            several passes, with the same result. Needs `statistics`, where finished tensors wait.
        every_tensor: Observe every float tensor that a node makes or a float input holds.

    Raises:
        DataError: There is no batch, a tensor is NaN or infinite on the data or never has a value, or the
            file in `statistics` is of another graph or other data.
        ModelError: The graph is quantized already.
        RecipeError: `max_memory_mb` is too small; the error says the least.
    """
    clock = Clock()
    loaded = g.load(model.only.path)
    refuse_quantized(loaded, model.only.path)
    axes = float_tensors(loaded) if every_tensor else observed_tensors(loaded)
    del loaded
    gc.collect()  # graphs refer to their nodes and back: it would stay, with its weights
    state = Statistics(graph_sha256(model), DataSeen(), False, {n: TensorStats(a) for n, a in axes.items()})
    kept = KeptInputs()
    if statistics is not None and statistics.exists():
        state = _continued(state, statistics, batches, kept)
    resumed = state.seen.batches
    passes = 0
    if not state.complete:
        groups = _groups(model, axes, state, batches, max_memory_mb)
        if len(groups) > 1 and statistics is None:
            raise DataError("a memory budget needs a statistics file, where finished tensors wait")
        for group in groups:
            state = _one_pass(model, group, state, batches, statistics, checkpoint_batches, kept)
            passes += 1
        seen = state.seen if axes else _seen(batches, kept)
        _refuse_no_data(seen)
        state = Statistics(state.graph_sha256, seen, True, state.tensors)
        if statistics is not None:
            save(state, statistics)
            state = load(statistics)
    return _calibration(state, clock, kept, passes=passes, resumed_from=resumed if passes else 0)


def reuse(model: OnnxModel, batches: Iterable[Batch], statistics: Path) -> Calibration:
    """Return the calibration in a file, without running the model.

    Args:
        model: The float graph that it has to be of.
        batches: The inputs that it has to be of, in any order.
        statistics: The file.

    Raises:
        DataError: The file is missing, damaged, a checkpoint, or of another graph or other data.
    """
    clock = Clock()
    stored = load(statistics)
    _refuse_other_graph(stored, graph_sha256(model), statistics)
    if not stored.complete:
        raise DataError(
            f"{statistics} is the checkpoint of a calibration that did not end",
            "Let it go on with --save-statistics and the same file.",
        )
    kept = KeptInputs()
    _refuse_other_data(stored, _seen(batches, kept), statistics)
    return _calibration(stored, clock, kept, passes=0, resumed_from=0)


def observed_tensors(model: ir.Model) -> dict[str, int]:
    """Return what any profile could need: tensor name -> channel axis."""
    every = Quantization(activation_type="uint8", weight_type="int8")
    matmul_ops, conv_ops = every.matmul_ops, every.conv_ops
    no_region = make_plan(model, matmul_ops=matmul_ops, conv_ops=(), embeddings=False)
    narrow = make_plan(model, matmul_ops=matmul_ops, conv_ops=conv_ops, embeddings=False, float_entries=True)
    plan = make_plan(model, matmul_ops=matmul_ops, conv_ops=conv_ops, embeddings=False)
    return no_region.observed() | narrow.observed() | plan.observed()


def float_tensors(model: ir.Model) -> dict[str, int]:
    """Return every float tensor of a graph that is no constant: name -> channel axis.

    Axis 1 stands for all: no vectors are kept of such tensors, so hundreds of them fit in memory.
    """
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    found = [v for v in values if v.dtype == ir.DataType.FLOAT and g.constant(v) is None]
    return {value.name or "": 1 for value in found}


def _one_pass(
    model: OnnxModel,
    group: Sequence[str],
    state: Statistics,
    batches: Iterable[Batch],
    file: Path | None,
    checkpoint_batches: int,
    kept: KeptInputs,
) -> Statistics:
    """Return the statistics after a group of tensors, which have seen equally much, has seen all batches."""
    tensors = {name: state.tensors[name] for name in group}
    done = next(iter(tensors.values())).batches
    seen = state.seen

    def merged() -> Statistics:
        every = Overlaid(state.tensors, tensors)
        return Statistics(state.graph_sha256, seen, False, every)

    for batch, values in observe(model.only.path, group, islice(batches, done, None)):
        here = seen_in(batch)
        kept.offer(here.digest, batch)
        for name, value in values.items():
            tensors[name].update(np.asarray(value, np.float32), here.digest)
        done += 1
        if done > seen.batches:
            seen = seen.merge(here)
        if file is not None and done % checkpoint_batches == 0:
            save(merged(), file)
    _refuse_no_data(seen)
    _refuse_unusable(tensors)
    for stats in tensors.values():
        stats.sample.sort()
    if file is None:
        return merged()
    save(merged(), file)
    return load(file)


@dataclass(frozen=True)
class Overlaid(Mapping[str, TensorStats]):
    """Tensors of which some are in memory and the others stay where they were."""

    under: Mapping[str, TensorStats]
    over: Mapping[str, TensorStats]

    def __getitem__(self, name: str) -> TensorStats:
        return self.over[name] if name in self.over else self.under[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.under)

    def __len__(self) -> int:
        return len(self.under)


def _groups(
    model: OnnxModel,
    axes: Mapping[str, int],
    state: Statistics,
    batches: Iterable[Batch],
    max_memory_mb: float | None,
) -> list[tuple[str, ...]]:
    """Return the passes that are left: tensors that have seen equally much, as many as fit."""
    total = None
    by_progress: dict[int, list[str]] = {}
    for name in axes:
        by_progress.setdefault(state.tensors[name].batches, []).append(name)
    if state.seen.batches or max_memory_mb is not None:
        _refuse_one_shot(batches)
        total = sum(1 for _ in batches)
    left = [names for done, names in sorted(by_progress.items(), reverse=True) if done != total]
    if max_memory_mb is None:
        return [tuple(names) for names in left]
    largest = max(batches, key=lambda batch: sum(v.nbytes for v in batch.values()), default=None)
    if largest is None:
        return [tuple(names) for names in left]
    need = memory_need(model, axes, largest)
    return [group for names in left for group in groups_within(need, names, max_memory_mb)]


def _continued(fresh: Statistics, file: Path, batches: Iterable[Batch], kept: KeptInputs) -> Statistics:
    """Return what a file holds, after checking that it is of this graph and of the first of these batches."""
    _refuse_one_shot(batches)
    stored = load(file)
    _refuse_other_graph(stored, fresh.graph_sha256, file)
    if set(stored.tensors) != set(fresh.tensors):
        raise DataError(f"{file} holds other tensors of this graph", "Remove it, or name another file.")
    limit = None if stored.complete else stored.seen.batches
    _refuse_other_data(stored, _seen(islice(batches, limit), kept), file)
    return stored


def _seen(batches: Iterable[Batch], inputs: KeptInputs) -> DataSeen:
    seen = DataSeen()
    for batch in batches:
        here = seen_in(batch)
        inputs.offer(here.digest, batch)
        seen = seen.merge(here)
    return seen


def _calibration(
    state: Statistics, clock: Clock, inputs: KeptInputs, *, passes: int, resumed_from: int
) -> Calibration:
    kept = (min(t.count, ROWS_KEPT) for t in state.tensors.values() if t.axis == -1)
    samples, tensors = state.seen.samples, len(state.tensors)
    record = clock.record(
        "quantize",
        "calibrate",
        f"ran {samples} samples through the float graph and observed {tensors} tensors",
        samples=samples,
        tensors=tensors,
        rows_kept_per_tensor=max(kept, default=0),
    )
    return Calibration(state.tensors, samples, record, state.seen, passes, resumed_from, inputs.in_order())


def refuse_quantized(model: ir.Model, path: Path) -> None:
    """Raise where a graph computes in 8 bits anywhere: its rounding would be rounded again.

    Raises:
        ModelError: It does; the error names a node.
    """
    found = next(g.nodes(model.graph, *_INT8_OPS), None)
    found = found or next((n for n in model.graph if n.op_type.startswith("QLinear")), None)
    if found is not None:
        raise ModelError(
            f"{path} is quantized already: it has the {found.op_type} node '{found.name}'",
            "Give the float graph that it was made from.",
        )


def _refuse_one_shot(batches: Iterable[Batch]) -> None:
    if iter(batches) is batches:
        raise DataError(
            "a statistics file or a memory budget needs batches that can be read more than once",
            "Give a sequence of batches, not an iterator.",
        )


def _refuse_other_graph(stored: Statistics, sha256: str, file: Path) -> None:
    if stored.graph_sha256 != sha256:
        raise DataError(
            f"{file} was made with another float graph ({stored.graph_sha256[:12]}, not {sha256[:12]})",
            "Another model, opset or version of edgekit makes another graph: calibrate anew into a new file.",
        )


def _refuse_other_data(stored: Statistics, seen: DataSeen, file: Path) -> None:
    if stored.seen.digest != seen.digest or stored.seen.samples != seen.samples:
        raise DataError(
            f"{file} was made with other calibration data ({stored.seen.samples} samples of it,"
            f" {seen.samples} here)",
            "Give the data, --samples and --seed that made it, or calibrate anew into a new file.",
        )


def _refuse_no_data(seen: DataSeen) -> None:
    if seen.samples == 0:
        raise DataError("there is no calibration data", "Give real samples with --calibration.")


def _refuse_unusable(tensors: Mapping[str, TensorStats]) -> None:
    broken = [name for name, tensor in tensors.items() if not tensor.finite]
    if broken:
        raise DataError(
            f"tensor '{broken[0]}' is NaN or infinite on the calibration data{_more(broken)}",
            "Check the weights and the data: the float model itself is not finite there.",
        )
    empty = [name for name, tensor in tensors.items() if not tensor.count]
    if empty:
        raise DataError(
            f"tensor '{empty[0]}' never has a value on the calibration data{_more(empty)}",
            "Give samples that reach it, or leave its layer in float with --exclude.",
        )


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
