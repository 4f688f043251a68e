"""Package -> Verdict: the gates once more, on whatever machine the package has come to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit.errors import ModelError
from edgekit.golden import Golden
from edgekit.machine import read_machine, versions
from edgekit.package.manifest import open_package
from edgekit.recipe import read_table, recipe_from_table
from edgekit.record import Progress, Verdict, silent
from edgekit.report.document import load_reports, strict_json
from edgekit.report.html import render_html
from edgekit.runners.table import refuse_unknown_runners
from edgekit.tasks import request_gates
from edgekit.validate import validate
from edgekit.validate.matrix import MatrixOptions
from edgekit.verification import verified


def revalidate(
    path: Path,
    *,
    float_path: Path | None = None,
    runs: int | None = None,
    on: Sequence[str] = (),
    timeout_s: float = 300.0,
    progress: Progress = silent,
) -> Verdict:
    """Check a package's files against their digests and run its gates, here and wherever else is asked.

    Args:
        path: The package's folder.
        float_path: A float graph to time against (`export --keep-float` keeps one); None times nothing but
            the shipped graph on runners.
        runs: Timed runs; None takes the recipe's.
        on: Names of runners to run it on; `target` is the target's own ones, `all` every ready one that
            suits. The run on this CPU comes with them.
        timeout_s: Seconds after which a runner counts as hung.
        progress: Told of each runner.

    Raises:
        PackageError: A file is missing, changed, or does not belong.
        ModelError: The runtime here cannot open or run the graph.
        RunnerMissingError: A named runner is unknown or not ready.
    """
    if float_path is not None and not float_path.is_file():
        raise ModelError(f"float graph not found: {float_path}", "Check the path given to --float.")
    package = open_package(path)
    refuse_unknown_runners(package.profile, on)
    recipe = recipe_from_table(read_table(path / "recipe.toml"), str(path / "recipe.toml"))
    latency = recipe.latency if runs is None else recipe.latency.model_copy(update={"runs": runs})
    golden = Golden.load(package.golden)
    gates = request_gates(recipe, golden)
    verdict = validate(
        package.model,
        package.golden,
        package.profile,
        float_path=float_path,
        float_size=None if float_path else package.float_size,
        gates=gates,
        latency=latency,
        max_length=package.max_length,
    )
    options = MatrixOptions(
        runs=min(latency.runs, MatrixOptions.runs),
        timeout_s=timeout_s,
        gates=gates,
        max_length=package.max_length,
    )
    return verified(
        verdict,
        package.model,
        package.golden,
        package.profile,
        options,
        asked=on,
        targets_own=False,
        float_path=float_path,
        progress=progress,
    )


def reported(path: Path, verdict: Verdict) -> str:
    """Return the HTML page of a package with a fresh verdict in the place of the one it was made with.

    Args:
        path: The package's folder.
        verdict: What `revalidate` found.
    """
    report = load_reports(path / "report.json")[0]
    fresh = {"machine": read_machine().to_json(), "versions": versions()}
    return render_html([{**report, **fresh, "verdict": strict_json(verdict.to_json())}])
