"""The order: one request, one page.

    load ─▶ export (+ golden) ─▶ optimize ─▶ calibrate ─▶ per target: quantize ─▶ validate ─▶ package

What targets have in common is done once: one load, one export per opset, one calibration pass per float
graph.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.errors import GateError, RecipeError
from edgekit.explaining import explain_timed
from edgekit.golden import Golden
from edgekit.machine import read_machine, versions
from edgekit.mixed import TUNING_SAMPLES, quantize_within, record_tuning_golden
from edgekit.model import ModelRef, OnnxModel, TorchModel
from edgekit.optimize import optimize
from edgekit.package import Contents, Package, seal, write_package
from edgekit.preflight import (
    UserData,
    failed_folder,
    read_data,
    refuse_output,
    refuse_unknown_gates,
    refuse_unmeasured_gates,
    resolve,
    sift,
)
from edgekit.profile import TargetProfile
from edgekit.quantize import Calibration, quantize
from edgekit.quantize.audit import (
    HELD_OUT_SAMPLES,
    CalibrationAudit,
    audit_calibration,
    audit_checks,
    audit_notes,
    audit_record,
    count_clipping,
)
from edgekit.quantize.dynamic import quantize_dynamic
from edgekit.quantize.run import CalibrationRun, run_calibration
from edgekit.recipe import Pinned, Recipe
from edgekit.record import Clock, Progress, StepRecord, Verdict, silent
from edgekit.report.document import TargetReport
from edgekit.report.html import render_html
from edgekit.report.terminal import failures
from edgekit.source import load
from edgekit.store import dump_json, sha256_file, sha256_json, workspace, write_text, writing_folder
from edgekit.tasks.base import Preprocessor
from edgekit.tasks.batches import SingleBatches, golden_batches
from edgekit.to_onnx import export_model, record_golden
from edgekit.validate import check_float, validate
from edgekit.validate.candidates import Candidate, measure_candidates
from edgekit.validate.explanation import Explanation


@dataclass(frozen=True)
class FloatGraph:
    """The float graph that several targets start from.

    Attributes:
        exported: As it was exported: what speed and size are compared with.
        model: After the rewrites that every target wants.
        golden: The golden's file.
        calibration: Statistics of its tensors; None where nothing is quantized.
        tuning: Calibration samples with the float graph's outputs, to try forms on; None likewise.
        audit: What calibration tells about itself; None where there is none.
    """

    exported: OnnxModel
    model: OnnxModel
    golden: Path
    calibration: Calibration | None
    tuning: Golden | None = None
    audit: CalibrationAudit | None = None


@dataclass(frozen=True)
class ExportResult:
    """What an export made.

    Attributes:
        output: The folder that was asked for.
        packages: One per target, in the order of the recipe.
        reports: One per target.
        report_path: The HTML report over all targets.
    """

    output: Path
    packages: tuple[Package, ...]
    reports: tuple[TargetReport, ...]
    report_path: Path


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
    """
    output = output if output.name not in ("", "..") else output.resolve()
    refuse_output(output, recipe, force=force)
    profiles = resolve(recipe)
    run = calibration_run or CalibrationRun()
    graphs = {(profile.onnx.opset, profile.onnx.ir_version) for profile in profiles}
    run.refuse_unusable(output, graphs=len(graphs), quantizes=recipe.quantize.method != "none")
    progress("load", "reading the data", None)
    data = read_data(recipe)
    with workspace() as scratch:
        progress("load", f"loading {recipe.model}", None)
        torch_model = load(model_ref(recipe), recipe.task, scratch=scratch)
        refuse_unknown_gates(recipe.gates, [torch_model.task])
        torch_model, data = sift(torch_model, data, recipe)
        max_length = getattr(torch_model.preprocessor, "max_length", None)
        resolved = _pin(recipe, torch_model, data, profiles)
        floats: dict[tuple[int, int], FloatGraph] = {}
        made: list[tuple[TargetProfile, OnnxModel, FloatGraph, Verdict]] = []
        explanations: list[Explanation | None] = []
        candidates: list[tuple[Candidate, ...]] = []
        for profile in profiles:
            versions_wanted = (profile.onnx.opset, profile.onnx.ir_version)
            if versions_wanted not in floats:
                floats[versions_wanted] = make_float(
                    torch_model, data, profile, recipe, scratch, progress, run
                )
            start = floats[versions_wanted]
            progress("quantize", f"{profile.name}", len(made) / len(profiles))
            twin = _twin(profile, made)
            path = scratch / f"{profile.name}.onnx"
            model = twin or quantize_for(start, profile, recipe, path, progress)
            progress("validate", f"{profile.name}", len(made) / len(profiles))
            verdict = validate(
                model.only.path,
                start.golden,
                profile,
                float_path=start.exported.only.path,
                gates=recipe.gates,
                latency=recipe.latency,
                max_length=max_length,
            )
            model, verdict = audited(start, model, verdict, profile, data, recipe, torch_model.preprocessor)
            made.append((profile, model, start, verdict))
            explanations.append(explain_timed(model, start.golden, profile, verdict, max_length))
            candidates.append(compare_forms(start, model, verdict, profile, recipe, max_length))
        refuse_unmeasured_gates(recipe, [verdict for *_, verdict in made])
        reports = [
            make_report(
                torch_model, model, profile, verdict, data, resolved, model.history, explanation, forms
            )
            for (profile, model, _, verdict), explanation, forms in zip(
                made, explanations, candidates, strict=True
            )
        ]
        _stop_on_failure(reports, output)
        progress("package", f"writing {output}", None)
        sealed: list[Package] = []
        with writing_folder(output, force=force) as folder:
            for index, (profile, model, start, verdict) in enumerate(made):
                target = folder / profile.name
                target.mkdir()
                contents = _contents(torch_model, resolved, recipe.targets[index], profile)
                package, records = write_package(target, model, start.golden, profile, verdict, contents)
                history = (*model.history, *records)
                reports[index] = replace(reports[index], history=history)
                sealed.append(seal(package, reports[index].to_json()))
            if recipe.keep_float:
                for start in floats.values():
                    shutil.copyfile(start.exported.only.path, folder / f"float-opset{start.model.opset}.onnx")
            write_report(folder, reports)
    packages = tuple(Package(output / package.path.name, package.manifest) for package in sealed)
    return ExportResult(output, packages, tuple(reports), output / "report.html")


def model_ref(recipe: Recipe) -> ModelRef:
    """Return the reference to the model that a recipe names."""
    return ModelRef(recipe.model, **recipe.model_options.model_dump())


def make_float(
    torch_model: TorchModel,
    data: UserData,
    profile: TargetProfile,
    recipe: Recipe,
    scratch: Path,
    progress: Progress = silent,
    run: CalibrationRun | None = None,
) -> FloatGraph:
    """Export, prove against PyTorch, optimize, prove again, and calibrate."""
    opset, ir_version = profile.onnx.opset, profile.onnx.ir_version
    folder = scratch / f"opset{opset}-ir{ir_version}"
    folder.mkdir()
    progress("export", f"exporting to opset {opset}, IR {ir_version}", None)
    # The golden first: data that the model cannot take, or outputs that are not finite, show at once.
    golden = record_golden(torch_model, golden_batches(torch_model.preprocessor, data.held_out))
    exported = export_model(torch_model, folder, opset=opset, ir_version=ir_version)
    golden_path = folder / "golden.npz"
    golden.save(golden_path)
    progress("export", "comparing the float graph with PyTorch", None)
    exported = exported.with_step(check_float(exported, golden)[1])
    progress("optimize", "rewriting the float graph", None)
    optimized = optimize(exported, folder / "optimized.onnx")
    if sha256_file(optimized.only.path) != sha256_file(exported.only.path):
        optimized = optimized.with_step(check_float(optimized, golden)[1])
    if recipe.quantize.method == "none":
        return FloatGraph(exported, optimized, golden_path, None)
    run = run or CalibrationRun()
    samples = data.calibration
    said = f"reading {run.statistics}" if run.statistics else f"running {len(samples)} samples"
    progress("calibrate", said, None)
    batches = SingleBatches(torch_model.preprocessor, samples)
    calibration = run_calibration(optimized, batches, run, folder)
    audit = audit_calibration(calibration, recipe.calibration.samples)
    tried_on = golden_batches(torch_model.preprocessor, samples[:TUNING_SAMPLES])
    tuning = record_tuning_golden(optimized, torch_model.task, tried_on)
    return FloatGraph(exported, optimized, golden_path, calibration, tuning, audit)


def quantize_for(
    start: FloatGraph, profile: TargetProfile, recipe: Recipe, path: Path, progress: Progress = silent
) -> OnnxModel:
    """Return the graph to ship on a target: quantized, or the float one where the recipe says so."""
    if start.calibration is None or start.tuning is None:
        return start.model
    if not recipe.quantize.mixed:
        return quantize(start.model, start.calibration, profile, recipe.quantize, path)
    return quantize_within(
        start.model,
        start.calibration,
        profile,
        recipe.quantize,
        path,
        tuning=start.tuning,
        gates=recipe.gates,
        progress=progress,
    )


def _twin(
    profile: TargetProfile, made: Sequence[tuple[TargetProfile, OnnxModel, FloatGraph, Verdict]]
) -> OnnxModel | None:
    """Return the graph of an earlier target that has the same rules, without that target's audit."""
    for other, model, _, _ in made:
        rules = (other.onnx, other.quantization, other.policy.gates)
        if rules == (profile.onnx, profile.quantization, profile.policy.gates):
            return replace(model, history=tuple(r for r in model.history if r.step != "audit"))
    return None


def compare_forms(
    start: FloatGraph,
    model: OnnxModel,
    verdict: Verdict,
    profile: TargetProfile,
    recipe: Recipe,
    max_length: int | None,
) -> tuple[Candidate, ...]:
    """Return the forms that a model could ship in, measured side by side; none unless the recipe asks."""
    if not recipe.latency.candidates or start.calibration is None:
        return ()
    dynamic = quantize_dynamic(start.model, profile, model.only.path.with_suffix(".dynamic.onnx"))
    files = {
        "float": start.exported.only.path,
        "float-rewritten": start.model.only.path,
        "dynamic": dynamic.only.path,
        "static": model.only.path,
    }
    return measure_candidates(
        files,
        Golden.load(start.golden),
        profile.runtime.points,
        shipped="static",
        timed=bool(verdict.latency),
        runs=recipe.latency.runs,
        threads=recipe.latency.threads or profile.runtime.threads,
        session_options=profile.runtime.session_options,
        gates={**profile.policy.gates, **recipe.gates},
        max_length=max_length,
    )


def audited(
    start: FloatGraph,
    model: OnnxModel,
    verdict: Verdict,
    profile: TargetProfile,
    data: UserData,
    recipe: Recipe,
    preprocessor: Preprocessor,
) -> tuple[OnnxModel, Verdict]:
    """Return model and verdict with what the audit of the calibration found on held-out samples."""
    if start.audit is None:
        return model, verdict
    clock = Clock()
    samples = data.held_out[:HELD_OUT_SAMPLES]
    clipping = count_clipping(model.only.path, SingleBatches(preprocessor, samples))
    gates = {**profile.policy.gates, **recipe.gates}
    checks = audit_checks(start.audit, clipping, recipe.quantize, gates)
    notes = audit_notes(start.audit, clipping)
    verdict = replace(verdict, checks=(*verdict.checks, *checks), notes=(*verdict.notes, *notes))
    return model.with_step(audit_record(start.audit, clipping, len(samples), clock)), verdict


def make_report(
    torch_model: TorchModel,
    model: OnnxModel,
    profile: TargetProfile,
    verdict: Verdict,
    data: UserData,
    recipe: Recipe,
    history: tuple[StepRecord, ...],
    explanation: Explanation | None = None,
    candidates: tuple[Candidate, ...] = (),
) -> TargetReport:
    """Return the report of one target."""
    return TargetReport(
        model_name=torch_model.name,
        task=torch_model.task,
        source_sha256=torch_model.source_sha256,
        profile=profile,
        signature=model.only.signature,
        machine=read_machine(),
        versions=versions(),
        verdict=verdict,
        history=history,
        command=f"edgekit export --recipe {profile.name}/recipe.toml -o OUTPUT",
        data={purpose: audit.to_json() for purpose, audit in data.audits.items()} | _ranges(history),
        explanation=explanation,
        candidates=candidates,
    )


def write_report(folder: Path, reports: Sequence[TargetReport]) -> None:
    """Write report.json and report.html over all targets into a folder."""
    documents = [report.to_json() for report in reports]
    write_text(folder / "report.json", dump_json({"schema_version": 1, "targets": documents}))
    write_text(folder / "report.html", render_html(documents))


def _stop_on_failure(reports: Sequence[TargetReport], output: Path) -> None:
    failed = [report.verdict for report in reports if not report.verdict.passed]
    if not failed:
        return
    folder = failed_folder(output)
    with writing_folder(folder, force=True) as aside:
        write_report(aside, reports)
    raise GateError(
        "a gate failed, so no package was written:\n" + "\n".join(map(failures, failed)),
        f"See {folder / 'report.html'}. More calibration data, --exclude, or --gate NAME=VALUE may help.",
    )


def _pin(recipe: Recipe, model: TorchModel, data: UserData, profiles: Sequence[TargetProfile]) -> Recipe:
    """Return the recipe with its task and digests filled in, after holding them against a pinned recipe's."""
    found = Pinned(
        profile_sha256=_profile_sha256(profiles[0]) if len(profiles) == 1 else None,
        model_sha256=model.source_sha256,
        calibration_sha256=data.sha256("calibration"),
        validation_sha256=data.sha256("validation"),
    )
    for key, pinned in recipe.pinned.model_dump(exclude_none=True).items():
        if getattr(found, key) != pinned:
            what = key.removesuffix("_sha256")
            raise RecipeError(
                f"the {what} is not the one that the recipe was made with (its SHA-256 differs)",
                f"Restore the {what}, or remove pinned.{key} from the recipe to accept the new one.",
            )
    return recipe.model_copy(update={"task": model.task, "pinned": found})


def _ranges(history: Sequence[StepRecord]) -> dict[str, object]:
    """Return what the audit of the calibration found, for the part of the report that is about the data."""
    found = [dict(record.facts) for record in history if record.step == "audit"]
    return {"ranges": found[-1]} if found else {}


def _profile_sha256(profile: TargetProfile) -> str:
    return sha256_json(profile.model_dump(mode="json", exclude={"sources", "status", "title"}))


def _contents(model: TorchModel, recipe: Recipe, target: str, profile: TargetProfile) -> Contents:
    pinned = recipe.pinned.model_copy(update={"profile_sha256": _profile_sha256(profile)})
    return Contents(
        name=model.name,
        task=model.task,
        source_sha256=model.source_sha256,
        preprocessing=model.preprocessor.to_json(),
        files=model.files,
        config=model.config,
        recipe=recipe.model_copy(update={"targets": (target,), "pinned": pinned}),
        versions=versions(),
    )
