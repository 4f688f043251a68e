"""`edgekit distill`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.request import COLUMN, FORCE, MODEL, QUIET, VALIDATION_SAMPLES, WHERE, declared, request_of

if TYPE_CHECKING:
    from edgekit.recipe import Recipe

_FRESH = ("layers", "hidden", "heads", "ffn")


@click.command(no_args_is_help=True)
@click.argument("teacher", required=False)
@declared(*WHERE)
@click.option("--student", help="Directory of the model that learns, such as edgekit compress writes.")
@click.option("--fresh-layers", type=int, help="Or one with random weights: its layers.")
@click.option("--fresh-hidden", type=int, help="Its width between layers.  [default: the teacher's]")
@click.option("--fresh-heads", type=int, help="Its attention heads.  [default: the teacher's]")
@click.option("--fresh-ffn", type=int, help="Its neurons per feed-forward block.  [default: the teacher's]")
@click.option("--activation", help="Another activation in the feed-forward blocks; relu is free in int8.")
@click.option("--norms", help="one-per-layer drops the norm behind attention of BERT-like encoders.")
@click.option("-d", "--data", help="Samples to learn from: .txt, .jsonl, .csv, .npz, or a folder of images.")
@COLUMN
@click.option("--label-column", help="Column, key or array that holds the label, or a text's pair.")
@click.option("--samples", type=int, help="Samples to learn from, at most.  [default: 200000]")
@click.option("--validation", help="Samples to measure the loss on; left out, they are held out from --data.")
@VALIDATION_SAMPLES
@click.option("--epochs", type=float, help="How often each sample is seen.  [default: 3]")
@click.option("--steps", type=int, help="Optimizer steps, instead of --epochs.")
@click.option("--batch", type=int, help="Samples of a forward.  [default: 64]")
@click.option("--accumulate", type=int, help="Forwards of an optimizer step.  [default: 1]")
@click.option("--learning-rate", type=float, help="At the end of the warm-up.  [default: 0.0003]")
@click.option("--temperature", type=float, help="Of the teacher's probabilities.  [default: 2]")
@click.option(
    "--reverse", type=float, help="Weight of the loss that is KL the other way round.  [default: 0]"
)
@click.option(
    "--on-policy",
    type=float,
    help="Share of batches that a language model writes itself, for the teacher to grade.  [default: 0]",
)
@click.option("--precision", help="fp32, bf16 or fp16.  [default: bf16 on a GPU, else fp32]")
@click.option("--patience", type=int, help="Stop after so many evaluations without gain.  [default: 5]")
@click.option("--finish-for", help="Train on with the 8-bit codes of this target, such as cpu-x86.")
@click.option("--finish-steps", type=int, help="For so many optimizer steps.  [default: 500]")
@click.option("--embeddings", help="int8 or int4 tables in that, as the export will store them.")
@click.option("--cache", help="Folder that keeps the teacher's outputs for other students.")
@declared(*MODEL)
@FORCE
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@QUIET
def command(
    recipe_path: Path | None,
    output: Path | None,
    force: bool,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Train a smaller model to give what TEACHER gives; no labels are needed.

    Writes a model directory that `edgekit export` takes. What was interrupted goes on where it was when the
    same command is run again. With `accelerate launch -m edgekit distill ...` it runs on several devices.

    \b
    edgekit compress ./all-MiniLM-L6-v2 -d texts.txt --layers 3 -o build/3l
    edgekit distill ./all-MiniLM-L6-v2 --student build/3l -d texts.txt -o build/3l-taught
    """
    from edgekit.cli.compress import make
    from edgekit.compressing import distill_model

    make(distill_model, _recipe(recipe_path, flags), output, force, as_json, quiet)


def _recipe(path: Path | None, flags: dict[str, Any]) -> Recipe:
    fresh = {key: flags[f"fresh_{key}"] for key in _FRESH}
    schedule = ("epochs", "steps", "batch", "accumulate", "learning_rate", "precision", "patience", "cache")
    losses = {key: flags[key] for key in ("temperature", "reverse", "on_policy")}
    distill = {
        **{key: flags[key] for key in ("student", "data", "column", "label_column", "samples", *schedule)},
        "fresh": {key: value for key, value in fresh.items() if value is not None} or None,
        "changes": {key: flags[key] for key in ("activation", "norms") if flags[key]} or None,
        "losses": {key: value for key, value in losses.items() if value is not None} or None,
    }
    finish = {"target": flags["finish_for"], "steps": flags["finish_steps"]}
    distill["finish"] = {key: value for key, value in finish.items() if value is not None} or None
    table = {
        "quantize": {"embeddings": flags["embeddings"]},
        "distill": {key: value for key, value in distill.items() if value is not None},
    }
    return request_of(path, flags["teacher"], flags, table)
