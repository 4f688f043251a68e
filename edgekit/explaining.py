"""Package -> Explanation: which kernels run it on this machine, what each costs, and why some are float.

The public verb `edgekit.explain` lives here; a module of that name would take its place on the package.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from edgekit.errors import PackageError, RecipeError
from edgekit.model import OnnxModel
from edgekit.package.manifest import NAME, Package, open_package
from edgekit.profile import TargetProfile
from edgekit.recipe import read_table, recipe_from_table
from edgekit.record import Skip, StepRecord, Verdict
from edgekit.validate.explanation import Explanation
from edgekit.validate.explanation import explain as explain_graph


def explain(path: Path, *, shapes: Sequence[str] = (), threads: int | None = None) -> Explanation:
    """Explain the graph of a package from the package alone.

    Args:
        path: The package's folder.
        shapes: Input shapes such as `1x128`, or `8` for a model without sequences; none takes the target's.
        threads: Intra-op threads; None takes the recipe's, or else the target's.

    Raises:
        PackageError: A file is missing, changed, or does not belong.
        RecipeError: A shape is not one that the model takes.
        ModelError: The runtime here cannot open or run the graph.
    """
    if threads is not None and threads < 1:
        raise RecipeError(f"--threads {threads}: at least one thread has to run")
    package = open_package(path)
    recipe = recipe_from_table(read_table(path / "recipe.toml"), str(path / "recipe.toml"))
    sequence = any(len(s.shape) > 1 and s.shape[1] == "sequence" for s in package.signature.inputs)
    points = [parse_shape(shape, sequence=sequence, max_length=package.max_length) for shape in shapes]
    return explain_graph(
        package.model,
        package.golden,
        package.profile,
        skips=_recorded_skips(package),
        points=points or None,
        threads=threads or recipe.latency.threads,
        max_length=package.max_length,
    )


def explain_timed(
    model: OnnxModel, golden: Path, profile: TargetProfile, verdict: Verdict, max_length: int | None
) -> Explanation | None:
    """Return where the time of a shipped graph goes; None where its latency was not measured here."""
    if not verdict.latency:
        return None
    return explain_graph(
        model.only.path,
        golden,
        profile,
        skips=skips_of(model.history),
        threads=verdict.latency[0].threads,
        max_length=max_length,
    )


def parse_shape(text: str, *, sequence: bool, max_length: int | None) -> tuple[int, int]:
    """Return (batch, length) of an input shape; the length is 0 for a model without sequences.

    Args:
        text: `BATCHxLENGTH`, or `BATCH`.
        sequence: Whether the model takes sequences.
        max_length: The longest that it takes; None where that is not known.

    Raises:
        RecipeError: The text is no shape, or not one that the model takes.
    """
    found = re.fullmatch(r"([1-9]\d{0,5})(?:x([1-9]\d{0,6}))?", text.strip(), re.ASCII)
    if found is None:
        raise RecipeError(f"--shape {text}: not a shape", "Write BATCHxLENGTH, for example 1x128.")
    if sequence and found[2] is None:
        raise RecipeError(f"--shape {text}: the model takes sequences", f"Add a length: {text}x128.")
    if not sequence and found[2] is not None:
        raise RecipeError(
            f"--shape {text}: the model takes no sequences", f"Give the batch alone: {found[1]}."
        )
    length = int(found[2] or 0)
    if max_length is not None and length > max_length:
        raise RecipeError(f"--shape {text}: the model takes at most {max_length} tokens")
    return int(found[1]), length


def skips_of(history: Sequence[StepRecord]) -> tuple[Skip, ...]:
    """Return what quantization left alone, and why."""
    return tuple(skip for record in history if record.stage == "quantize" for skip in record.skipped)


def _recorded_skips(package: Package) -> tuple[Skip, ...]:
    try:
        return tuple(
            Skip(str(skip["what"]), str(skip["why"]))
            for record in package.manifest.get("history", ())
            if record["stage"] == "quantize"
            for skip in record["skipped"]
        )
    except (KeyError, TypeError):
        raise PackageError(
            f"{package.path / NAME} makes no sense: its history is damaged", "Export the model again."
        ) from None
