"""`docs/benchmarks.md` from `results/competitors.json`; `make docs` writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]

INTRODUCTION = """# Benchmarks

<!-- Written by tools/make_docs.py from benchmarks/results/competitors.json; do not edit. -->

edgekit beside other ways to a small file of all-MiniLM-L6-v2 with its real weights, all on one machine:
{machine}.
Each tool lives in an environment of its own, starts from the same model, and, where it calibrates, sees the
same {calibration} texts. Make the figures again:

```sh
make bench-envs      # an environment per tool, in build/benchmarks/venvs
make bench-all       # makes, judges and times everything; then: make docs
```
"""

QUALITY = """## Quality and size

On {texts} held-out texts from Python's documentation, that is technical English, run one by one without
padding. They are {pairs} paragraphs: the first sentence is the query, the rest of the paragraph its answer,
and recall@1 says how often the own answer is the nearest of all {pairs}. Rank correlation (Spearman) is that
of the similarities of all pairs of texts with those of fp32; the cosine is that of each text's vector with
its fp32 vector.
"""

SPEED = """## Speed-up over fp32

Over ONNX Runtime {onnxruntime} on the plain fp32 export: median of the paired ratios, 95 % bootstrap
interval in brackets, batch x tokens. All ONNX files run in one process, in turns, in a new order each turn;
OpenVINO's run so in a process of theirs, in turns with the same fp32 file in ONNX Runtime. Threads do not
spin between runs. The machine was not idle (its load average before each point is in the last line), so of
one thread the CPU time is compared, which leaves out the waiting for a core; of two threads the wall time,
which others disturb.
"""

COST = """## What quantizing costs

Wall time depends on what else the machine does; CPU time less so. Peak memory is that of the process (VmHWM),
imports and the float model included. The export to ONNX is a step of its own and left out, where the tool
lets one.
"""

ROOFLINE = """## How far from the machine

The roofline of 1x128: its multiply-adds with constant weights ({weights:.2f} G) at the best int8 rate that
ONNX Runtime's `MatMulInteger` reached on large matrices, those of attention ({attention:.2f} G) at the best
float rate of `MatMul`, measured in the same turns. All else that a model does (softmax, GELU, normalization,
quantizing) comes on top.
"""

_SHOWN_FEATURES = ("avx512_vnni", "amx_int8", "avx512_bf16")


def page(results: Mapping[str, Any]) -> str:
    """Return the page."""
    rows = results["competitors"]
    made = [row for row in rows if "failed" not in row]
    machine, pairs = results["machine"], results["held_out_pairs"]
    features = [name for name in _SHOWN_FEATURES if name in (machine["features"] or ())]
    about = f"{machine['cpu']} ({', '.join(features)}), {machine['cores']} cores"
    quality = ("", "file", "rank correlation", "cosine, mean", "5th percentile", "recall@1")
    parts = [
        INTRODUCTION.format(machine=about, calibration=results["calibration_texts"]),
        QUALITY.format(texts=2 * pairs, pairs=pairs),
        table(quality, map(_quality, made)),
        SPEED.format(onnxruntime=results["versions"]["onnxruntime"]),
        *(_speed(results, made, threads) for threads in (1, 2)),
        _loads(results),
        COST,
        table(("", "wall", "CPU", "peak memory"), (_cost(row) for row in made if row["name"] != "float32")),
        _roofline(results, made),
        "## Notes\n",
        "\n".join(_notes(rows)) + "\n",
    ]
    return "\n".join(parts)


def _quality(row: Row) -> tuple[str, ...]:
    figures = row["quality"]
    names = ("rank_correlation", "cosine_mean", "cosine_p05")
    shown = (f"{figures[name]:.4f}" for name in names)
    return row["title"], f"{row['file_bytes'] / 1e6:.1f} MB", *shown, f"{figures['recall_at_1']:.3f}"


def _speed(results: Row, made: list[Row], threads: int) -> str:
    points = [point for point in results["latency"] if point["threads"] == threads]

    def cell(point: Row, name: str) -> str:
        found = point["figures"].get(name)
        if found is None:
            return "not measured"
        return f"{found['speedup']:.2f}x ({found['speedup_low']:.2f}–{found['speedup_high']:.2f})"

    head = (f"{threads} thread{'s' if threads > 1 else ''}", *(point["shape"] for point in points))
    return table(head, ((row["title"], *(cell(point, row["name"]) for point in points)) for row in made))


def _loads(results: Row) -> str:
    loads = (f"{p['shape']} with {p['threads']}: {p['load']:.1f}" for p in results["latency"])
    return f"Load average before each point: {', '.join(loads)}.\n"


def _cost(row: Row) -> tuple[str, ...]:
    suffix = ", export included" if row["includes_export"] else ""
    seconds = f"{row['quantize_seconds']:.0f} s{suffix}", f"{row['quantize_cpu_seconds']:.0f} s"
    return row["title"], *seconds, f"{row['peak_memory_bytes'] / 1e6:.0f} MB"


def _roofline(results: Row, made: list[Row]) -> str:
    from benchmarks.roofline import encoder_work

    point = next(p for p in results["latency"] if (p["shape"], p["threads"]) == ("1x128", 1))
    work, rates, bound = encoder_work(1, 128), point["macs_per_second"], point["bound_ms"]
    said = (
        f"One thread: int8 {rates['int8'] / 1e9:.0f} G, float {rates['float'] / 1e9:.0f} G multiply-adds per"
        f" second. At these, 1x128 takes {bound['int8']:.1f} ms with int8 weights,"
        f" {bound['float']:.1f} ms in float.\n"
    )
    head = ("1x128, one thread", "CPU time, median", "over the roofline of int8", "of float")
    cells = []
    for row in made:
        figures = point["figures"].get(row["name"])
        if figures is None:
            continue
        # OpenVINO's own process had its own moods: its ratio is what compares.
        ms = point["figures"]["float32"]["p50_ms"] / figures["speedup"]
        cells.append(
            (row["title"], f"{ms:.1f} ms", f"{ms / bound['int8']:.1f}x", f"{ms / bound['float']:.1f}x")
        )
    introduction = ROOFLINE.format(weights=work.weights / 1e9, attention=work.attention / 1e9)
    return "\n".join([introduction, said, table(head, cells)])


def _notes(rows: Iterable[Row]) -> Iterable[str]:
    for row in rows:
        said = [f"no figures: {row['failed']}"] if "failed" in row else []
        said += [row["note"]] if row.get("note") else []
        if row.get("pooling_outside"):
            said.append("its file ends in token vectors; its times include averaging them in numpy")
        if row.get("options"):
            said.append("opened with " + ", ".join(f"`{k}={v}`" for k, v in row["options"].items()))
        versions = ", ".join(f"{name} {value}" for name, value in row.get("versions", {}).items())
        said += [versions] if versions else []
        yield f"- {row['title']}: {'; '.join(said)}."


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    escape: Callable[[str], str] = lambda cell: cell.replace("|", "\\|")  # noqa: E731
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(map(escape, cells))} |\n" for cells in lines)
