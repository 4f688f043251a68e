"""One offline HTML file about one model on any number of targets.

No scripts, nothing from the network: the page's own content security policy forbids both. Everything that
comes from a report is escaped by jinja2 or by `svg.escape`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit.errors import InputError
from edgekit.report import explained, svg, wording
from edgekit.report.curve import learning
from edgekit.report.document import Document, completed
from edgekit.report.matrix import headline_levels, matrix_rows, matrix_sentence
from edgekit.report.page import render_page
from edgekit.report.waterfall import waterfall

RULES: tuple[tuple[str, str], ...] = (
    ("hardware.isa", "Instruction set"),
    ("hardware.os", "Operating system"),
    ("hardware.needs", "CPU features it needs"),
    ("hardware.needs_any", "At least one of these CPU features"),
    ("hardware.lacks", "CPU features its devices do not have"),
    ("hardware.saturates", "Int8 products can overflow (saturate)"),
    ("quantization.activation_type", "Type of quantized activations"),
    ("quantization.weight_type", "Type of quantized weights"),
    ("quantization.activation_symmetric", "Activations symmetric around zero"),
    ("quantization.per_channel", "One weight scale per output channel"),
    ("quantization.reduce_range", "Weights that saturating kernels cannot overflow"),
    ("quantization.embeddings", "Embedding tables"),
    ("quantization.matmul_ops", "Quantized where the weight is constant"),
    ("quantization.conv_ops", "Quantized in convolutional graphs"),
    ("onnx.opset", "ONNX operator set"),
    ("onnx.ir_version", "ONNX file format (IR version)"),
    ("onnx.min_runtime", "Oldest ONNX Runtime"),
    ("runtime.threads", "Threads"),
    ("runtime.session_options", "Session options"),
    ("packaging.ort_format", "Also in ORT format"),
    ("policy.wants", "Quantized for"),
    ("policy.ship", "Form that ships"),
    ("policy.min_size_ratio", "File at least this many times smaller"),
    ("policy.gates", "Thresholds of its own"),
)
"""The profile's keys that explain a result, with what a person calls them."""

MEASURES: dict[str, tuple[str, str, str, int]] = {
    "cosine": ("Cosine similarity", "cosine_p05", ">=", 5),
    "sqnr_db": ("Signal to quantization noise, dB", "sqnr_db", ">=", 5),
    "kl_nats": ("Kullback-Leibler divergence, nats", "kl_mean", "<=", 95),
    "max_relative_error": ("Relative error", "max_relative_error", "<=", 95),
}
"""Measure of an `OutputError` -> what a person calls it, the check that gates it, its good side, its tail."""


def render_html(documents: Sequence[Document]) -> str:
    """Return the page about one model.

    Args:
        documents: One report in JSON form per target (`TargetReport.to_json()` or `load_reports()`), in the
            order to show them.

    Raises:
        InputError: There is no report, or they are about different models.
    """
    from markupsafe import Markup

    reports = [completed(document) for document in documents]
    if not reports:
        raise InputError("there is no report to render", "Give at least one report.json.")
    names = sorted({str(report["model"]["name"]) for report in reports})
    if len(names) > 1:
        raise InputError(f"the reports are about different models: {', '.join(names)}", "Render them apart.")
    return render_page(
        "report.html.j2",
        {"share": explained.percent, "fact": say_fact},
        model=reports[0]["model"],
        headline=headline(reports),
        edgekit_version=reports[0]["edgekit_version"],
        targets=[_section(report, Markup) for report in reports],
        data_groups=_grouped(reports, "data"),
        signature_groups=_grouped(reports, "signature"),
        machine_groups=_grouped(reports, "machine"),
        version_groups=_grouped(reports, "versions"),
        command_groups=_grouped(reports, "command"),
    )


def headline(reports: Sequence[Document]) -> str:
    """Return the sentence that says how many targets pass."""
    missed = [
        str(report["verdict"]["target"]) for report in reports if wording.verdict_word(report) == "fail"
    ]
    total = len(reports)
    if not missed:
        return (
            "It passes every check on its one target." if total == 1 else f"It passes on all {total} targets."
        )
    if len(missed) == total:
        return "It fails on its one target." if total == 1 else f"It fails on all {total} targets."
    verb = "does" if len(missed) == 1 else "do"
    return f"It passes on {total - len(missed)} of {total} targets; {', '.join(missed)} {verb} not."


def say_fact(value: Any, name: str = "") -> str:
    """Return a recorded fact as text; a name that ends in its unit decides how."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ([], {}, ""):
        return "none"
    if isinstance(value, (int, float)):
        if name.endswith("bytes"):
            return wording.say_bytes(value)
        if name.endswith("seconds"):
            return wording.say_seconds(value)
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    if isinstance(value, (list, tuple)) and not any(isinstance(item, (Mapping, list)) for item in value):
        return ", ".join(say_fact(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _section(report: Document, markup: Any) -> dict[str, Any]:
    """Return what the template says about one target."""
    verdict = report["verdict"]
    checks = [
        {
            **check,
            "value": value,
            "limit": limit,
            "meaning": wording.explain(str(check.get("name"))),
        }
        for check in verdict["checks"]
        for value, limit in [wording.say_check(check)]
    ]
    return {
        "name": verdict["target"] or report["profile"]["name"],
        "profile": report["profile"],
        "word": wording.verdict_word(report),
        "sentences": [
            *wording.summary_sentences(report),
            *([told] if (told := matrix_sentence(report)) else []),
            *verdict["notes"],
        ],
        "ratio": wording.size_ratio(report),
        "float_size": verdict["float_size"],
        "quantized_size": verdict["quantized_size"],
        "quality": wording.quality(report),
        "speed": wording.speed(report),
        "no_speed": wording.no_speed(report),
        "latency": verdict["latency"],
        "latency_note": verdict["latency_note"],
        "waterfall": waterfall(report),
        "learning": _learning(report, markup),
        "candidates": [_candidate(entry, report) for entry in report["candidates"]],
        "matrix": (rows := matrix_rows(report)),
        "matrix_levels": headline_levels(rows),
        "explained": explained.view(report["explanation"], markup) if report["explanation"] else None,
        "checks": checks,
        "charts": [(caption, markup(chart)) for caption, chart in charts(report)],
        "rules": _rules(report["profile"]),
        "history": [{**record, "skips": _skips(record)} for record in report["history"]],
    }


def _learning(report: Document, markup: Any) -> dict[str, Any] | None:
    found = learning(report["history"])
    if found is None:
        return None
    return {"did": found.did, "charts": [(caption, markup(chart)) for caption, chart in found.charts]}


def charts(report: Document) -> list[tuple[str, str]]:
    """Return (caption, SVG) of every chart that the report has figures for."""
    verdict, target = report["verdict"], report["verdict"]["target"]
    found = []
    sizes = [
        svg.Bar(f"{name}, {way}", size, wording.say_bytes(size), emphasis=name == "shipped")
        for way, key in (("on disk", "file_bytes"), ("compressed", "compressed_bytes"))
        for name, side in (("float", "float_size"), ("shipped", "quantized_size"))
        if (size := wording.number(verdict[side].get(key))) is not None
    ]
    if sizes:
        text = "; ".join(f"{bar.label} {bar.text}" for bar in sizes)
        found.append(("Size of the model file", svg.bars(f"Model size for {target}", text, sizes)))
    points = [_interval(point) for point in verdict["latency"]]
    if points:
        text = "; ".join(f"{p.label}: {p.value:.2f} times, {p.low:.2f} to {p.high:.2f}" for p in points)
        caption = "Speed against the float model (right of 1× is faster)"
        found.append((caption, svg.intervals(f"Speed-up on {target}", text, points)))
    return found + [_errors(error, verdict["checks"], target) for error in verdict["output_errors"]]


def _interval(point: Mapping[str, Any]) -> svg.Interval:
    value, low, high = (
        wording.number(point.get(key)) or 0.0 for key in ("speedup", "speedup_low", "speedup_high")
    )
    return svg.Interval(
        str(point.get("shape", "")), value, low, high, str(point.get("verdict", "cannot tell"))
    )


def _errors(error: Mapping[str, Any], checks: Sequence[Mapping[str, Any]], target: str) -> tuple[str, str]:
    measure = str(error.get("measure", ""))
    title, gate_name, good, tail = MEASURES.get(measure, (measure.replace("_", " "), "", ">=", 5))
    values = [value for item in error.get("values", ()) if (value := wording.number(item)) is not None]
    marks = []
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        at = float(np.percentile(finite, tail))
        marks.append(svg.Mark(at, f"p{tail:02.0f} {wording.say_figure(at)}"))
    for check in checks:
        budget = wording.number(check.get("budget"))
        if check.get("name") == gate_name and budget is not None:
            of = f" of the {gate_name.rpartition('_')[2]}" if gate_name.endswith(("_p05", "_mean")) else ""
            marks.append(svg.Mark(budget, f"gate{of} {wording.say_check(check)[1]}", is_gate=True))
    caption = f"{title} of output {error.get('output', '')}, one value per sample"
    text = f"{len(values)} values" + "".join(f"; {mark.label}" for mark in marks)
    return caption, svg.histogram(f"{caption}, {target}", text, values, marks, good=good)


def _rules(profile: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the profile's telling keys: what they are called, their value, and where it comes from."""
    sources = profile.get("sources") or {}
    rows = []
    for dotted, label in RULES:
        table, key = dotted.split(".")
        value = (profile.get(table) or {}).get(key)
        if value in (None, [], {}, ""):
            continue
        source = sources.get(dotted) or sources.get(table) or ""
        rows.append({"label": label, "value": say_fact(value, key), "source": source})
    return rows


def _skips(record: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return what a step left alone, grouped by reason, the commonest first."""
    groups: dict[str, list[str]] = {}
    for skip in record.get("skipped") or ():
        groups.setdefault(str(skip.get("why", "")), []).append(str(skip.get("what", "")))
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def _grouped(reports: Sequence[Document], key: str) -> list[tuple[str, Any]]:
    """Return (names of targets, value) for each different value, so that what is common is said once."""
    groups: list[tuple[list[str], Any]] = []
    for report in reports:
        name, value = str(report["verdict"]["target"]), report[key]
        for names, known in groups:
            if known == value:
                names.append(name)
                break
        else:
            groups.append(([name], value))
    everyone = len(groups) == 1
    return [("" if everyone else ", ".join(names), value) for names, value in groups if value]


def _candidate(entry: Document, report: Document) -> dict[str, Any]:
    """Return a row of the table of forms: its headline checks and its speed-ups, as text."""
    alike = {**report, "verdict": {**report["verdict"], "checks": entry["checks"]}}
    return {
        "name": entry.get("title") or entry["name"],
        "shipped": entry["shipped"],
        "word": "pass" if entry.get("passed") else "fail",
        "missed": [str(check["title"]) for check in wording.failed(alike)],
        "file_bytes": entry["file_bytes"],
        "quality": wording.quality(alike),
        "speeds": [
            f"{speed['shape']}: {wording.say_times(speed['speedup'])}"
            f" ({speed['speedup_low']:.2f}–{speed['speedup_high']:.2f})"
            for speed in entry["speeds"]
        ],
    }
