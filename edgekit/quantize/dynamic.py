"""Dynamic int8: activations are quantized while the model runs. The usual choice, made to compare with.

ONNX Runtime's own quantizer does it; edgekit only chooses its options and keeps its chatter away.
Source: onnxruntime.quantization.quantize_dynamic, ONNX Runtime 1.31.
"""

from __future__ import annotations

import logging
from pathlib import Path

from edgekit import graph as g
from edgekit.model import OnnxModel
from edgekit.profile import TargetProfile
from edgekit.quantize.calibrate import refuse_quantized
from edgekit.record import Clock
from edgekit.runtime import import_quantization
from edgekit.store import workspace


def quantize_dynamic(model: OnnxModel, profile: TargetProfile, path: Path) -> OnnxModel:
    """Write a dynamically quantized graph to `path` and return it.

    Args:
        model: The float graph.
        profile: The target: per-channel weights and reduced range as for static quantization.
        path: The new file; the float file is not touched.

    Raises:
        ModelError: The graph is quantized already.
    """
    tool = import_quantization()
    clock, before, rules = Clock(), model.file_bytes, profile.quantization
    loaded = g.load(model.only.path)
    refuse_quantized(loaded, model.only.path)
    g.forget_inner_shapes(loaded)  # the tool transposes weights and then trips over their old shapes
    logger = logging.getLogger()
    with workspace() as scratch:
        source = scratch / "float.onnx"
        g.save(loaded, source)
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            tool.quantize_dynamic(
                source,
                scratch / "dynamic.onnx",
                per_channel=rules.per_channel,
                reduce_range=rules.reduce_range,
                weight_type=tool.QuantType.QInt8,
            )
        finally:
            logger.setLevel(level)
        made = g.load(scratch / "dynamic.onnx")
        made.ir_version = model.ir_version
        graph = g.saved(made, path)
    record = clock.record(
        "quantize",
        "dynamic",
        "dynamic int8 by onnxruntime.quantization",
        bytes_before=before,
        bytes_after=path.stat().st_size,
        per_channel=rules.per_channel,
        reduce_range=rules.reduce_range,
    )
    return model.with_step(record, graphs=(graph,))
