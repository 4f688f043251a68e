"""The tables of `docs/compression.md`, from `results/compression.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]

ABOUT = """
all-MiniLM-L6-v2 ({parameters:,} parameters), each row a recipe of `examples/recipes/`. Quality of the
int8 file in ONNX Runtime against the original in PyTorch, on {pairs} questions with their answers from
English that no technique saw (other Debian packages than those that it was fitted to). *Retrieval kept*:
how often a question's own answer is the nearest, over the original's {recall:.3f}. Speed-up over the
original's float graph, one thread, all files timed in turns in one process, with 95 % intervals. {cpu},
ONNX Runtime {onnxruntime}. Again: `{command}`.
"""

CONTROLS = """
The controls, in PyTorch before quantization: a technique that does not beat `random` at the same size is
worth nothing. *Repaired* and *not repaired* say what least squares wins back.
"""


def compression_tables(results: Row) -> str:
    """Return both tables with what they mean."""
    rows = results["rows"]
    original = results["original"]
    recall = original["torch"]["recall_at_1"]
    about = ABOUT.format(
        parameters=original["parameters"],
        pairs=results["pairs"],
        recall=recall,
        cpu=results["machine"]["cpu"],
        onnxruntime=results["versions"]["onnxruntime"],
        command=results["command"],
    )
    timed = _speeds(results.get("speeds", {}))
    shapes = list(dict.fromkeys(shape for speeds in timed.values() for shape in speeds))
    head = (
        "recipe",
        "parameters",
        "file",
        "retrieval kept",
        "rank correlation",
        "cosine, mean",
        "5th percentile",
    )
    made = [
        (
            f"`{name}`",
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['bytes'] / 1e6:.1f} MB",
            f"{row['int8']['recall_at_1'] / recall:.1%}",
            *(f"{row['int8'][key]:.4f}" for key in ("rank_correlation", "cosine_mean", "cosine_p05")),
            *(timed.get(name, {}).get(shape, "–") for shape in shapes),
        )
        for name, row in sorted(rows.items(), key=lambda item: -item[1].get("bytes", 0))
        if "bytes" in row
    ]
    plain = [
        (
            name,
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['torch']['recall_at_1'] / recall:.1%}",
            *(f"{row['torch'][key]:.4f}" for key in ("rank_correlation", "cosine_mean", "cosine_p05")),
        )
        for name, row in sorted(rows.items())
        if "torch" in row
        and row["recipe"] in {other["recipe"] for other in rows.values() if other["changes"]}
    ]
    first = _table((*head, *(f"speed-up {shape}" for shape in shapes)), made)
    second = _table(
        ("row", "parameters", "retrieval kept", "rank correlation", "cosine, mean", "5th percentile"), plain
    )
    return f"{about}\n{first}\n{CONTROLS}\n{second}"


def _speeds(measured: Row) -> dict[str, dict[str, str]]:
    """Return recipe -> input shape -> speed-up with its interval."""
    return {
        name: {
            speed[
                "shape"
            ]: f"{speed['speedup']:.2f}x ({speed['speedup_low']:.2f}–{speed['speedup_high']:.2f})"
            for speed in speeds
        }
        for name, speeds in measured.items()
    }


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = tuple(head)
    lines = [titles, ("---",) * len(titles), *(tuple(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
