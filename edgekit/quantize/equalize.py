"""Cross-layer equalization: channels of the tensors between convolutions are brought to like sizes.

A tensor has one scale in 8 bits, so its small channels use few codes. Between convolutions a channel can
be divided by any factor, if those that make it divide their weight's rows and those that read it multiply
their weight's columns: the float function stays what it was. That holds through every op that commutes
with a positive factor per channel (Relu, max and average pools, sums of tensors that are all divided), and
through no other: a Clip, so ReLU6 too, cuts every channel at the same value.

Factors are tried and kept only where the convolutions' outputs, on windows of calibration data, really
lose less.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv:1906.04721, section 4.1; Xiao et al. 2022, arXiv:2211.10438, equation 4 (factors from activations).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.quantize.calibrate import Overlaid
from edgekit.quantize.observers import RunningHistogram, TensorStats
from edgekit.quantize.plan import Plan, why_not
from edgekit.quantize.ranges import choose_range
from edgekit.quantize.schemes import ActivationScheme, quantize_weight
from edgekit.quantize.windows import Samples, as_stored, kernel_weight, products
from edgekit.record import Fact, Skip

_COMMUTE = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Identity")
_ALPHAS = (0.5, 0.75, 1.0)
# What equalization has to take away of the outputs' error; less could be chance.
_WORTH = 0.1
_LARGEST_FACTOR = 64.0


@dataclass(frozen=True)
class EqualizeRules:
    """What a profile and a request allow here."""

    scheme: ActivationScheme
    per_channel: bool
    reduce_range: bool
    range_method: str
    percentile: float


@dataclass
class Region:
    """Tensors whose channels have to be divided by the same factors.

    Attributes:
        tensors: In the order they were found.
        makers: Convolutions that give some of them.
        readers: Convolutions and Gemms that read some of them; one may be a maker too.
        obstacle: Why no factor but 1 is exact, or empty.
    """

    tensors: list[ir.Value] = field(default_factory=list)
    makers: list[ir.Node] = field(default_factory=list)
    readers: list[ir.Node] = field(default_factory=list)
    obstacle: str = ""


@dataclass(frozen=True)
class Equalized:
    """Statistics and samples as they are after equalization, and what was done.

    Attributes:
        tensors: Tensor name -> statistics.
        samples: Pieces of the tensors.
        done: What to record of each region that was equalized.
        skipped: Why others were not.
    """

    tensors: Mapping[str, TensorStats]
    samples: Samples
    done: tuple[dict[str, Fact], ...] = ()
    skipped: tuple[Skip, ...] = ()


def equalize(
    graph: ir.Graph,
    plan: Plan,
    tensors: Mapping[str, TensorStats],
    samples: Samples,
    rules: EqualizeRules,
) -> Equalized:
    """Rescale the weights around each region where that makes the outputs more accurate.

    Args:
        graph: Edited in place; its float function stays.
        plan: What is quantized of it.
        tensors: Statistics of its tensors.
        samples: Pieces of what they held.
        rules: What is allowed.
    """
    now = Equalized(tensors, samples)
    done: list[dict[str, Fact]] = []
    left: dict[str, list[str]] = {}
    for region in regions(plan):
        name = region.makers[0].name or region.makers[0].outputs[0].name or ""
        if region.obstacle:
            left.setdefault(region.obstacle, []).append(name)
            continue
        trial = _Trial(region, plan, now, rules)
        plain = trial.error(np.ones(trial.channels))
        found = {how: trial.error(factors) for how, factors in trial.candidates().items()}
        best = min(found, key=lambda how: found[how], default="")
        if not found or found[best] > (1 - _WORTH) * plain:
            left.setdefault("no factors take away a tenth of the outputs' error", []).append(name)
            continue
        factors = trial.candidates()[best]
        rescale(graph, region, factors)
        now = _rescaled(now, plan, region, factors)
        done.append(
            {
                "tensors": [value.name or "" for value in region.tensors],
                "factors": best,
                "output_error": float(f"{found[best]:.3e}"),
                "output_error_plain": float(f"{plain:.3e}"),
            }
        )
    skipped = (Skip(f"equalization behind {_listed(names)}", why) for why, names in left.items())
    return Equalized(now.tensors, now.samples, tuple(done), tuple(skipped))


def regions(plan: Plan) -> list[Region]:
    """Return the regions of a plan's convolutions, in graph order."""
    found: list[Region] = []
    seen: set[ir.Value] = set()
    for conv in plan.convs:
        if conv.outputs[0] not in seen:
            found.append(_grown(conv.outputs[0], plan))
            seen.update(found[-1].tensors)
    return found


def rescale(graph: ir.Graph, region: Region, factors: np.ndarray) -> None:
    """Divide every tensor of a region by `factors`, [channels], through the weights around it."""
    for node in region.makers:
        weight = kernel_weight(node) / factors[:, None, None]
        _set(graph, node, 1, as_stored(node, weight))
        bias = g.constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if bias is not None:
            _set(graph, node, 2, np.broadcast_to(bias.reshape(-1), factors.shape) / factors)
    for node in region.readers:
        _set(graph, node, 1, as_stored(node, _columns(kernel_weight(node), factors)))


def _grown(start: ir.Value, plan: Plan) -> Region:
    region, todo = Region(), [start]
    while todo:
        value = todo.pop()
        if value in region.tensors:
            continue
        region.tensors.append(value)
        if value.is_graph_output():
            region.obstacle = region.obstacle or f"'{value.name}' is an output of the model"
        maker = value.producer()
        if maker is None:
            region.obstacle = region.obstacle or f"'{value.name}' is an input of the model"
        elif maker.op_type == "Conv" and not why_not(maker):
            region.makers.append(maker)
        else:
            todo += _passed(region, maker, maker.inputs)
        for node in g.consumers(value):
            if _reads_channels(node, value, plan):
                region.readers.append(node)
            else:
                todo += _passed(region, node, node.outputs)
    region.readers = list(dict.fromkeys(region.readers))
    if not region.readers:
        region.obstacle = region.obstacle or "no convolution reads it"
    return region


def _reads_channels(node: ir.Node, value: ir.Value, plan: Plan) -> bool:
    takes = node.op_type == "Conv" or (node.op_type == "Gemm" and node in plan.on_codes)
    return takes and node.inputs[0] is value and not why_not(node)


def _passed(region: Region, node: ir.Node, values: Sequence[ir.Value | None]) -> list[ir.Value]:
    """Return the values on the other side of an op; where factors do not commute with it, note that."""
    there = [value for value in values if value is not None]
    before = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if (
        node.op_type in ("Flatten", "Reshape")
        and before is not None
        and before.op_type == "GlobalAveragePool"
    ):
        there = there[:1]
    elif node.op_type not in _COMMUTE or any(g.constant(value) is not None for value in node.inputs):
        does = "cuts every channel at the same value" if node.op_type == "Clip" else "mixes sizes of channels"
        region.obstacle = region.obstacle or f"a {node.op_type} {does}: factors would change the function"
        return []
    return there


class _Trial:
    """Measures what factors make of a region."""

    def __init__(self, region: Region, plan: Plan, now: Equalized, rules: EqualizeRules):
        self.region, self.plan, self.now, self.rules = region, plan, now, rules
        self.inside = set(region.tensors)
        self.channels = len(kernel_weight(region.makers[0]))
        nodes = dict.fromkeys((*region.readers, *(() if rules.per_channel else region.makers)))
        self.nodes = [node for node in nodes if (node.outputs[0].name or "") in now.samples.windows]
        self.real = {node: products(self._windows(node), kernel_weight(node)) for node in self.nodes}

    def candidates(self) -> dict[str, np.ndarray]:
        """Return name -> factors, [channels], around 1."""
        if not self.nodes:
            return {}
        sources = {self.plan.tensors[v] for v in self.region.tensors if v in self.plan.tensors}
        peaks = [np.maximum(-s.low, s.high) for s in (self.now.tensors[v.name or ""] for v in sources)]
        activation = np.max(peaks, axis=0).astype(np.float64)
        rows = np.max([np.abs(kernel_weight(n)).max(axis=(1, 2)) for n in self.region.makers], axis=0)
        columns = np.max([_column_peaks(n, self.channels) for n in self.region.readers], axis=0)
        out = {"cross-layer": _centered(rows**0.5, columns**0.5)}
        return out | {f"alpha {a:g}": _centered(activation**a, columns ** (1 - a)) for a in _ALPHAS}

    def error(self, factors: np.ndarray) -> float:
        """Return the sum over the nodes of their outputs' error energy over their outputs' energy."""
        rules, total = self.rules, 0.0
        for node in self.nodes:
            windows, weight = self._windows(node), kernel_weight(node)
            value = node.inputs[0]
            assert value is not None
            source = self.plan.tensors[value]
            into = factors if value in self.inside else np.ones(windows.shape[1])
            out = factors if node.outputs[0] in self.inside else np.ones(len(weight))
            stats, vectors = self.now.tensors[source.name or ""], self.now.samples.vectors[source.name or ""]
            scaled = _scaled_stats(stats, vectors, into)
            affine = choose_range(
                scaled.histogram, scaled.bounds, rules.scheme, rules.range_method, rules.percentile
            )
            held = affine.fake((windows / into[:, None]).astype(np.float32))
            rescaled = (_columns(weight, into) / out[:, None, None]).astype(np.float32)
            axis = 0 if rules.per_channel else None
            codes, scale = quantize_weight(rescaled, axis, reduce_range=rules.reduce_range)
            found = products(held, codes * scale.reshape(-1, 1, 1)) * out
            energy = float(np.mean(self.real[node].astype(np.float64) ** 2)) or 1.0
            total += float(np.mean((found - self.real[node]) ** 2)) / energy
        return total

    def _windows(self, node: ir.Node) -> np.ndarray:
        return self.now.samples.windows[node.outputs[0].name or ""]


def _centered(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Return up / down around a geometric mean of 1; channels that are dead on either side keep 1."""
    factors = np.ones(len(up))
    alive = (up > 1e-6 * up.max(initial=0)) & (down > 1e-6 * down.max(initial=0))
    if alive.any():
        ratio = up[alive] / down[alive]
        factors[alive] = ratio / np.exp(np.mean(np.log(ratio)))
    return np.clip(factors, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR).astype(np.float32)


def _columns(weight: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Multiply the channels that a weight [outputs, channels of a group, terms] reads by factors."""
    outputs, own, _ = weight.shape
    groups = len(factors) // own
    return weight * np.repeat(factors.reshape(groups, own), outputs // groups, axis=0)[:, :, None]


def _column_peaks(node: ir.Node, channels: int) -> np.ndarray:
    weight = np.abs(kernel_weight(node)).max(axis=2)  # [outputs, channels of a group]
    groups = channels // weight.shape[1]
    return weight.reshape(groups, -1, weight.shape[1]).max(axis=1).reshape(-1)


def _rescaled(now: Equalized, plan: Plan, region: Region, factors: np.ndarray) -> Equalized:
    stats, vectors, windows = {}, dict(now.samples.vectors), dict(now.samples.windows)
    for name in {plan.tensors[v].name or "" for v in region.tensors if v in plan.tensors}:
        stats[name] = _scaled_stats(now.tensors[name], vectors[name], factors)
        vectors[name] = (vectors[name] / factors).astype(np.float32)
    for name in (node.outputs[0].name or "" for node in region.readers):
        if name in windows:
            windows[name] = (windows[name] / factors[:, None]).astype(np.float32)
    return replace(now, tensors=Overlaid(now.tensors, stats), samples=Samples(vectors, windows))


def _scaled_stats(stats: TensorStats, vectors: np.ndarray, factors: np.ndarray) -> TensorStats:
    """Return the statistics of a tensor whose channels are divided by factors; the histogram is sampled."""
    histogram = RunningHistogram()
    histogram.update((vectors / factors).astype(np.float32))
    low, high = (stats.low / factors).astype(np.float32), (stats.high / factors).astype(np.float32)
    return replace(stats, low=low, high=high, total=stats.total / factors, histogram=histogram)


def _set(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray) -> None:
    old = node.inputs[index]
    assert old is not None
    node.replace_input_with(index, g.add_constant(graph, f"{old.name}_equalized", array.astype(np.float32)))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"{', '.join(names[:2])}{more}"
