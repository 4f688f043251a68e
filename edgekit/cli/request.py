"""What the commands that take a model and a recipe have in common: their options, and how flags win."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edgekit.recipe import Recipe

Command = TypeVar("Command", bound=Callable[..., Any])

WHERE = (
    click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to make.  [required]"),
    click.option(
        "--recipe", "recipe_path", type=click.Path(path_type=Path), help="Recipe file; flags win over it."
    ),
    click.option("--task", help="What the model is for; inferred where it is left out."),
)
COLUMN = click.option("--column", help="Column of a .csv or key of a .jsonl that holds the sample.")
VALIDATION_SAMPLES = click.option(
    "--validation-samples", type=int, help="Validation samples at most.  [default: 128]"
)
MODEL = (
    click.option("--seed", type=int, help="Seed of every random choice.  [default: 0]"),
    click.option("--max-length", type=int, help="Longest token sequence.  [default: the model's]"),
    click.option("--revision", help="Hub revision of the model."),
    click.option(
        "--allow-pickle", is_flag=True, default=None, help="Load a pickle checkpoint, weights only."
    ),
)
FORCE = click.option("--force", is_flag=True, help="Replace the output folder if it is there.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")


def declared(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that gives a command these options, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def request_of(path: Path | None, model: str | None, flags: dict[str, Any], table: dict[str, Any]) -> Recipe:
    """Return the request of a command.

    Args:
        path: The recipe's file, where there is one.
        model: Positional argument of the command.
        flags: Of the command; what was not given is None.
        table: What this command's own flags say, as in a recipe's file.

    Raises:
        UsageError: No model is named.
        RecipeError: Something in it is not possible.
    """
    from edgekit.recipe import overlay, read_table, recipe_from_table

    validation = flags["validation"]
    common = {
        "model": model,
        "task": flags["task"],
        "seed": flags["seed"],
        "model_options": {
            key: flags.get(key) for key in ("revision", "allow_pickle", "max_length", "weights")
        },
        "validation": {
            "data": validation,
            "column": flags["column"] if validation else None,
            "label_column": flags["label_column"] if validation else None,
            "samples": flags["validation_samples"],
        },
    }
    merged = overlay(read_table(path) if path else {}, {**common, **table})
    if "model" not in merged:
        (argument,) = click.get_current_context().command.params[:1]
        name = argument.human_readable_name
        raise click.UsageError(f"Missing argument '{name}' (or 'model' in --recipe).")
    return recipe_from_table(merged, f"recipe {path}" if path else "request")
