"""Static int8 in QDQ form, by the rules of a target profile."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from edgekit import graph as g
from edgekit.model import OnnxModel
from edgekit.profile import TargetProfile
from edgekit.quantize.calibrate import Calibration, refuse_quantized
from edgekit.quantize.compact import compact
from edgekit.quantize.conv_form import quantize_convolutions
from edgekit.quantize.insert import embedding_per_row
from edgekit.quantize.linear import LinearRules
from edgekit.quantize.plan import Plan, make_plan
from edgekit.quantize.products import quantize_products
from edgekit.quantize.schemes import ActivationScheme
from edgekit.quantize.whole import quantize_whole
from edgekit.recipe import QuantizeOptions
from edgekit.record import Clock


def quantize(
    model: OnnxModel, calibration: Calibration, profile: TargetProfile, options: QuantizeOptions, path: Path
) -> OnnxModel:
    """Write the quantized graph to `path` and return it, with the records of what was done.

    A profile for whole graphs has a way of its own: `edgekit.quantize.whole`.

    Args:
        model: The float graph that `calibration` was made on.
        calibration: Statistics of its tensors.
        profile: The target: types, symmetry, ranges, op types.
        options: Choices of the request.
        path: The new file; the float file is not touched.

    Raises:
        ModelError: The graph is quantized already.
    """
    if profile.quantization.scope == "whole-graph":
        return quantize_whole(model, calibration, profile, options, path)
    loaded, rules, before = g.load(model.only.path), profile.quantization, model.file_bytes
    refuse_quantized(loaded, model.only.path)

    def planned(model: ir.Model) -> Plan:
        return make_plan(
            model,
            matmul_ops=rules.matmul_ops,
            conv_ops=rules.conv_ops,
            embeddings=rules.embeddings == "int8-per-row",
            float_entries=rules.float_entries,
            exclude=options.exclude,
        )

    plan = planned(loaded)
    scheme = ActivationScheme(rules.activation_type, rules.activation_symmetric)
    linear_rules = LinearRules(
        scheme,
        rules.per_channel,
        rules.reduce_range,
        options.smoothing,
        options.range_method,
        options.percentile,
        options.rounding,
    )
    clock = Clock()
    layers, unused = quantize_products(
        loaded.graph, plan.linear, calibration, linear_rules, bias_correction=options.bias_correction
    )
    skipped = (*plan.skipped, *unused)
    products = sum(len(group.nodes) for group in plan.linear)
    matmuls = clock.record(
        "quantize",
        "matmul",
        f"quantized the matrix products of {len(layers)} activations; their outputs stay float",
        skipped=skipped,
        activation_type=rules.activation_type,
        weight_type=rules.weight_type,
        per_channel=rules.per_channel,
        reduce_range=rules.reduce_range,
        matrix_products=products,
        smoothed=sum(layer["alpha"] is not None for layer in layers),
        layers=list(layers),
    )
    records = [matmuls] if layers or skipped else []
    if plan.convs or plan.conv_skipped:
        records.append(
            quantize_convolutions(
                model.only.path, loaded.graph, plan, planned, calibration, scheme, rules, options
            )
        )
    if plan.embeddings:
        clock = Clock()
        saved = sum(embedding_per_row(loaded.graph, node) for node in plan.embeddings)
        did = f"stored {len(plan.embeddings)} embedding tables as int8 with one scale per row"
        records.append(clock.record("quantize", "embeddings", did, bytes_saved=saved))
    g.remove_unused(loaded)
    compact(loaded.graph)
    g.forget_inner_shapes(loaded)
    graph = g.saved(loaded, path)
    after = path.stat().st_size
    total = clock.record(
        "quantize",
        "write",
        f"static int8, {before / after:.2f}x smaller",
        bytes_before=before,
        bytes_after=after,
    )
    return model.with_step(calibration.record, *records, total, graphs=(graph,))
