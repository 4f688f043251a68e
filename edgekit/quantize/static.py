"""Static int8 in QDQ form, by the rules of a target profile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.model import OnnxModel
from edgekit.profile import TargetProfile
from edgekit.quantize.calibrate import Calibration
from edgekit.quantize.insert import (
    dequantized_weight,
    embedding_per_row,
    hold_in_8_bits,
    int32_bias,
    quantize_dequantize,
)
from edgekit.quantize.linear import LinearRules, LinearSolution, QuantizedWeight, solve
from edgekit.quantize.plan import LinearGroup, Plan, make_plan, transposed, weight_matrix
from edgekit.quantize.ranges import choose_range
from edgekit.quantize.schemes import ActivationScheme, Affine, quantize_weight
from edgekit.recipe import QuantizeOptions
from edgekit.record import Clock, Fact, Skip


def quantize(
    model: OnnxModel, calibration: Calibration, profile: TargetProfile, options: QuantizeOptions, path: Path
) -> OnnxModel:
    """Write the quantized graph to `path` and return it, with the records of what was done.

    Args:
        model: The float graph that `calibration` was made on.
        calibration: Statistics of its tensors.
        profile: The target: types, symmetry, ranges, op types.
        options: Choices of the request.
        path: The new file; the float file is not touched.
    """
    loaded, rules, before = g.load(model.only.path), profile.quantization, model.file_bytes
    plan = make_plan(
        loaded,
        matmul_ops=rules.matmul_ops,
        conv_ops=rules.conv_ops,
        embeddings=rules.embeddings == "int8-per-row",
        exclude=options.exclude,
    )
    scheme = ActivationScheme(rules.activation_type, rules.activation_symmetric)
    linear_rules = LinearRules(
        scheme,
        rules.per_channel,
        rules.reduce_range,
        options.smoothing,
        options.range_method,
        options.percentile,
    )
    skipped = list(plan.skipped)

    clock = Clock()
    solutions = _solutions(plan, calibration, linear_rules, skipped)
    layers = [_apply_linear(loaded.graph, *found, options, skipped) for found in solutions]
    products = sum(len(group.nodes) for group, _ in solutions)
    matmuls = clock.record(
        "quantize",
        "matmul",
        f"quantized {products} matrix products; outputs stay float",
        skipped=tuple(skipped),
        activation_type=rules.activation_type,
        weight_type=rules.weight_type,
        per_channel=rules.per_channel,
        reduce_range=rules.reduce_range,
        smoothed=sum(layer["alpha"] is not None for layer in layers),
        layers=list(layers),
    )
    records = [matmuls] if layers or skipped else []
    if plan.convs or plan.conv_skipped:
        clock = Clock()
        affines = _apply_convs(loaded.graph, plan, calibration, scheme, profile, options)
        records.append(
            clock.record(
                "quantize",
                "conv",
                f"quantized {len(plan.convs)} convolutions with {len(affines)} tensors held in 8 bits",
                skipped=plan.conv_skipped,
                convolutions=len(plan.convs),
                matrix_products=len(plan.on_codes),
                range_method=options.range_method,
            )
        )
    if plan.embeddings:
        clock = Clock()
        saved = sum(embedding_per_row(loaded.graph, node) for node in plan.embeddings)
        did = f"stored {len(plan.embeddings)} embedding tables as int8 with one scale per row"
        records.append(clock.record("quantize", "embeddings", did, bytes_saved=saved))
    g.remove_unused(loaded)
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


def _solutions(
    plan: Plan, calibration: Calibration, rules: LinearRules, skipped: list[Skip]
) -> list[tuple[LinearGroup, LinearSolution]]:
    found = []
    for group in plan.linear:
        name = group.activation.name or ""
        stats = calibration.tensors[name]
        if not len(stats.rows) or not np.any(stats.high - stats.low):
            why = "its activation is constant on the calibration data"
            skipped += [Skip(f"{node.op_type} {node.name}", why) for node in group.nodes]
            continue
        weights = [weight_matrix(node) for node in group.nodes]
        found.append((group, solve(stats, weights, rules, free=_foldable(group) is not None)))
    return found


def _apply_linear(
    graph: ir.Graph,
    group: LinearGroup,
    solution: LinearSolution,
    options: QuantizeOptions,
    skipped: list[Skip],
) -> dict[str, Fact]:
    """Quantize the products of one activation and return what to record of it."""
    value, name = group.activation, group.activation.name or "activation"
    new: list[ir.Node] = []
    norm = _foldable(group)
    placed = "none"
    if solution.smoothing is not None and norm is not None:
        _fold_into_norm(graph, norm, solution.smoothing)
        placed = f"folded into {norm.op_type}"
    elif solution.smoothing is not None:
        inverse = g.add_constant(graph, f"{name}_smoothing", (1 / solution.smoothing).astype(np.float32))
        multiply = ir.node("Mul", [value, inverse], name=f"{name}_smooth")
        multiply.outputs[0].name = f"{name}_smoothed"
        new, value, placed = [multiply], multiply.outputs[0], "Mul"
    pair = quantize_dequantize(graph, value, solution.affine, name)
    graph.insert_before(group.nodes[0], [*new, *pair])
    for node, weight in zip(group.nodes, solution.weights, strict=True):
        node.replace_input_with(0, pair[-1].outputs[0])
        shift = weight.mean_shift if options.bias_correction else np.zeros_like(weight.mean_shift)
        _set_weight(graph, node, weight, solution.affine, shift, skipped)
    return {
        "activation": name,
        "nodes": [node.name or node.outputs[0].name or "" for node in group.nodes],
        "alpha": solution.alpha,
        "smoothing": placed,
        "output_error": float(f"{solution.error:.3e}"),
        "output_error_plain": float(f"{solution.error_plain:.3e}"),
    }


def _set_weight(
    graph: ir.Graph,
    node: ir.Node,
    weight: QuantizedWeight,
    affine: Affine,
    shift: np.ndarray,
    skipped: list[Skip],
) -> None:
    flip = transposed(node)
    old = node.inputs[1]
    name = (old.name if old is not None else None) or f"{node.name}_weight"
    codes = weight.codes.T if flip else weight.codes
    held = dequantized_weight(graph, node, codes, weight.scale, 0 if flip else 1, name)
    node.replace_input_with(1, held)
    if node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = g.constant(node.inputs[2])
        if bias is not None:
            full = np.broadcast_to(bias.reshape(-1), shift.shape) + shift
            int32_bias(graph, node, full, affine.scale, weight.scale, f"{node.inputs[2].name}_corrected")
            return
    if shift.any() and not _add_to_bias(graph, node, shift):
        skipped.append(Skip(f"bias correction of {node.op_type} {node.name}", "no constant bias follows it"))


def _add_to_bias(graph: ir.Graph, node: ir.Node, shift: np.ndarray) -> bool:
    """Add to the constant of the Add that alone reads a MatMul; return whether there is one."""
    readers = g.consumers(node.outputs[0])
    if len(readers) != 1 or readers[0].op_type != "Add":
        return False
    for index, value in enumerate(readers[0].inputs):
        bias = g.constant(value)
        if value is not None and bias is not None and bias.shape == shift.shape:
            corrected = (bias + shift).astype(np.float32)
            readers[0].replace_input_with(index, g.add_constant(graph, f"{value.name}_corrected", corrected))
            return True
    return False


def _foldable(group: LinearGroup) -> ir.Node | None:
    """Return the norm whose weights can take the smoothing exactly: only these products read it."""
    norm = group.activation.producer()
    if norm is None or norm.op_type not in ("LayerNormalization", "RMSNormalization"):
        return None
    if group.activation.is_graph_output() or set(g.consumers(group.activation)) != set(group.nodes):
        return None
    parameters = [v for v in norm.inputs[1:] if v is not None]
    return norm if all(g.constant(v) is not None for v in parameters) else None


def _fold_into_norm(graph: ir.Graph, norm: ir.Node, smoothing: np.ndarray) -> None:
    for index in range(1, len(norm.inputs)):
        value = norm.inputs[index]
        if value is not None:
            parameter = g.constant(value)
            assert parameter is not None
            smoothed = (parameter / smoothing).astype(np.float32)
            norm.replace_input_with(index, g.add_constant(graph, f"{value.name}_smoothed", smoothed))


def _apply_convs(
    graph: ir.Graph,
    plan: Plan,
    calibration: Calibration,
    scheme: ActivationScheme,
    profile: TargetProfile,
    options: QuantizeOptions,
) -> dict[ir.Value, Affine]:
    """Hold every tensor of the convolutional regions in 8 bits, and quantize the weights there."""
    affines: dict[ir.Value, Affine] = {}
    for value in dict.fromkeys(plan.tensors.values()):
        stats = calibration.tensors[value.name or ""]
        affines[value] = choose_range(
            stats.histogram, stats.bounds, scheme, options.range_method, options.percentile
        )
    rules = profile.quantization
    for node in (*plan.convs, *plan.on_codes):
        old = node.inputs[1]
        weight = g.constant(old)
        assert weight is not None and old is not None
        channels = 0 if node.op_type == "Conv" or transposed(node) else 1
        per_channel = channels if rules.per_channel else None
        codes, scale = quantize_weight(weight, per_channel, reduce_range=rules.reduce_range)
        activation = node.inputs[0]
        assert activation is not None
        step = affines[plan.tensors[activation]].scale
        node.replace_input_with(
            1, dequantized_weight(graph, node, codes, scale, channels, old.name or "weight")
        )
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            bias = g.constant(node.inputs[2])
            assert bias is not None
            int32_bias(graph, node, bias, step, scale, node.inputs[2].name or "bias")
    for value, source in plan.tensors.items():
        hold_in_8_bits(graph, value, affines[source], plan.on_tensors if value in plan.entries else None)
    return affines
