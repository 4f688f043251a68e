"""Whether calibration can be trusted: what went in, whether ranges settled, and what they cut off later.

What is surely wrong stops at once; what is measured becomes checks with budgets, which gate like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from edgekit import graph as g
from edgekit.errors import DataError
from edgekit.quantize.calibrate import Calibration
from edgekit.quantize.observe import Batch, observe
from edgekit.recipe import QuantizeOptions
from edgekit.record import Check, Clock, StepRecord
from edgekit.tasks.base import Gate, gated

HELD_OUT_SAMPLES = 32
"""Held-out samples that clipping is counted on. A text of 20 tokens gives hundreds of values per channel
group and thousands per tensor, so 32 show a share of 1 percent a hundred times over."""

_TENTHS = 10
_GREW = 0.01
"""A range has grown where its width did by this share of what it became: more than a step of 8 bits."""

_NOTED_CLIPPING = 1e-3
_SHOWN = 8

RANGE_GROWTH = Gate(
    "range_growth",
    "Share of the ranges' width that came in the last tenth of the calibration data, mean over tensors",
    "<=",
    0.25,
    "all-MiniLM-L6-v2 has 0.0003 with 256 texts and 0.006 with 32; where a quarter of the width is that new, "
    "a few more samples would give other ranges",
)

CLIP_RATE = Gate(
    "clip_rate",
    "Values outside the chosen range on held-out data, worst tensor",
    "<=",
    0.01,
    "ranges that suit the data cut off about 1 value in 10,000 (Banner et al. 2019, arXiv:1810.05723); "
    "all-MiniLM-L6-v2 has 0.0003 with 256 texts of the same kind, 0.02 with 32, and 0.03 to 0.08 with lists "
    "of numbers or another language, where its cosine falls to 0.96",
)

GATES = (RANGE_GROWTH, CLIP_RATE)


@dataclass(frozen=True)
class CalibrationAudit:
    """What calibration tells about itself.

    Attributes:
        asked: Samples asked for at most.
        used: Samples run.
        constant_inputs: Inputs that are the same in every sample.
        dead_channels: Tensor name -> channels that have one value only, where there are any.
        growth: Share of the tensors whose range grew, for each tenth of the data.
        last_growth: Share of the ranges' width that came in the last tenth, mean over tensors.
        still_growing: Tensors whose range grew in the last tenth, most first.
    """

    asked: int
    used: int
    constant_inputs: tuple[str, ...]
    dead_channels: Mapping[str, int]
    growth: tuple[float, ...]
    last_growth: float
    still_growing: tuple[str, ...]


@dataclass(frozen=True)
class Clipping:
    """How much of a tensor lies outside its range.

    Attributes:
        tensor: What is quantized.
        outside: Values that no code stands for, after rounding.
        values: All values.
    """

    tensor: str
    outside: int
    values: int

    @property
    def rate(self) -> float:
        """Share of the values that is cut off."""
        return self.outside / max(self.values, 1)


def audit_calibration(calibration: Calibration, asked: int) -> CalibrationAudit:
    """Return what calibration tells about itself.

    Args:
        calibration: What was observed.
        asked: Samples that were asked for at most.

    Raises:
        DataError: An input of real numbers is the same in every sample: then no tensor behind it varies as
            it will in the app.
    """
    seen = calibration.seen
    constant = tuple(name for name, span in seen.inputs.items() if span.low == span.high or not span.varies)
    for name in constant:
        if seen.inputs[name].floating:
            span = seen.inputs[name]
            what = f"always {span.low:g}" if span.low == span.high else "the same in every sample"
            raise DataError(
                f"the calibration data is constant: the model's input '{name}' is {what}",
                "Give samples in which it varies; what never varies can be built into the model.",
            )
    dead: dict[str, int] = {}
    widths: dict[str, list[float]] = {}
    for name, stats in calibration.tensors.items():
        channels = int((stats.low == stats.high).sum())
        if channels:
            dead[name] = channels
        widths[name] = [stats.width_after(stats.batches * t // _TENTHS) for t in range(_TENTHS + 1)]
    grown = {
        name: [(after - before) / (width[-1] or 1.0) for before, after in pairwise(width)]
        for name, width in widths.items()
    }
    last = {name: steps[-1] for name, steps in grown.items() if steps[-1] > _GREW}
    count = max(len(grown), 1)
    return CalibrationAudit(
        asked=asked,
        used=calibration.samples,
        constant_inputs=constant,
        dead_channels=dead,
        growth=tuple(sum(s[t] > _GREW for s in grown.values()) / count for t in range(_TENTHS)),
        last_growth=sum(steps[-1] for steps in grown.values()) / count,
        still_growing=tuple(sorted(last, key=lambda name: -last[name])),
    )


def count_clipping(path: Path, batches: Iterable[Batch]) -> tuple[Clipping, ...]:
    """Run a quantized graph and count, before each `QuantizeLinear`, what its range cuts off.

    This reads the artifact itself, so it holds for any way that ranges were chosen, smoothing included.

    Args:
        path: The quantized graph.
        batches: Inputs that calibration did not see.

    Returns:
        One entry per quantized activation, worst first.
    """
    model = g.load(path)
    codes: dict[str, tuple[np.float32, int, np.iinfo]] = {}
    for node in g.nodes(model.graph, "QuantizeLinear"):
        scale = g.constant(node.inputs[1])
        zero = g.constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.uint8)
        value = node.inputs[0]
        if value is None or g.constant(value) is not None or scale is None or zero is None or scale.size > 1:
            continue
        codes[value.name or ""] = (np.float32(scale.item()), int(zero.item()), np.iinfo(zero.dtype))
    counts = {name: [0, 0] for name in codes}
    if codes:
        for _, values in observe(path, list(codes), batches):
            for name, (step, middle, limits) in codes.items():
                found = np.rint(np.asarray(values[name], np.float32) / step) + middle
                counts[name][0] += int(((found < limits.min) | (found > limits.max)).sum())
                counts[name][1] += found.size
    every = (Clipping(name, outside, total) for name, (outside, total) in counts.items())
    return tuple(sorted(every, key=lambda clipping: -clipping.rate))


def audit_checks(
    audit: CalibrationAudit,
    clipping: tuple[Clipping, ...],
    options: QuantizeOptions,
    gates: Mapping[str, float],
) -> tuple[Check, ...]:
    """Return the checks of a target's calibration; each names its worst tensor and what to do.

    Args:
        audit: Of the calibration.
        clipping: Of the quantized graph on held-out data, worst first.
        options: What ranges were asked for: a percentile cuts off what it was told to.
        gates: Thresholds of the request or the target, by name.
    """
    allowed = CLIP_RATE.budget
    if options.range_method == "percentile":
        allowed += 2 * (1 - options.percentile / 100)
    growth = _named(RANGE_GROWTH, RANGE_GROWTH.budget, audit.still_growing[:1])
    checks = [gated(growth, audit.last_growth)]
    if clipping:
        worst = clipping[0]
        checks.append(gated(_named(CLIP_RATE, allowed, (worst.tensor,)), worst.rate))
    return tuple(check.with_budget(gates) for check in checks)


def audit_notes(audit: CalibrationAudit, clipping: tuple[Clipping, ...]) -> tuple[str, ...]:
    """Return what a person should know though it stops nothing."""
    notes = []
    if audit.used < audit.asked:
        notes.append(f"Calibration used {audit.used} samples; up to {audit.asked} were asked for.")
    clipped = [found for found in clipping if found.rate > _NOTED_CLIPPING]
    if clipped:
        notes.append(
            f"{len(clipped)} of {len(clipping)} tensors cut off more than {_NOTED_CLIPPING:.1%} of their"
            f" held-out values, most of all '{clipped[0].tensor}' ({clipped[0].rate:.2%}):"
            " calibrate with more samples of what the app will see."
        )
    return tuple(notes)


def audit_record(
    audit: CalibrationAudit, clipping: tuple[Clipping, ...], held_out: int, clock: Clock
) -> StepRecord:
    """Return the record of an audit, with the convergence curve and the tensors that clip most."""
    return clock.record(
        "quantize",
        "audit",
        f"counted what the ranges cut off on {held_out} held-out samples: at most {_worst(clipping):.2%}",
        samples_asked=audit.asked,
        samples_used=audit.used,
        constant_inputs=list(audit.constant_inputs),
        dead_channels=dict(audit.dead_channels),
        range_growth_by_tenth=[round(share, 4) for share in audit.growth],
        range_growth_last_tenth=float(f"{audit.last_growth:.3g}"),
        still_growing=list(audit.still_growing[:_SHOWN]),
        tensors_quantized=len(clipping),
        clip_rate_median=float(np.median([c.rate for c in clipping])) if clipping else 0.0,
        clip_rate_worst={c.tensor: float(f"{c.rate:.3g}") for c in clipping[:_SHOWN]},
    )


def _worst(clipping: tuple[Clipping, ...]) -> float:
    return clipping[0].rate if clipping else 0.0


def _named(gate: Gate, budget: float, tensors: tuple[str, ...]) -> Gate:
    """Return a gate whose reason says which tensor is worst and what to do about it."""
    worst = f"worst: '{tensors[0]}'; " if tensors else ""
    advice = "give more calibration samples, of what the app will see"
    return Gate(gate.name, gate.title, gate.comparison, budget, f"{worst}{advice}; {gate.why}", gate.unit)
