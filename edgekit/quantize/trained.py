"""Codes that a training had in it, put to use: which weight of the graph they are for, and whether they fit.

A product or table takes trained codes as they are, or none of them: then it is quantized as any other, and
the record says why. Nothing is matched by order or shape alone: weights bear the paths of their modules, and
the scales of weights must follow from the graph's weights as they did from the trained ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.errors import ModelError
from edgekit.profile import TargetProfile
from edgekit.quantize.linear import LinearRules, LinearSolution, QuantizedWeight, at_fixed_codes
from edgekit.quantize.observers import TensorStats
from edgekit.quantize.plan import LinearGroup, weight_matrix
from edgekit.quantize.schemes import Affine, quantize_product_weight, with_room_for_bias
from edgekit.record import Clock, Skip, StepRecord
from edgekit.trained_scales import CodeRules, ProductScales, TableScales, TrainedScales

_ROWS_AT_ONCE = 1 << 13


@dataclass
class Handover:
    """Trained scales on their way into a graph.

    Attributes:
        scales: As they were trained; None where this target has other codes.
        skipped: What was not taken, and why.
        products: Modules whose products took theirs.
        tables: Modules whose tables did.
        refused: Modules that `skipped` tells of.
    """

    scales: TrainedScales | None
    skipped: list[Skip] = field(default_factory=list)
    products: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls, trained: TrainedScales | None, profile: TargetProfile, weights: Iterable[str] = ()
    ) -> Handover:
        """Return what a target can take of trained scales.

        Args:
            trained: As they came with the model, if they did.
            profile: The target.
            weights: Names of the float graph's constants; for whole graphs they do not matter.

        Raises:
            ModelError: Not one of them belongs to this graph.
        """
        if trained is None:
            return cls(None)
        rules = profile.quantization
        if rules.scope != "kernels" or CodeRules.of(rules) != trained.rules:
            why = f"{profile.name} has other codes, so this model is quantized as one that never saw any"
            return cls(None, [Skip(f"scales trained for {trained.target}", why)])
        there = {path for name in weights for path in _paths(name)}
        absent = [name for name in (*trained.products, *trained.tables) if name not in there]
        if absent and len(absent) == len(trained.products) + len(trained.tables):
            raise ModelError(
                f"none of the trained scales belongs to this graph, e.g. those of {absent[0]}",
                "Distill the model again, or delete its trained_scales.npz to quantize it as any other.",
            )
        handover = cls(trained)
        handover._refuse(absent, "the graph has no weight of that name")
        return handover

    def solution(self, group: LinearGroup, stats: TensorStats, rules: LinearRules) -> LinearSolution | None:
        """Return a group's products in their trained codes, or None where they have none that fit."""
        names = [name for node in group.nodes for name in _modules(node.inputs[1])]
        known = self.scales.products if self.scales is not None else {}
        there = [name for name in names if name in known]
        if not there:
            return None
        first, weights = known[there[0]], [weight_matrix(node) for node in group.nodes]
        affine = Affine(first.step, rules.scheme.qmin + first.zero, rules.scheme)
        solution = at_fixed_codes(stats, weights, rules, affine)
        reason = _why_not(names, [known.get(name) for name in names], solution)
        for node, weight in zip(group.nodes, solution.weights, strict=True):
            reason = reason or _why_no_room(node, weight, first.step)
        if reason:
            self._refuse(there, reason)
            return None
        self.products += there
        return solution

    def table(self, name: str, table: np.ndarray, form: str) -> TableScales | None:
        """Return the trained scales of a table, or None where it has none that fit.

        Args:
            name: Of the constant.
            table: float32 [rows, columns].
            form: `int8` or `int4`.
        """
        (module,) = _paths(name)
        trained = self.scales.tables.get(module) if self.scales is not None else None
        if trained is None:
            return None
        reason = ""
        if trained.form != form:
            bits = {"int8": "8 bits", "int4": "4 bits"}
            reason = f"it was trained in {bits[trained.form]} and is stored in {bits[form]}"
        elif len(trained.scale) != len(table):
            reason = f"it has {len(table)} rows, and {len(trained.scale)} were trained"
        elif form == "int8" and not np.array_equal(row_scales(table), trained.scale):
            reason = "the graph's rows are not those that were trained"
        if reason:
            self._refuse([module], reason)
            return None
        self.tables.append(module)
        return trained

    def record(self, clock: Clock) -> StepRecord | None:
        """Return what was taken and what was not; None where nothing was trained."""
        if self.scales is None:
            if not self.skipped:
                return None
            did = "took no trained scales"
            return clock.record("quantize", "trained-scales", did, skipped=tuple(self.skipped))
        told = {*self.products, *self.tables, *self.refused}
        left = [name for name in (*self.scales.products, *self.scales.tables) if name not in told]
        self._refuse(left, "its weight is not in 8 bits or fewer in this graph")
        products, tables = len(self.products), len(self.tables)
        return clock.record(
            "quantize",
            "trained-scales",
            f"took the scales of {products} matrix products and {tables} tables"
            f" as they were trained for {self.scales.target}",
            skipped=tuple(self.skipped),
            products=list(self.products),
            tables=list(self.tables),
        )

    def _refuse(self, modules: Sequence[str], why: str) -> None:
        self.refused |= set(modules)
        self.skipped += [Skip(f"trained scales of {module}", why) for module in modules]


def product_scales(weight: np.ndarray, rules: CodeRules) -> np.ndarray:
    """Return the scales of a product's output channels: weight [channels, K] → float32 [channels]."""
    return quantize_product_weight(weight.T, per_channel=True, saturation_safe=rules.reduce_range)[1]


def row_scales(table: np.ndarray) -> np.ndarray:
    """Return the scales of a table's rows in 8 bits: [rows, columns] → float32 [rows]."""
    parts = [table[start : start + _ROWS_AT_ONCE] for start in range(0, len(table), _ROWS_AT_ONCE)]
    found = [quantize_product_weight(part.T, per_channel=True, saturation_safe=False)[1] for part in parts]
    return np.concatenate(found)


def _why_not(names: Sequence[str], trained: Sequence[ProductScales | None], solution: LinearSolution) -> str:
    """Return why the products of one activation cannot take their trained codes, or an empty string."""
    missing = [name for name, own in zip(names, trained, strict=True) if own is None]
    if missing:
        return f"{missing[0]} reads the same values and was not trained with codes"
    found = [own for own in trained if own is not None]
    if len({(own.step, own.zero) for own in found}) > 1:
        return "they read the same values and were trained with different codes for them"
    here = np.concatenate([weight.scale.reshape(-1) for weight in solution.weights])
    if not np.array_equal(here, np.concatenate([own.weight for own in found])):
        return "the graph's weights are not those that were trained"
    return ""


def _why_no_room(node: ir.Node, weight: QuantizedWeight, step: float) -> str:
    bias = g.constant(node.inputs[2]) if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    if bias is None:
        return ""
    spread = np.broadcast_to(bias.reshape(-1), weight.codes.shape[1:])
    kept = with_room_for_bias(weight.codes, weight.scale, 1, step, spread)[1]
    return "" if kept is weight.scale else "a bias needs wider steps than those of its weights"


def _modules(weight: ir.Value | None) -> list[str]:
    return _paths(weight.name or "") if weight is not None else []


def _paths(name: str) -> list[str]:
    """Return the modules whose weights a constant holds; packed projections hold several."""
    return [part.removesuffix("_transposed").removesuffix(".weight") for part in name.split("+")]
