"""Package -> Verdict: the gates once more, on whatever machine the package has come to."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import ModelError
from edgekit.package.manifest import open_package
from edgekit.recipe import read_table, recipe_from_table
from edgekit.record import Verdict
from edgekit.validate import validate


def revalidate(path: Path, *, float_path: Path | None = None, runs: int | None = None) -> Verdict:
    """Check a package's files against their digests and run its gates.

    Args:
        path: The package's folder.
        float_path: A float graph to time against (`export --keep-float` keeps one); None times nothing.
        runs: Timed runs; None takes the recipe's.

    Raises:
        PackageError: A file is missing, changed, or does not belong.
        ModelError: The runtime here cannot open or run the graph.
    """
    if float_path is not None and not float_path.is_file():
        raise ModelError(f"float graph not found: {float_path}", "Check the path given to --float.")
    package = open_package(path)
    recipe = recipe_from_table(read_table(path / "recipe.toml"), str(path / "recipe.toml"))
    latency = recipe.latency if runs is None else recipe.latency.model_copy(update={"runs": runs})
    return validate(
        package.model,
        package.golden,
        package.profile,
        float_path=float_path,
        float_size=None if float_path else package.float_size,
        gates=recipe.gates,
        latency=latency,
        max_length=package.max_length,
    )
