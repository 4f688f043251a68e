"""`docs/architectures.md` from `results/architectures.json`; `make docs` writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]

INTRODUCTION = """# Architectures

<!-- Written by tools/make_docs.py from benchmarks/results/architectures.json; do not edit. -->

Small models of {count} architectures, made from their `transformers` configurations with random weights.
Each was taken through load, export, parity of the float graph with PyTorch at both optimization levels of
ONNX Runtime, rewrites, calibration and int8 for `cpu-x86` and `arm64`, and was run in ONNX Runtime
{onnxruntime} at several batch sizes and lengths.

Since the weights are random, the ratio of signal to noise shows that no layer is broken, not how accurate a
trained model would be. Made with torch {torch} and transformers {transformers};
again with `python -m benchmarks.architectures`. `pytest tests/architectures` holds each of them to it.

* **int8 products**: MatMul, Gemm and Conv nodes with a constant weight, and how many of them are in 8 bits.
* **coverage**: the share of the multiply-adds with constant weights that those do.
* **speed-up**: of int8 for `cpu-x86` over the float graph as exported, both with layers as wide as in real
  models (`wide` in `benchmarks/zoo.py`): one text of 128 tokens or one image of 224 x 224 pixels. CPU time of
  one thread, median of the paired ratios of runs in turns, 95 % bootstrap interval.
* **rewrites**: biased projections that became a Gemm on rows, groups of projections computed together, means
  and pools over a whole image, norms whose reciprocal root became a division, GELUs that were spelled out.
"""

FLOAT = """## What stays float

Nodes of the graph that ONNX Runtime makes for `cpu-x86`. Products of two activations, in attention, have no
weight to quantize.
"""


def page(results: Mapping[str, Any]) -> str:
    """Return the page."""
    rows = results["rows"]
    made = [row for row in rows if "refused" not in row]
    head = (
        "architecture",
        "class",
        "int8 products",
        "coverage",
        "SQNR `cpu-x86`",
        "SQNR `arm64`",
        "speed-up",
        "float",
        "rewrites",
    )
    table = _table(head, [_overview(row) for row in made])
    refusals = [f"* {row['name']}: {row['refused']}" for row in rows if "refused" in row]
    skipped = [
        f"* {row['name']}, `{product['name']}`: {product['why'] or 'no reason recorded'}"
        for row in made
        for product in row["targets"]["cpu-x86"]["skipped_products"]
    ]
    parts = [
        INTRODUCTION.format(count=len(rows), **results["versions"]),
        table,
        "## Refused, and products that are not int8\n",
        "\n".join(refusals + skipped or ["None."]) + "\n",
        FLOAT,
        _table(("architecture", "products", "other nodes"), [_left(row) for row in made]),
    ]
    return "\n".join(parts)


def _overview(row: Row) -> tuple[str, ...]:
    x86, arm = row["targets"]["cpu-x86"], row["targets"]["arm64"]
    rewrites = row["rewrites"]
    shown = {"rows": "Gemm", "packed-projections": "packed", "divide-by-root": "norms", "tanh-gelu": "GELU"}
    done = {shown.get(name, name): count for name, count in rewrites.items()}
    return (
        row["name"],
        f"`{row['model']}`",
        f"{x86['int8_products']} of {x86['products']}",
        f"{100 * x86['coverage']:.0f} %",
        f"{x86['sqnr_db']:.0f} dB",
        f"{arm['sqnr_db']:.0f} dB",
        *_speed(row["speed"]),
        ", ".join(f"{name} {count}" for name, count in done.items() if count) or "none",
    )


def _speed(points: list[Row]) -> tuple[str, str]:
    if not points:
        return "not measured", ""
    (point,) = points
    return f"{point['gain']:.2f}x ({point['low']:.2f}–{point['high']:.2f})", f"{point['float_ms']:.1f} ms"


def _left(row: Row) -> tuple[str, ...]:
    left = row["targets"]["cpu-x86"]["left_float"]
    products = [group for group in left if "MatMul" in group["op"] or group["op"] in ("Gemm", "Conv")]
    others = [group for group in left if group not in products]
    return row["name"], _listed(products, why=True), _listed(others, why=False)


def _listed(groups: Iterable[Row], *, why: bool) -> str:
    return "; ".join(
        f"{group['count']} {group['op']}{' (' + group['why'].partition(':')[0] + ')' if why else ''}"
        for group in groups
    )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
