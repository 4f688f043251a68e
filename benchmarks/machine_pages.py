"""Sections of `docs/benchmarks.md` from the results of rewrites, memory, embeddings and zeros."""

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

EMBEDDINGS = """
## Embedding tables in 8 and 4 bits

`python -m {module}`: all-MiniLM-L6-v2 for `{target}`, the rest of the graph as it always is, against the
float graph on {held_out} texts that calibration did not see. Speed is that of the whole model over the one
with 8-bit tables: CPU time of one thread, all forms in turns, 95 % interval; {cpu}, ONNX Runtime
{onnxruntime}.
"""

LOOKUP = """
Reading the rows alone, and nothing else of the model: {told}. Both 4-bit forms give the same numbers to the
bit; the one that edgekit writes is made of standard operators.
"""

PLACES = """
The 4-bit forms elsewhere, quantized for `cpu-x86-portable`. The cosine is the lowest of four texts to the
run on this CPU with the installed runtime: other float kernels round in other ways, which moves some codes.
"""

SPARSITY = """
## Zeros

`python -m {module}`: all-MiniLM-L6-v2 for `{target}` with half of the weights of its layers at zero, against
the dense float graph on {held_out} texts that nothing was fitted to. A zero takes its byte like any other
code; only what compresses the file makes it smaller. Speed is over the dense model in int8: CPU time of one
thread, all forms in turns, 95 % interval; {cpu}, ONNX Runtime {onnxruntime}. The machine was busy: two
sessions of one and the same file differed by as much.
"""


def sparsity_section(results: Mapping[str, Any]) -> str:
    """Return the section on zeros."""
    shapes = [speed["shape"] for speed in results["rows"][0]["speed_over_dense"]]
    about = _about(SPARSITY, results)
    rows = [
        (
            row["form"],
            f"{row['zero_codes']:.0%}",
            f"{row['file_bytes'] / 1e6:.1f} MB",
            f"{row['deflated_bytes'] / 1e6:.1f} MB",
            *_quality_and_speed(row, "speed_over_dense"),
        )
        for row in results["rows"]
    ]
    head = ("weights", "zeros", "file", "deflated", "cosine, mean", "5th percentile", "rank correlation")
    return f"{about}\n{_table((*head, *shapes), rows)}"


def _about(text: str, results: Mapping[str, Any]) -> str:
    return text.format(
        module=results["command"].split()[-1],
        target=results["target"],
        held_out=results["held_out"],
        cpu=results["machine"]["cpu"],
        onnxruntime=results["versions"]["onnxruntime"],
    )


def _quality_and_speed(row: Row, over: str) -> tuple[str, ...]:
    measures = (f"{row[key]:.4f}" for key in ("cosine_mean", "cosine_p05", "rank_correlation"))
    return (*measures, *(_speed(speed) for speed in row[over]))


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


def embeddings_section(results: Mapping[str, Any]) -> str:
    """Return the section on embedding tables."""
    shapes = [speed["shape"] for speed in results["rows"][0]["speed_over_int8"]]
    about = _about(EMBEDDINGS, results)
    rows = [
        (
            row["tables"],
            f"{row['file_bytes'] / 1e6:.1f} MB",
            f"{row['compressed_bytes'] / 1e6:.1f} MB",
            f"{row['peak_memory_bytes'] / 1e6:.0f} MB",
            *_quality_and_speed(row, "speed_over_int8"),
        )
        for row in results["rows"]
    ]
    head = ("tables", "file", "deflated", "peak memory", "cosine, mean", "5th percentile", "rank correlation")
    told = "; ".join(
        f"{row['tables']} "
        + ", ".join(f"{s['p50_ms']:.3f} ms at {s['shape']}" for s in row["speed_over_int8"])
        for row in results["lookup"]
    )
    places = [(f"`{row['place']}`", row["tables"], *_found(row)) for row in results["places"]]
    parts = [about, _table((*head, *shapes), rows), LOOKUP.strip().format(told=told), PLACES.rstrip()]
    return "\n".join([*parts, "", _table(("runner", "tables", "cosine", "speed over 8 bits"), places)]) + "\n"


def _found(row: Row) -> tuple[str, str]:
    if "failed" in row:
        return "does not load there", ""
    timed = row.get("speed_over_int8")
    return f"{row['cosine_to_this_cpu']:.4f}", f"{timed['shape']}: {_speed(timed)}" if timed else ""


def _speed(speed: Row) -> str:
    low, high = speed["interval"]
    return f"{speed['speedup']:.2f} ({low:.2f}–{high:.2f})"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
