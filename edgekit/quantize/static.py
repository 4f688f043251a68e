"""Static int8 in QDQ form, by the rules of a target profile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from edgekit import graph as g
from edgekit.errors import RecipeError
from edgekit.model import Graph, OnnxModel
from edgekit.profile import TargetProfile
from edgekit.quantize.blocks import BLOCK
from edgekit.quantize.calibrate import Calibration, refuse_quantized
from edgekit.quantize.compact import compact
from edgekit.quantize.conv_form import quantize_convolutions
from edgekit.quantize.linear import LinearRules
from edgekit.quantize.plan import Plan, make_plan
from edgekit.quantize.products import gives_codes, quantize_products
from edgekit.quantize.schemes import ActivationScheme
from edgekit.quantize.tables import StoredTable, store_tables
from edgekit.quantize.trained import Handover
from edgekit.quantize.whole import quantize_whole
from edgekit.recipe import QuantizeOptions
from edgekit.record import Clock, Skip, StepRecord


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
        RecipeError: The options ask for something that the target does not have.
    """
    whole = profile.quantization.scope == "whole-graph"
    if options.embeddings == "int4" and (whole or profile.quantization.int4_tables == "none"):
        raise RecipeError(
            f"{profile.name} has no embedding tables in 4 bits", "Leave --embeddings out for this target."
        )
    if whole:
        untaken = Handover.of(calibration.trained, profile).record(Clock())
        model = model.with_step(untaken) if untaken is not None else model
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

    handover = Handover.of(calibration.trained, profile, loaded.graph.initializers)
    plan = planned(loaded)
    records = [_products(loaded.graph, plan, calibration, profile, options, handover)]
    if plan.convs or plan.conv_skipped:
        scheme = _activations(profile)
        records.append(
            quantize_convolutions(
                model.only.path, loaded.graph, plan, planned, calibration, scheme, rules, options
            )
        )
    if plan.embeddings:
        records.append(_tables(loaded, plan, profile, options, handover))
    records.append(handover.record(Clock()))
    graph, written = _written(loaded, path, before)
    done = [record for record in records if record is not None]
    return model.with_step(calibration.record, *done, written, graphs=(graph,))


def _activations(profile: TargetProfile) -> ActivationScheme:
    return ActivationScheme(profile.quantization.activation_type, profile.quantization.activation_symmetric)


def _products(
    graph: ir.Graph,
    plan: Plan,
    calibration: Calibration,
    profile: TargetProfile,
    options: QuantizeOptions,
    handover: Handover,
) -> StepRecord | None:
    """Quantize the matrix products in place; None where the graph has none."""
    clock, rules = Clock(), profile.quantization
    linear_rules = LinearRules(
        _activations(profile),
        rules.per_channel,
        rules.reduce_range,
        # It would change weights whose codes were trained.
        options.smoothing and handover.scales is None,
        options.range_method,
        options.percentile,
        options.rounding,
    )
    layers, unused = quantize_products(
        graph,
        plan.linear,
        calibration,
        linear_rules,
        bias_correction=options.bias_correction,
        handover=handover,
    )
    skipped = (*plan.skipped, *unused)
    if not layers and not skipped:
        return None
    products = [node for group in plan.linear for node in group.nodes]
    with_codes = sum(map(gives_codes, products))
    outputs = "their outputs stay float"
    if with_codes:
        outputs = f"{with_codes} give the next one its codes, the others' outputs stay float"
    return clock.record(
        "quantize",
        "matmul",
        f"quantized the matrix products of {len(layers)} activations; {outputs}",
        skipped=skipped,
        activation_type=rules.activation_type,
        weight_type=rules.weight_type,
        per_channel=rules.per_channel,
        reduce_range=rules.reduce_range,
        matrix_products=len(products),
        **({"eight_bit_outputs": with_codes} if with_codes else {}),
        smoothed=sum(layer["alpha"] is not None for layer in layers),
        layers=list(layers),
    )


def _tables(
    model: ir.Model, plan: Plan, profile: TargetProfile, options: QuantizeOptions, handover: Handover
) -> StepRecord:
    """Store the embedding tables in codes, in place."""
    clock = Clock()
    g.remove_unused(model)  # what products read before does not count as a reader
    stored, untouched = store_tables(
        model.graph,
        plan.embeddings,
        int4=options.embeddings == "int4",
        operator=profile.quantization.int4_tables == "gather-block-quantized",
        handover=handover,
    )
    return _tables_record(clock, stored, untouched)


def _written(model: ir.Model, path: Path, bytes_before: int) -> tuple[Graph, StepRecord]:
    """Write the graph without what nothing reads any more, and release the model."""
    clock = Clock()
    g.remove_unused(model)
    compact(model.graph)
    g.forget_inner_shapes(model)
    graph = g.saved(model, path)
    g.release(model)
    after = path.stat().st_size
    return graph, clock.record(
        "quantize",
        "write",
        f"static int8, {bytes_before / after:.2f}x smaller",
        bytes_before=bytes_before,
        bytes_after=after,
    )


def _tables_record(clock: Clock, stored: Sequence[StoredTable], skipped: Sequence[Skip]) -> StepRecord:
    """Return what was done to the embedding tables."""
    saved = sum(table.bytes_saved for table in stored)
    did = f"stored {len(stored)} embedding tables as int8 with one scale per row"
    blocks = [table for table in stored if table.form == "int4"]
    if not blocks:
        return clock.record("quantize", "embeddings", did, skipped=tuple(skipped), bytes_saved=saved)
    plural = "s" if len(blocks) > 1 else ""
    did = f"stored {len(blocks)} embedding table{plural} as int4 with one scale per block"
    if len(stored) > len(blocks):
        did += f", {len(stored) - len(blocks)} as int8 with one scale per row"
    tables = [
        {
            "name": table.name,
            "form": table.form,
            "rows": table.shape[0],
            "columns": table.shape[1],
            "error": float(f"{table.error:.3e}"),
            "zero_points": table.zero_points,
        }
        for table in stored
    ]
    return clock.record(
        "quantize",
        "embeddings",
        did,
        skipped=tuple(skipped),
        bytes_saved=saved,
        form="int4",
        block=BLOCK,
        tables=tables,
    )
