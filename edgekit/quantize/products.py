"""Quantize matrix products in place: weights, activations, smoothing and biases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.quantize.calibrate import Calibration
from edgekit.quantize.fold import Fold, find_fold
from edgekit.quantize.insert import dequantized_weight, int32_bias, part_readers, quantize_dequantize
from edgekit.quantize.linear import LinearRules, LinearSolution, QuantizedWeight, smoothing_inverse, solve
from edgekit.quantize.plan import LinearGroup, rectified, transposed, weight_matrix
from edgekit.quantize.schemes import Affine, pair_sums, with_room_for_bias
from edgekit.quantize.trained import Handover
from edgekit.record import Fact, Skip


def quantize_products(
    graph: ir.Graph,
    groups: Sequence[LinearGroup],
    calibration: Calibration,
    rules: LinearRules,
    *,
    bias_correction: bool,
    handover: Handover,
) -> tuple[list[dict[str, Fact]], list[Skip]]:
    """Quantize every group that can be; return what to record of each activation, and what was left alone.

    Args:
        graph: Edited in place.
        groups: In graph order.
        calibration: Statistics of their activations.
        rules: What the profile and the request allow.
        bias_correction: Put the mean error of the outputs into the biases.
        handover: Trained scales, which products take as they are.
    """
    skipped: list[Skip] = []
    usable = [group for group in groups if _varies(group, calibration, skipped)]
    folds = {group.activation: find_fold(group) for group in usable}
    solved: dict[ir.Value, LinearSolution] = {}
    # A fold into another product's weight has to come before that product is solved, the last one first:
    # the product may itself be read through a fold.
    early = [group for group in usable if _is_early(folds[group.activation])]
    for group in (*early[::-1], *(group for group in usable if group not in early)):
        stats = calibration.tensors[group.activation.name or ""]
        fold = folds[group.activation]
        solution = handover.solution(group, stats, rules) or solve(
            stats, [weight_matrix(n) for n in group.nodes], rules, free=fold is not None
        )
        solved[group.activation] = solution
        if fold is not None and solution.smoothing is not None:
            fold.apply(graph, solution.smoothing)
    layers: list[dict[str, Fact]] = []
    for group in usable:
        solution, fold = solved[group.activation], folds[group.activation]
        layers.append(_apply(graph, group, solution, fold, skipped, bias_correction=bias_correction))
    for node in (node for group in usable for node in group.nodes):
        part_readers(graph, node)
    return layers, skipped


def gives_codes(node: ir.Node) -> bool:
    """Return whether the runtime makes a kernel with 8-bit output of a quantized product."""
    out = rectified(node.outputs[0])
    return [reader.op_type for reader in g.consumers(out)] == ["QuantizeLinear"] and not out.is_graph_output()


def _varies(group: LinearGroup, calibration: Calibration, skipped: list[Skip]) -> bool:
    stats = calibration.tensors[group.activation.name or ""]
    if len(stats.rows) and np.any(stats.high - stats.low):
        return True
    why = "its activation is constant on the calibration data"
    skipped += [Skip(f"{node.op_type} {node.name}", why) for node in group.nodes]
    return False


def _is_early(fold: Fold | None) -> bool:
    return fold is not None and fold.early


def _apply(
    graph: ir.Graph,
    group: LinearGroup,
    solution: LinearSolution,
    fold: Fold | None,
    skipped: list[Skip],
    *,
    bias_correction: bool,
) -> dict[str, Fact]:
    value, name = group.activation, group.activation.name or "activation"
    new: list[ir.Node] = []
    placed = "none"
    if solution.smoothing is not None and fold is not None:
        placed = f"folded into the {fold.into}"
    elif solution.smoothing is not None:
        inverse = g.add_constant(graph, f"{name}_smoothing", smoothing_inverse(solution.smoothing))
        multiply = ir.node("Mul", [value, inverse], name=f"{name}_smooth")
        multiply.outputs[0].name = f"{name}_smoothed"
        new, value, placed = [multiply], multiply.outputs[0], "Mul"
    pair = quantize_dequantize(graph, value, solution.affine, name)
    graph.insert_before(group.nodes[0], [*new, *pair])
    for node, weight in zip(group.nodes, solution.weights, strict=True):
        node.replace_input_with(0, pair[-1].outputs[0])
        shift = weight.mean_shift if bias_correction else np.zeros_like(weight.mean_shift)
        _set_weight(graph, node, weight, solution.affine, shift, skipped)
    # At most 128: exact also on CPUs whose int8 kernels add in saturating 16-bit lanes.
    largest_pair = max(int(pair_sums(weight.codes).max()) for weight in solution.weights)
    return {
        "activation": name,
        "nodes": [node.name or node.outputs[0].name or "" for node in group.nodes],
        "alpha": solution.alpha,
        "smoothing": placed,
        "output_error": float(f"{solution.error:.3e}"),
        "output_error_plain": float(f"{solution.error_plain:.3e}"),
        "largest_pair_sum": largest_pair,
        "saturates_without_vnni": largest_pair > 128,
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
    name = _short((old.name if old is not None else None) or f"{node.name}_weight")
    bias = g.constant(node.inputs[2]) if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    codes, scale = weight.codes, weight.scale
    if bias is not None:
        bias = np.broadcast_to(bias.reshape(-1), shift.shape) + shift
        codes, scale = with_room_for_bias(codes, scale, 1, affine.scale, bias)
    held = dequantized_weight(graph, node, codes.T if flip else codes, scale, 0 if flip else 1, name)
    node.replace_input_with(1, held)
    if bias is not None and node.inputs[2] is not None:
        int32_bias(graph, node, bias, affine.scale, scale, _short(node.inputs[2].name or "bias"))
        return
    if shift.any() and not _add_to_bias(graph, node, shift):
        skipped.append(Skip(f"bias correction of {node.op_type} {node.name}", "no constant bias follows it"))


def _short(name: str) -> str:
    """Return a packed weight's name with its first part and the number of others: names are written often."""
    first, *others = name.split("+")
    return f"{first}+{len(others)}" if others else first


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
