"""Run the float graph on the user's data and remember each tensor's statistics.

One pass serves every target: what is observed does not depend on a profile. Memory does not grow with the
number of samples, and samples may have any lengths, because each batch is folded into the statistics and
forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.errors import DataError
from edgekit.model import OnnxModel
from edgekit.profile import Quantization
from edgekit.quantize.observers import TensorStats
from edgekit.quantize.plan import make_plan
from edgekit.record import Clock, StepRecord
from edgekit.runtime import open_session, usable_cores


@dataclass(frozen=True)
class Calibration:
    """Statistics of a float graph's tensors over the user's data.

    Attributes:
        tensors: Tensor name -> statistics.
        samples: Samples that were run.
        record: What was done.
    """

    tensors: Mapping[str, TensorStats]
    samples: int
    record: StepRecord


def calibrate(model: OnnxModel, batches: Iterable[Mapping[str, np.ndarray]]) -> Calibration:
    """Observe every tensor that any target could quantize.

    Args:
        model: The float graph.
        batches: Inputs, one batch after the other; each is run once and dropped. Batches of one sample
            keep padding out of the statistics.

    Raises:
        DataError: There is no batch, or a tensor is NaN or infinite on the data.
    """
    clock = Clock()
    loaded = g.load(model.only.path)
    wanted = observed_tensors(loaded)
    by_name = {value.name: value for node in loaded.graph for value in node.outputs}
    inputs = {value.name for value in loaded.graph.inputs}
    fetched = [name for name in wanted if name not in inputs]
    for name in fetched:
        if not by_name[name].is_graph_output():
            loaded.graph.outputs.append(by_name[name])
    session = open_session(_bytes(loaded), threads=usable_cores()) if fetched else None
    stats = {name: TensorStats(axis) for name, axis in wanted.items()}
    samples = 0
    for batch in batches:
        size = len(next(iter(batch.values())))
        found = session.run(fetched, dict(batch)) if session is not None else []
        tensors = dict(zip(fetched, found, strict=True)) | {n: batch[n] for n in wanted if n in inputs}
        for name, value in tensors.items():
            stats[name].update(np.asarray(value, np.float32))
        samples += size
    _refuse_unusable(stats, samples)
    record = clock.record(
        "quantize",
        "calibrate",
        f"ran {samples} samples through the float graph and observed {len(stats)} tensors",
        samples=samples,
        tensors=len(stats),
        rows_kept_per_tensor=max((len(tensor.rows) for tensor in stats.values()), default=0),
    )
    return Calibration(stats, samples, record)


def observed_tensors(model: ir.Model) -> dict[str, int]:
    """Return what any profile could need: tensor name -> channel axis."""
    every = Quantization(activation_type="uint8", weight_type="int8")
    plan = make_plan(model, matmul_ops=every.matmul_ops, conv_ops=every.conv_ops, embeddings=False)
    no_region = make_plan(model, matmul_ops=every.matmul_ops, conv_ops=(), embeddings=False)
    return no_region.observed() | plan.observed()


def _refuse_unusable(stats: Mapping[str, TensorStats], samples: int) -> None:
    if samples == 0:
        raise DataError("there is no calibration data", "Give real samples with --calibration.")
    broken = [name for name, tensor in stats.items() if not tensor.finite]
    if broken:
        raise DataError(
            f"tensor '{broken[0]}' is NaN or infinite on the calibration data"
            + (f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""),
            "Check the weights and the data: the float model itself is not finite there.",
        )


def _bytes(model: ir.Model) -> bytes:
    return ir.serde.serialize_model(model).SerializeToString()
