"""The tables of `docs/compression.md`, from `results/compression.json` and `compression_digits.json`."""

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
The controls, in PyTorch before quantization and on {pairs} questions, which leaves *retrieval kept* uncertain
by some percent: a technique that does not beat `random` at the same size is worth nothing. *Repaired* and
*not repaired* say what least squares wins back.
"""


def compression_tables(results: Row) -> str:
    """Return both tables with what they mean."""
    rows = results["rows"]
    original = results["original"]
    recall = original["torch"]["recall_at_1"]
    about = ABOUT.format(
        parameters=original["parameters"],
        pairs=results["package_pairs"],
        recall=results["original_package"]["recall_at_1"],
        cpu=results["machine"]["cpu"],
        onnxruntime=results["versions"]["onnxruntime"],
        command=results["command"],
    )
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
    first = packages_table(rows, results["original_package"]["recall_at_1"], results.get("speeds", {}))
    second = table(
        ("row", "parameters", "retrieval kept", "rank correlation", "cosine, mean", "5th percentile"), plain
    )
    return f"{about}\n{first}\n{CONTROLS.format(pairs=results['pairs'])}\n{second}"


DIGITS = """
## Half the multiply-adds of networks that read digits

Accuracy on 600 images that nothing was fitted to, no training. Again:
`OMP_NUM_THREADS=1 python -m benchmarks.compression_digits`.
"""

PROFILE = """
In networks this small, half of the multiply-adds is not half of the time. Kernel times in int8 as ONNX
Runtime's profiler has them, on a busy machine: what is no product (norms, softmax, conversions, pooling,
layouts) stays, and narrower products run at a lower rate.
"""


def digits_section(results: Row) -> str:
    """Return the tables of `results/compression_digits.json`."""
    rows, profile = [], []
    for row in results["rows"]:
        whole, *tried = row["torch"]
        half = tried[0]
        control = next(t for t in tried if t["importance"] == "random" and t["repair"])
        said = (
            f"{control['accuracy']:.1%}" if "accuracy" in control else "refused",
            f"{half['accuracy']:.1%}",
        )
        int8 = (f"{row['int8'][form]['checks']['accuracy_quantized']:.1%}" for form in ("whole", "half"))
        rows.append((row["name"], f"{whole['accuracy']:.1%}", *said[::-1], *int8))
        for index, point in enumerate(row["int8"]["whole"]["kernels"]):
            after = row["int8"]["half"]["kernels"][index]
            profile.append(
                (
                    row["name"],
                    f"{point['shape']} image{'s' if point['shape'] != '1' else ''}",
                    f"{after['multiply_adds'] / point['multiply_adds']:.0%}",
                    *(f"{each['products_ms']:.3f} of {each['all_ms']:.3f} ms" for each in (point, after)),
                )
            )
    first = table(("network", "whole", "half", "half, random", "whole in int8", "half in int8"), rows)
    second = table(("network", "input", "multiply-adds left", "products, whole", "products, half"), profile)
    return f"{DIGITS}\n{first}\n{PROFILE}\n{second}"


def packages_table(rows: Mapping[str, Row], recall: float, measured: Row) -> str:
    """Return what packages are like, largest first.

    Args:
        rows: Recipe -> its figures; those without a package are left out.
        recall: The original's.
        measured: Recipe -> its speed-ups by input shape.
    """
    timed = _speeds(measured)
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
    return table((*head, *(f"speed-up {shape}" for shape in shapes)), made)


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


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    titles = tuple(head)
    lines = [titles, ("---",) * len(titles), *(tuple(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
