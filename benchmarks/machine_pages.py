"""Sections of `docs/benchmarks.md` from `results/rewrites.json` and `results/memory.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]

REWRITES = """
## Which rewrites pay

Each rewrite of the float graph, toggled in the plan of `{target}` (its `[optimize]` table) and measured in
the quantized form that ships: time without it over time with it, so above 1 it gains. CPU time of one thread,
median of the paired ratios of all forms run in turns, 95 % bootstrap interval; {cpu}, ONNX Runtime
{onnxruntime}, load average {load_before}. Without `rows`, projections are not packed either. Again:
`python -m {module}`; forms that edgekit does not do are in `benchmarks/forms.py`. Models other than
all-MiniLM-L6-v2 have two layers as wide as in real models, with random weights.
"""

ATTENTION = """
One attention by ONNX Runtime's `QAttention` with the same static scales, instead of one packed `Gemm` and
float products (`benchmarks/attention_block.py`): {shapes}. It takes uint8 activations alone, and a file with
it runs in ONNX Runtime alone, so only a gain at all shapes would pay for it.
"""

MEMORY = """
## Memory of a whole export

`python -m {module}`: `edgekit export` for `{target}` with {samples} calibration samples; the peak of the sum
of the resident memory of its processes. The goal is 1.5 times the float model plus 1 GB.
"""


def rewrites_section(results: Mapping[str, Any]) -> str:
    """Return the section on rewrites."""
    shapes = list(
        dict.fromkeys(s for row in results["rows"] for gain in row["gains"] for s in gain["shapes"])
    )
    rows = [
        _gain(row["name"], gain, shapes, results["plan"])
        for row in results["rows"]
        for gain in row["gains"]
        if gain["sites"]
    ]
    head = ("model", "rewrite", "places", *shapes, "over all", "in the plan")
    about = REWRITES.format(
        target=results["target"],
        cpu=results["machine"]["cpu"],
        onnxruntime=results["versions"]["onnxruntime"],
        load_before=results["load_before"],
        module=results["command"].split()[-1],
    )
    attention = "; ".join(f"{_ratio(r)} at {shape}" for shape, r in results["qattention"]["shapes"].items())
    return "\n".join([about, _table(head, rows), ATTENTION.strip().format(shapes=attention)]) + "\n"


def _gain(model: str, gain: Row, shapes: Iterable[str], plan: Iterable[str]) -> tuple[str, ...]:
    timed = (_ratio(gain["shapes"][shape]) if shape in gain["shapes"] else "" for shape in shapes)
    planned = "yes" if gain["rewrite"] in plan else "no"
    return (model, f"`{gain['rewrite']}`", str(gain["sites"]), *timed, _ratio(gain["overall"]), planned)


def _ratio(ratio: Row) -> str:
    return f"{ratio['gain']:.3f} ({ratio['low']:.3f}–{ratio['high']:.3f})"


def memory_section(results: Mapping[str, Any]) -> str:
    """Return the section on memory."""
    about = MEMORY.format(
        module=results["command"].split()[-1], target=results["target"], samples=results["rows"][0]["samples"]
    )
    rows = [
        (
            row["name"],
            f"{row['float_bytes'] / 1e6:.0f} MB",
            f"{row['int8_bytes'] / 1e6:.0f} MB",
            f"{row['peak_bytes'] / 1e6:.0f} MB",
            f"{row['goal_bytes'] / 1e6:.0f} MB",
            ", ".join(f"{name} {peak / 1e6:.0f}" for name, peak in _stages(row).items()),
        )
        for row in results["rows"]
    ]
    head = ("model", "float", "int8", "peak", "goal", "peak by stage, MB")
    return "\n".join([about, _table(head, rows)])


def _stages(row: Row) -> dict[str, int]:
    peaks: dict[str, int] = {}
    for stage in row["stages"]:
        name = stage["stage"].partition(":")[0]
        peaks[name] = max(peaks.get(name, 0), stage["peak_bytes"])
    return peaks


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
