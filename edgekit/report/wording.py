"""How figures are said: units, digits, and the one-line findings that tables and pages share.

Everything here takes the JSON form of a report, so that a saved one reads the same as a fresh one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.report.document import Document

HEADLINE_CHECKS: tuple[tuple[str, ...], ...] = (
    ("top1_agreement", "accuracy_drop"),  # classification
    ("label_f1", "kl_mean"),  # classification with several labels per sample
    ("cosine_mean", "cosine_p05"),  # embeddings
    ("sqnr_db", "max_relative_error"),  # generic
)
"""The checks that sum up quality: of the first group that has any, those that are there."""

SHORT: dict[str, str] = {
    "cosine_mean": "cosine mean",
    "cosine_p05": "cosine p05",
    "top1_agreement": "top-1 agreement",
    "accuracy_drop": "accuracy drop",
    "accuracy_quantized": "accuracy",
    "rank_correlation": "rank corr.",
    "perplexity_ratio": "perplexity ratio",
    "sqnr_db": "SQNR",
    "max_relative_error": "relative error",
}
"""Names of checks that fit a narrow column."""

EXPLANATIONS: dict[str, str] = {
    "cosine_mean": "Angle between the vectors of the float and the shipped model, as its cosine, on average: "
    "1 = same direction, 0 = unrelated.",
    "cosine_p05": "95 of 100 samples come at least this close to the float model; 1 = same direction.",
    "cosine_min": "The one sample that came out worst; 1 = same direction.",
    "rank_correlation": "Whether pairs of samples keep their order of similarity: 1 = same, 0 = shuffled.",
    "top1_agreement": "Share of samples for which both models choose the same class; 1 = always.",
    "label_f1": "How far both models give the same labels: 1 = all of them, 0 = none in common.",
    "kl_mean": "Kullback-Leibler divergence between the two models' class probabilities; 0 = equal.",
    "range_growth": "Whether calibration had settled: 0 = the last tenth of its samples widened no range.",
    "clip_rate": "Share of the values of one tensor, on samples that calibration did not see, that its 8-bit "
    "codes cannot reach; 0 = none.",
    "accuracy_float": "Share of your labelled samples that the float model gets right.",
    "accuracy_quantized": "Share of your labelled samples that the shipped model gets right.",
    "accuracy_drop": "Accuracy of the float model minus that of the shipped one, in percentage points.",
    "sqnr_db": "Signal over quantization noise, in decibels: 20 dB more is an error ten times smaller.",
    "max_relative_error": "Largest error of any output value over the largest float value; 0 = equal.",
    "float_nonfinite": "Values of the exported float graph that are NaN or infinite.",
    "float_max_relative_error": "How far the exported float graph is from PyTorch; 0 = equal.",
    "float_cosine": "Angle between the outputs of the exported float graph and of PyTorch, as its cosine.",
    "speedup": "Time of the float model over that of the shipped one: above 1 the shipped one is faster.",
    "size_ratio": "Size of the float file over that of the shipped one: 4 = four times smaller.",
}
"""What a check's figure means, for a person who does not work with it."""


@dataclass(frozen=True)
class Finding:
    """One figure of a headline.

    Attributes:
        label: What it is, e.g. "Cosine similarity, mean" or "1x128".
        text: The figure with its unit.
        state: `pass`, `fail`, `info`, `not measured`; for latency `faster`, `slower`, `cannot tell`.
    """

    label: str
    text: str
    state: str


def number(value: Any) -> float | None:
    """Return a JSON figure as a float: strict JSON spells NaN and infinities as strings."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def say_bytes(value: Any) -> str:
    """Return bytes in decimal units: `22.9 MB`."""
    size = number(value)
    if size is None or not math.isfinite(size):
        return "–"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(size) >= scale * 0.9995:
            return f"{_three_digits(size / scale)} {unit}"
    return f"{size:.0f} B"


def say_ms(value: Any) -> str:
    """Return milliseconds with three significant digits: `8.42`."""
    ms = number(value)
    return "–" if ms is None else _three_digits(ms)


def say_seconds(value: Any) -> str:
    """Return seconds as a person would say them: `0.3 s`, `2 min 5 s`."""
    seconds = number(value)
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds >= 59.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s"
    return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"


def say_times(value: Any) -> str:
    """Return a ratio: `2.10×`."""
    ratio = number(value)
    return "–" if ratio is None else f"{ratio:.2f}×" if abs(ratio) < 99.5 else f"{ratio:.0f}×"


def say_figure(value: Any, unit: str = "", digits: int = 4) -> str:
    """Return a measured value with its unit; sizes in bytes become MB."""
    figure = number(value)
    if figure is None:
        return "–"
    if not math.isfinite(figure):
        text = "not a number" if math.isnan(figure) else "infinite"
        return f"{text} {unit}".strip()
    if unit == "bytes":
        return say_bytes(figure)
    if unit in ("×", "x"):
        return f"{figure:.{digits - 2}f}×"
    if figure != 0 and abs(figure) < 10**-digits:
        text = f"{figure:.{max(digits - 2, 1)}e}"
    elif abs(figure) < 10:
        text = f"{figure:.{digits}f}"
    elif abs(figure) < 100:
        text = f"{figure:.{digits - 2}f}"
    else:
        text = f"{figure:.{digits - 3}f}"
    return f"{text} {unit}".strip()


def say_check(check: Mapping[str, Any]) -> tuple[str, str]:
    """Return a check's value and its budget (`≥ 0.995`), with digits enough to tell the two apart."""
    measured, budget, unit = check.get("measured"), check.get("budget"), str(check.get("unit") or "")
    value, limit = number(measured), number(budget)
    digits = 4
    while (
        value != limit
        and digits < 9
        and say_figure(measured, unit, digits) == say_figure(budget, unit, digits)
    ):
        digits += 1
    sign = "≥" if check.get("comparison", ">=") == ">=" else "≤"
    return (
        say_figure(measured, unit, digits),
        "–" if budget is None else f"{sign} {say_figure(budget, unit, digits)}",
    )


def explain(name: str) -> str:
    """Return what a check means; a name such as `sqnr_db.logits` is explained by its part before the dot."""
    return EXPLANATIONS.get(name.partition(".")[0], "")


def quality(document: Document) -> tuple[Finding, ...]:
    """Return the checks that sum up quality, in the order of `HEADLINE_CHECKS`; empty where none is known."""
    checks = {check.get("name"): check for check in document["verdict"]["checks"]}
    for group in HEADLINE_CHECKS:
        found = [checks[name] for name in group if name in checks]
        if found:
            return tuple(
                Finding(
                    str(check.get("title") or check.get("name")),
                    say_check(check)[0],
                    str(check.get("state", "info")),
                )
                for check in found
            )
    return ()


def speed(document: Document) -> tuple[Finding, ...]:
    """Return the speed-up with its interval at each measured shape; empty where none was measured."""
    return tuple(
        Finding(
            str(point.get("shape", "")),
            f"{say_times(point.get('speedup'))} "
            f"({(number(point.get('speedup_low')) or 0):.2f}–{(number(point.get('speedup_high')) or 0):.2f})",
            str(point.get("verdict", "cannot tell")),
        )
        for point in document["verdict"]["latency"]
    )


def no_speed(document: Document) -> str:
    """Return why there is no latency, beginning with "not measured"."""
    note = str(document["verdict"]["latency_note"]).strip()
    if note.lower().startswith("not measured"):
        return note
    return f"not measured here: {note}" if note else "not measured"


def size_ratio(document: Document) -> float | None:
    """Return float bytes over shipped bytes, or None where a size is unknown."""
    verdict = document["verdict"]
    before = number(verdict["float_size"].get("file_bytes"))
    after = number(verdict["quantized_size"].get("file_bytes"))
    return before / after if before and after else None


def failed(document: Document) -> list[Mapping[str, Any]]:
    """Return the checks that miss their budget."""
    return [check for check in document["verdict"]["checks"] if check.get("state") == "fail"]


def verdict_word(document: Document) -> str:
    """Return `pass`, or `fail` where a check misses its budget."""
    passed = document["verdict"]["passed"]
    return "fail" if failed(document) or passed is False else "pass"


def summary_sentences(document: Document) -> list[str]:
    """Return what came out for one target, in plain sentences."""
    verdict = document["verdict"]
    sentences = []
    misses = failed(document)
    gated = [check for check in verdict["checks"] if check.get("state") in ("pass", "fail")]
    if misses:
        names = "; ".join(
            f"{check.get('title')} is {say_check(check)[0]} where {say_check(check)[1]} is required"
            for check in misses
        )
        sentences.append(f"{_count(len(misses), 'check')} of {len(gated)} missed: {names}.")
    elif gated:
        sentences.append(f"All {_count(len(gated), 'check')} with a budget passed.")
    ratio = size_ratio(document)
    if ratio is not None:
        before, after = verdict["float_size"]["file_bytes"], verdict["quantized_size"]["file_bytes"]
        how = (
            f"{say_times(ratio)} smaller than the float model"
            if ratio >= 1
            else "larger than the float model"
        )
        sentences.append(f"The shipped file has {say_bytes(after)} and is {how} ({say_bytes(before)}).")
    points = speed(document)
    if points:
        sentences.append(_speed_sentence(points))
    else:
        note = no_speed(document)
        sentences.append(f"Latency was {note[0].lower()}{note[1:].rstrip('.')}.")
    return sentences


def _speed_sentence(points: Sequence[Finding]) -> str:
    by_state = {
        "faster": "it is faster than the float model at",
        "slower": "it is slower than the float model at",
        "cannot tell": "the measurement cannot tell the two apart at",
    }
    parts = []
    for state, text in by_state.items():
        shapes = [f"{point.label} ({point.text.split()[0]})" for point in points if point.state == state]
        if shapes:
            parts.append(f"{text} {_listed(shapes)}")
    joined = "; ".join(parts)
    return f"{joined[0].upper()}{joined[1:]}."


def _listed(items: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _three_digits(value: float) -> str:
    """Return a value of 1 and more with three digits, a smaller one with two decimals."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
