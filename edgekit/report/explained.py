"""Where the time goes: the sentences, charts and rows of an explanation in JSON form.

Source of what is said: `edgekit.validate.explanation`. A saved report reads the same as a fresh one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgekit.report import svg
from edgekit.report.wording import number, say_ms

_BARS = 9
_LONGEST_LABEL = 19
_EVEN = 0.1


@dataclass(frozen=True)
class PredictedShape:
    """Int8 products of one shape at one point, and what excluding all of them would do.

    Attributes:
        point: Input shape.
        shape: Shapes of the products.
        nodes: Their names.
        int8_ms: Measured time of all, with their share of conversions.
        float_ms: Predicted time in float.
    """

    point: str
    shape: str
    nodes: tuple[str, ...]
    int8_ms: float
    float_ms: float

    @property
    def gain_ms(self) -> float:
        """What excluding them would save; below 0 it would cost."""
        return self.int8_ms - self.float_ms

    @property
    def effect(self) -> Literal["saves", "costs", "about even"]:
        """What excluding them would do, where that is more than such a prediction can be wrong by."""
        if abs(self.gain_ms) <= _EVEN * self.int8_ms:
            return "about even"
        return "saves" if self.gain_ms > 0 else "costs"


def view(explanation: Mapping[str, Any], markup: Any) -> dict[str, Any] | None:
    """Return what the page says about an explanation; None where nothing was timed."""
    if not explanation.get("roofline") or not explanation.get("points"):
        return None
    point = main_point(explanation)
    note = str(explanation.get("note", ""))
    return {
        "sentences": sentences(explanation),
        "charts": [(caption, markup(chart)) for caption, chart in time_charts(explanation)],
        "note": f"{note[:1].upper()}{note[1:]}.",
        "points": explanation["points"],
        "roofline": explanation["roofline"],
        "kernels_ms": number(point["kernels_ms"]) or math.inf,
        "groups": [
            (f"Conversions and smoothing, {point['shape']}", point["conversions"]),
            (f"What stayed float, {point['shape']}", point["stayed_float"]),
        ],
        "predicted": predicted(explanation),
    }


def main_point(explanation: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the point that details are shown for: the middle one, of two the first."""
    points = explanation["points"]
    found: Mapping[str, Any] = points[main_index(len(points))]
    return found


def main_index(points: int) -> int:
    """Return the index of the point that details are shown for, of so many."""
    return (points - 1) // 2


def sentences(explanation: Mapping[str, Any]) -> list[str]:
    """Return what to know first, in sentences for a person."""
    point, roofline = main_point(explanation), explanation.get("roofline")
    found = [_shares(point)] if number(point.get("macs")) else []
    unasked = [node for node in point["nodes"] if node["role"] == "int8 product" and node["why"]]
    if unasked:
        found.append(f"{unasked[0]['name']} {unasked[0]['why']}{_and_more(len(unasked) - 1)}.")
    if not roofline:
        return [*found, f"Times are left out, since {explanation.get('note', '')}."]
    most, most_float = (float(roofline[f"{kind}_gmacs_per_s"]) for kind in ("int8", "float"))
    for kind in ("int8", "float"):
        rate = number(point.get(f"{kind}_gmacs_per_s"))
        if rate:
            found.append(
                f"{kind.capitalize()} products run at {rate:.0f} billion multiply-adds per second; square"
                f" ones reach {most:.0f} in int8 on this machine, {most_float:.0f} in float."
            )
            break
    bound, kernels = number(point.get("bound_ms")), number(point.get("kernels_ms"))
    if bound and kernels:
        found.append(
            f"At these rates the multiply-adds of a run would take {say_ms(bound)} ms; its kernels take"
            f" {say_ms(kernels)} ms, {kernels / bound:.1f} times as long."
        )
    return [*found, *_conversion_sentences(point, kernels), *_prediction_sentences(explanation)]


def _shares(point: Mapping[str, Any]) -> str:
    share, weights = number(point.get("int8_share")), number(point.get("int8_weight_share"))
    text = f"At {point['shape']}, int8 kernels do {percent(share)} of all multiply-adds"
    return (
        f"{text} and {percent(weights)} of those with constant weights."
        if weights is not None
        else f"{text}."
    )


def _and_more(count: int) -> str:
    return f"; so it is with {count} more" if count else ""


def _conversion_sentences(point: Mapping[str, Any], kernels: float | None) -> list[str]:
    found = []
    for roles, words in (
        (("quantize", "dequantize"), "QuantizeLinear and DequantizeLinear take"),
        (("smoothing",), "explicit smoothing (Mul before a QuantizeLinear) takes"),
    ):
        groups = [group for group in point["conversions"] if group["role"] in roles]
        if not groups or not kernels:
            continue
        ms = sum(number(group["ms"]) or 0 for group in groups)
        text = f"{words[0].upper()}{words[1:]} {say_ms(ms)} ms, {percent(ms / kernels)} of the kernels' time"
        left = sum(int(group["count"]) for group in groups if group["needed"] is False)
        if roles[0] == "quantize":
            text += f"; {left or 'none'} of them {'is' if left == 1 else 'are'} left over"
        found.append(f"{text}.")
    return found


def _prediction_sentences(explanation: Mapping[str, Any]) -> list[str]:
    rows = predicted(explanation)
    if not rows:
        return []
    gains = [row for row in rows if row.effect == "saves"]
    if not gains:
        return ["Predicted: excluding int8 products would save no time at any of these shapes."]
    told = ", ".join(
        f"{len(row.nodes)} of {row.shape} at {row.point} ({say_ms(row.gain_ms)} ms)" for row in gains[:3]
    )
    more = f" and {len(gains) - 3} more" if len(gains) > 3 else ""
    return [f"Predicted: some int8 products would be faster in float: {told}{more}."]


def predicted(explanation: Mapping[str, Any]) -> list[PredictedShape]:
    """Return the predictions of all points, products of equal shape together."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for point in explanation["points"]:
        for row in point.get("predicted", ()):
            groups.setdefault((point["shape"], row["shape"]), []).append(row)
    return [
        PredictedShape(
            *key,
            tuple(str(row["node"]) for row in rows),
            sum(float(row["int8_ms"]) for row in rows),
            sum(float(row["float_ms"]) for row in rows),
        )
        for key, rows in groups.items()
    ]


def time_charts(explanation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (caption, SVG) of the time per op type at each point; none where nothing was timed."""
    return [
        (
            f"Share of {say_ms(point['kernels_ms'])} ms in kernels at {point['shape']}",
            _chart(point, explanation["target"]),
        )
        for point in explanation["points"]
        if number(point.get("kernels_ms"))
    ]


def _chart(point: Mapping[str, Any], target: str) -> str:
    total = float(point["kernels_ms"])
    kinds: Sequence[Mapping[str, Any]] = point["op_kinds"]
    rows = [
        svg.Bar(_label(kind), ms, percent(ms / total), kind["role"] == "int8 product")
        for kind in kinds[:_BARS]
        for ms in [number(kind["ms"]) or 0.0]
    ]
    rest = kinds[_BARS:]
    if rest:
        ms = sum(number(kind["ms"]) or 0.0 for kind in rest)
        rows.append(svg.Bar(others(len(rest)), ms, percent(ms / total)))
    text = "; ".join(f"{row.label} {row.text}" for row in rows)
    return svg.bars(f"Time per op type on {target} at {point['shape']}", text, rows)


def others(kinds: int) -> str:
    """Return what the rest of the op types is called."""
    return f"{kinds} other kind{'s' if kinds > 1 else ''}"


def _label(kind: Mapping[str, Any]) -> str:
    name = "smoothing Mul" if kind["role"] == "smoothing" else str(kind["op"])
    return name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…"


def percent(share: float | None) -> str:
    """Return a share in percent, a dash for None; never 100 % for less than all."""
    if share is None:
        return "–"
    digits = 0 if share >= 0.0995 or share == 0 else 1
    text = f"{100 * share:.{digits}f}"
    return f"{'99.9' if text == '100' and share < 1 else text} %"
