"""The tables of `docs/distillation.md`, from `results/distillation.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.compression_page import packages_table, table

Results = Mapping[str, Any]

QUALITY = ("rank_correlation", "cosine_mean", "cosine_p05")

ABOUT = """
Students of all-MiniLM-L6-v2 ({parameters:,} parameters), each a recipe of `examples/recipes/`; measured like
the rows of [compression.md](compression.md): the int8 file in ONNX Runtime, {pairs} questions with their
answers from English that nothing learnt from, speed-up over the teacher's float graph with one thread, all
files timed in turns. {cpu}, ONNX Runtime {onnxruntime}, torch {torch}. Again:
`python -m benchmarks.distillation`.
"""

CURVES = """
What the training of each won, in cosine and rank correlation to the teacher on texts like those it learnt
from (held out) and, after it, on the other English before quantization.
"""

ABLATION = """
Short trainings of the student of `minilm-b` before quantization: {samples:,} texts, {epochs:g} times each,
mean and range over {seeds} seeds. Again: `python -m benchmarks.distillation --ablation`.
"""


DIGITS = """
### Digits

A ViT that reads {teacher:.1%} of 600 unseen digits, and students of a quarter of its multiply-adds that
learnt from the same 1197 images; mean and range over {seeds} seeds. *Labels alone* is the control: the same
student, the same training, no teacher. Again: `{command}`.
"""


def distillation_tables(results: Results) -> str:
    """Return the tables with what they mean; those that nothing was measured for are left out."""
    about = ABOUT.format(
        parameters=results["parameters"],
        pairs=results["package_pairs"],
        cpu=results["machine"]["cpu"],
        **{name: results["versions"][name] for name in ("onnxruntime", "torch")},
    )
    parts: list[str] = []
    if results["rows"]:
        recall = results["original_package"]["recall_at_1"]
        head = ("recipe", "stage", "cosine, mean", "rank correlation", "what was done")
        parts += [about, packages_table(results["rows"], recall, results["speeds"])]
        parts += [CURVES, table(head, _stages(results))]
    if results["ablation"]:
        seeds = len(next(iter(results["ablation"].values())))
        parts.append(ABLATION.format(**results["short"], seeds=seeds))
        said = [name.replace("_", " ") for name in QUALITY]
        parts.append(
            table(
                ("losses or start", "retrieval kept", *said),
                _ablation(results, results["original"]["recall_at_1"]),
            )
        )
    return "\n".join(parts)


def digits_section(results: Results) -> str:
    """Return the table of `results/distillation_digits.json`."""
    rows = [
        (
            name,
            f"{run['multiply_adds']:.0%}",
            f"{row['mean']:.1%}",
            f"{row['low']:.1%}–{row['high']:.1%}",
        )
        for name, row in results["rows"].items()
        for run in [next(iter(row["runs"].values()))]
    ]
    seeds = len(next(iter(results["rows"].values()))["runs"])
    about = DIGITS.format(teacher=results["teacher"], seeds=seeds, command=results["command"])
    return f"{about}\n{table(('student', 'multiply-adds', 'accuracy', 'range'), rows)}"


def _stages(results: Results) -> list[tuple[str, ...]]:
    rows = []
    for name, row in results["rows"].items():
        first, last = row["curve"][0], row["curve"][-1]
        for stage, point in (
            (f"held out, {first['samples']:,} seen", first),
            (f"{last['samples']:,} seen", last),
        ):
            found = point["quality"]
            rows.append(
                (f"`{name}`", stage, f"{found['cosine_mean']:.4f}", f"{found['rank_correlation']:.4f}", "")
            )
        for step in row["steps"]:
            found = step["quality"]
            rows.append(
                (
                    f"`{name}`",
                    f"other English, after {step['step']}",
                    f"{found['cosine_mean']:.4f}",
                    f"{found['rank_correlation']:.4f}",
                    step["did"].partition(":")[0].rstrip("."),
                )
            )
    return rows


def _ablation(results: Results, recall: float) -> list[tuple[str, ...]]:
    rows = []
    for name, runs in results["ablation"].items():
        values = {key: np.array([run[key] for run in runs.values()]) for key in ("recall_at_1", *QUALITY)}
        kept = values.pop("recall_at_1") / recall
        said = [f"{v.mean():.4f} ({v.min():.4f}–{v.max():.4f})" for v in values.values()]
        rows.append((name, f"{kept.mean():.1%} ({kept.min():.1%}–{kept.max():.1%})", *said))
    return rows
