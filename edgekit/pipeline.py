"""The order: one request, one page.

    load ─▶ compress (+ distill) ─▶ export (+ golden) ─▶ optimize ─▶ calibrate
         ─▶ per target: quantize ─▶ validate ─▶ package

What targets have in common is done once: one load, one export per opset, one calibration pass per float
graph (`float_graph`). What is each target's own is in `target_run`, what is left behind in `outcome`.
"""

from __future__ import annotations

from pathlib import Path

from edgekit import graph as g
from edgekit.compressing import compressed
from edgekit.distilling import training_state
from edgekit.float_graph import Job, export_float_graphs, float_key, make_float_graph
from edgekit.model import ModelFacts, ModelRef
from edgekit.outcome import ExportResult, stop_on_failure, write_reports, write_target
from edgekit.package import Package
from edgekit.preflight import (
    calibrates,
    pin,
    read_data,
    refuse_output,
    refuse_unknown_gates,
    refuse_unmeasured_gates,
    resolve,
    sift,
)
from edgekit.quantize.run import CalibrationRun
from edgekit.recipe import Recipe
from edgekit.record import Progress, silent
from edgekit.runtime import let_go
from edgekit.source import forget_weights, load
from edgekit.store import workspace, writing_folder
from edgekit.target_run import TargetRun, run_target

__all__ = ["ExportResult", "export"]


def export(
    recipe: Recipe,
    output: Path,
    *,
    force: bool = False,
    progress: Progress = silent,
    calibration_run: CalibrationRun | None = None,
) -> ExportResult:
    """Take a model all the way to validated packages, one per target.

    Args:
        recipe: The whole request.
        output: Folder to make; each target's package is a folder in it.
        force: Replace `output` if it is there.
        progress: Told of each stage as it begins.
        calibration_run: Statistics to take or to keep, and a memory budget.

    Raises:
        GateError: A gate failed. No package is written; the report is in `<output>.failed/`.
        EdgekitError: The input is wrong or the machine lacks something; nothing is written.
        SystemExit: As `edgekit.distill_model`, where the recipe has a `[distill]` table.
    """
    output = output if output.name not in ("", "..") else output.resolve()
    refuse_output(output, recipe, force=force)
    profiles = resolve(recipe)
    run = calibration_run or CalibrationRun()
    quantizes = any(calibrates(recipe, profile) for profile in profiles)
    run.refuse_unusable(output, graphs=len(set(map(float_key, profiles))), quantizes=quantizes)
    progress("load", "reading the data", None)
    data = read_data(recipe, calibrates=quantizes)
    with training_state(output) as state, workspace() as scratch:
        progress("load", f"loading {recipe.model}", None)
        reference = ModelRef(recipe.model, **recipe.model_options.model_dump())
        original = load(reference, recipe.task, scratch=scratch)
        refuse_unknown_gates(recipe.gates, [original.task])
        original, data = sift(original, data, recipe)
        recipe = pin(recipe, original, data, profiles)
        model = compressed(original, recipe, data, scratch, state, progress)
        job = Job(recipe, ModelFacts.of(model), data, scratch, progress, run)
        exported = export_float_graphs(job, model, original, profiles)
        for done in (model, original):  # nothing from here on needs PyTorch
            forget_weights(done)
        del model, original, done
        let_go()
        graphs = {key: make_float_graph(job, key, start) for key, start in exported.items()}
        runs: list[TargetRun] = []
        for target, profile in zip(recipe.targets, profiles, strict=True):
            runs.append(run_target(job, target, profile, graphs[float_key(profile)], runs))
        refuse_unmeasured_gates(recipe, [run.verdict for run in runs])
        stop_on_failure(job, runs, output)
        progress("package", f"writing {output}", None)
        with writing_folder(output, force=force) as folder:
            written = [write_target(folder, job, run) for run in runs]
            if recipe.keep_float:
                for (opset, *_), start in graphs.items():
                    # Not copied as a file: over 2 GiB its weights are in another one, whose name it holds.
                    g.save(g.load(start.exported.only.path), folder / f"float-opset{opset}.onnx")
            write_reports(folder, [report for _, report in written])
    packages = tuple(Package(output / package.path.name, package.manifest) for package, _ in written)
    return ExportResult(output, packages, tuple(report for _, report in written), output / "report.html")
