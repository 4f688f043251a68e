"""The tables of `docs/distillation.md`, from `results/distillation.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.compression_page import packages_table, table

Results = Mapping[str, Any]

QUALITY = ("rank_correlation", "cosine_mean", "cosine_p05")

HEAD_APART = (
    "recipe", "like its lessons: retrieval kept", "rank correlation",
    "other: retrieval kept", "rank correlation",
)  # fmt: skip
HEAD_STEPS = ("recipe", "step", "cosine, mean", "rank correlation")
SHARES = (0, 0.05, 0.1, 0.25, 0.5, 0.75, 1)
"""Of a training: where its curve is told."""

ABOUT = """
Students of all-MiniLM-L6-v2 ({parameters:,} parameters), each a recipe of `examples/recipes/`; measured like
the rows of [compression.md](compression.md): the int8 file in ONNX Runtime, {pairs} questions with their
answers from English that nothing learnt from, speed-up over the teacher's float graph with one thread, all
files timed in turns. `minilm-dynamic` is the teacher itself in dynamic int8, the control without training.
{cpu}, ONNX Runtime {onnxruntime}, torch {torch}. Again:
`python -m benchmarks.distillation`.
"""

APART = """
The same files on English of two kinds: *like its lessons* are {pairs} other questions and answers from the
packages whose texts taught it, *other* are those of the table above.
"""

STEPS = """
What each step cost and what training won back, in float, on other English:
"""

CURVES = """
Closeness against examples seen: cosine (rank correlation) to the teacher on held-out texts like the lessons.
"""

ABLATION = """
Short trainings of the student of `minilm-b` before quantization, {seen:,} texts each; other English, mean and
range over {seeds} seeds. Where all seeds agree to the last digit, no evaluation was closer to the teacher
than the student before training, which then is kept. Again: `python -m benchmarks.distillation --ablation`.
"""


DIGITS = """
### Digits

A ViT that reads {teacher:.1%} of 600 unseen digits, and students of a quarter of its multiply-adds that
learnt from the same 1197 images; mean and range over {seeds} seeds. *Labels alone* is the control: the same
student, the same training, no teacher. *Moved*: with seven copies of each image, up to 12 degrees and 0.7
pixels off, and three times the steps. Again: `{command}`.
"""


CLASSIFIER = """
### A classifier with few labels

What a noun of WordNet denotes, of {classes} kinds, from its definition: all-MiniLM-L6-v2 with a head, trained
on {labelled:,} labelled definitions, is right about {teacher:.1%} of {test:,} unseen ones. Its students have
{multiply_adds:.0%} of its multiply-adds ({student:,} parameters instead of {teacher_parameters:,}) and saw
{seen:,} texts each, some more than once; mean and range over {seeds} seeds, before quantization. *Texts
without labels* are these and {unlabelled:,} more. Again: `{command}`.
"""

CONTROLS = """
### What a student inherits

Students of the shape of `minilm-b` (3 layers, 512 neurons), taught alike on {seen:,} texts and packaged
alike, so that their files have the same size; judged like the packages above, one seed. *Every other layer*
has evenly spaced layers and neurons drawn at random, without repair; *fresh* has random weights; *near texts*
come in batches over the second half, with `similarity` and `anchors` rising to 0.3 and `beta2 = 0.98`. Again:
`{command}`.
"""

FINISH = """
### A finish for 8 bits

The student of `minilm-b` before it learns (3 layers, 512 neurons), trained for {steps} steps of {batch} texts
at {learning_rate:g}: with the codes of `cpu-x86`, or in float and quantized after it; judged by ONNX Runtime
on {pairs} questions and answers of other English; one seed. Again: `{command}`.
"""

DECODER = """
### A small language model

A Llama of {teacher_parameters:,} parameters, trained on {trained_tokens:,} tokens for this table (perplexity
{perplexity:.0f} on held-out texts), and students of {layers} of its six layers ({student_parameters:,}
parameters) that learnt from {seen:,} texts; mean and range over {seeds} seeds, before quantization. *Its own
texts*: how unlikely the teacher deems what the student writes. Again: `{command}`.
"""

BOTH = """
Beside an encoder: all-MiniLM-L6-v2 with {layers} of its six layers, taught on the same texts, as many steps.
*First choice* is the nearest of {others} other texts for the encoder, the next of {vocabulary:,} tokens for
the decoder, here the student of the lowest KL; the loss is 1 - cosine, and KL.
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
        recall = results["teacher"]["int8"]["recall_at_1"]
        parts += [about, packages_table(_packages(results), recall, results["speeds"])]
        parts += [APART.format(pairs=results["in_domain_pairs"]), table(HEAD_APART, _apart(results))]
        parts += [STEPS, table(HEAD_STEPS, _steps(results))]
        parts += [CURVES, _curves(results)]
    if results["ablation"]:
        seeds = len(next(iter(results["ablation"].values())))
        seen = round(results["short"]["samples"] * results["short"]["epochs"])
        parts.append(ABLATION.format(seen=seen, seeds=seeds))
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


def classifier_section(results: Results) -> str:
    """Return the table of `results/distillation_classifier.json`."""
    sizes, parameters = results["sizes"], results["parameters"]
    about = CLASSIFIER.format(
        **sizes,
        teacher=results["teacher"],
        multiply_adds=results["multiply_adds"],
        student=parameters["student"],
        teacher_parameters=parameters["teacher"],
        seen=sizes["steps"] * sizes["batch"],
        command=results["command"],
    )
    head = ("student", "accuracy", "range", "same class as the teacher")
    rows = [
        (name, _percent(row["accuracy"]), _range(row["accuracy"]), _percent(row["agreement"]))
        for name, row in results["rows"].items()
    ]
    return f"{about}\n{table(head, rows)}"


def controls_section(results: Results) -> str:
    """Return the table of `results/distillation_controls.json`."""
    sizes, teacher = results["sizes"], results["teacher"]
    about = CONTROLS.format(seen=round(sizes["epochs"] * sizes["distinct"]), command=results["command"])
    rows = [
        (
            name,
            f"{row['bytes'] / 1e6:.1f} MB",
            *(cell for key in ("in_domain", "other") for cell in _kept(row[key], teacher[key])),
        )
        for name, row in results["rows"].items()
    ]
    head = ("starts from", "file", *HEAD_APART[1:])
    return f"{about}\n{table(head, rows)}\n"


def finish_section(results: Results) -> str:
    """Return the table of `results/distillation_finish.json`."""
    about = FINISH.format(**results["sizes"], command=results["command"])
    recall = results["teacher"]["recall_at_1"]
    rows = [
        (name, f"{row['recall_at_1'] / recall:.1%}", *(f"{row[key]:.4f}" for key in QUALITY))
        for name, row in results["rows"].items()
    ]
    said = [name.replace("_", " ") for name in QUALITY]
    return f"{about}\n{table(('student', 'retrieval kept', *said), rows)}\n"


def llama_section(results: Results) -> str:
    """Return the tables of `results/distillation_llama.json`: decoders, and decoders beside encoders."""
    rows, teachers, sizes = results["rows"], results["teachers"], results["sizes"]
    decoder = teachers["decoder"]
    about = DECODER.format(
        teacher_parameters=decoder["parameters"]["teacher"],
        student_parameters=decoder["parameters"]["student"],
        trained_tokens=sizes["trained_tokens"],
        perplexity=decoder["perplexity"],
        seen=sizes["steps"] * sizes["batch"],
        layers=sizes["layers"],
        seeds=sizes["seeds"],
        command=results["command"],
    )
    beside = BOTH.format(
        layers=sizes["layers"], others=sizes["evaluated"] - 1, vocabulary=sizes["vocabulary"]
    )
    head = (
        "student", "perplexity over the teacher's", "same next token", "KL", "of other English: perplexity",
        "same next token", "its own texts, nats per token",
    )  # fmt: skip
    own = {name: row for name, row in rows.items() if name.startswith("decoder, ")}
    lines = [
        (
            name.removeprefix("decoder, "),
            _between(row["perplexity ratio"], "{:.3f}"),
            _between(row["agreement"], "{:.1%}"),
            f"{row['loss']['mean']:.3f}",
            _between(row["held-out perplexity ratio"], "{:.3f}"),
            _between(row["held-out agreement"], "{:.1%}"),
            _between(row["writes"], "{:.2f}"),
        )
        for name, row in own.items()
    ]
    lines.append(("the teacher", "1", "100%", "0", "1", "100%", f"{decoder['writes']:.2f}"))
    both = [("encoder", name) for name in rows if name.startswith("encoder, ") and "not" not in name]
    best = min((name for name in own if "not" not in name), key=lambda name: rows[name]["loss"]["mean"])
    both += [("decoder", best)] if own else []
    compared = [
        (name, *_regained(rows[f"{kind}, not trained"], rows[name], prefix), where)
        for kind, name in both
        for prefix, where in (("", "like those learnt from"), ("held-out ", "other English"))
    ]
    head_both = ("student", "same first choice, before", "after", "share of the loss won back", "texts")
    parts = [about, table(head, lines), beside, table(head_both, compared)]
    if len(compared) == 4:
        (_, _, _, encoder, _), (_, _, _, decoder, _) = compared[1], compared[3]
        parts.append(
            f"\nOf other English the encoder won back {encoder} of the loss, the decoder {decoder}.\n"
        )
    return "\n".join(parts)


def _regained(before: Results, after: Results, prefix: str) -> tuple[str, str, str]:
    """Return how often the first choice is the teacher's, before and after, and how much of the loss went."""
    first = before[f"{prefix}loss"]["mean"]
    loss = after[f"{prefix}loss"]
    won = {"mean": 1 - loss["mean"] / first, "low": 1 - loss["high"] / first, "high": 1 - loss["low"] / first}
    agreement = f"{prefix}agreement"
    return (
        _percent(before[agreement]),
        _between(after[agreement], "{:.1%}"),
        _between(won, "{:.1%}"),
    )


def _percent(found: Mapping[str, float]) -> str:
    return f"{found['mean']:.1%}"


def _range(found: Mapping[str, float]) -> str:
    return f"{found['low']:.1%}–{found['high']:.1%}"


def _between(found: Mapping[str, float], form: str) -> str:
    """Return mean and range; the mean alone where there is no range."""
    mean, low, high = (form.format(found[key]) for key in ("mean", "low", "high"))
    return mean if low == high else f"{mean} ({low}–{high})"


def _apart(results: Results) -> list[tuple[str, ...]]:
    teacher = results["teacher"]
    return [
        (f"`{name}`", *(cell for key in ("in_domain", "int8") for cell in _kept(row[key], teacher[key])))
        for name, row in _packages(results).items()
    ]


def _packages(results: Results) -> Results:
    return {**results["rows"], **results["controls"]}


def _kept(found: Results, teacher: Results) -> tuple[str, str]:
    return f"{found['recall_at_1'] / teacher['recall_at_1']:.1%}", f"{found['rank_correlation']:.4f}"


def _steps(results: Results) -> list[tuple[str, ...]]:
    return [
        (
            f"`{name}`",
            step["did"].partition(":")[0].rstrip("."),
            f"{step['quality']['cosine_mean']:.4f}",
            f"{step['quality']['rank_correlation']:.4f}",
        )
        for name, row in results["rows"].items()
        for step in row["steps"]
    ]


def _curves(results: Results) -> str:
    """Return one column of evaluations for each row, from the start to the end."""
    curves = {name: row["curve"] for name, row in results["rows"].items()}
    lines = [
        (f"{share:.0%}", *(_point(curve[round(share * (len(curve) - 1))]) for curve in curves.values()))
        for share in SHARES
    ]
    return table(("of the training", *(f"`{name}`" for name in curves)), lines)


def _point(point: Results) -> str:
    found = point["quality"]
    return f"{point['samples']:,}: {found['cosine_mean']:.4f} ({found['rank_correlation']:.4f})"


def _ablation(results: Results, recall: float) -> list[tuple[str, ...]]:
    rows = []
    for name, runs in results["ablation"].items():
        values = {key: np.array([run[key] for run in runs.values()]) for key in ("recall_at_1", *QUALITY)}
        kept = values.pop("recall_at_1") / recall
        said = [f"{v.mean():.4f} ({v.min():.4f}–{v.max():.4f})" for v in values.values()]
        rows.append((name, f"{kept.mean():.1%} ({kept.min():.1%}–{kept.max():.1%})", *said))
    return rows
