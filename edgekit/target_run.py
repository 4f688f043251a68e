"""What happens per target: the float graph is quantized, measured, audited and explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.explaining import explain_timed
from edgekit.float_graph import FloatGraph, Job
from edgekit.golden import Golden
from edgekit.mixed import quantize_within
from edgekit.model import OnnxModel
from edgekit.profile import TargetProfile
from edgekit.quantize import quantize
from edgekit.quantize.audit import HELD_OUT_SAMPLES, audit_checks, audit_notes, audit_record, count_clipping
from edgekit.quantize.dynamic import quantize_dynamic
from edgekit.record import Clock, Verdict
from edgekit.tasks.batches import SingleBatches
from edgekit.validate import validate
from edgekit.validate.candidates import Candidate, measure_candidates
from edgekit.validate.explanation import Explanation


@dataclass(frozen=True)
class TargetRun:
    """What came out for one target.

    Attributes:
        target: The target as the recipe names it.
        profile: Its rules.
        start: The float graph that it was made from.
        model: The graph to ship.
        verdict: Every measured value.
        explanation: Where the time of the shipped graph goes; None where nothing was timed.
        candidates: The forms that it could ship in, side by side; empty where they were not asked for.
    """

    target: str
    profile: TargetProfile
    start: FloatGraph
    model: OnnxModel
    verdict: Verdict
    explanation: Explanation | None = None
    candidates: tuple[Candidate, ...] = ()


def run_target(
    job: Job, target: str, profile: TargetProfile, start: FloatGraph, earlier: Sequence[TargetRun] = ()
) -> TargetRun:
    """Quantize for one target and measure what came out.

    Args:
        job: The export under way.
        target: The target as the recipe names it.
        profile: Its rules.
        start: The float graph of its opset and IR version.
        earlier: Runs of this job; a graph made under the same rules is taken from there.
    """
    done = len(earlier) / len(job.recipe.targets)
    job.progress("quantize", profile.name, done)
    model = _twin(profile, earlier) or quantize_for(job, start, profile)
    job.progress("validate", profile.name, done)
    verdict = validate(
        model.only.path,
        start.golden,
        profile,
        float_path=start.exported.only.path,
        gates=job.recipe.gates,
        latency=job.recipe.latency,
        max_length=job.max_length,
    )
    run = audited(job, TargetRun(target, profile, start, model, verdict))
    return replace(
        run,
        explanation=explain_timed(run.model, start.golden, profile, run.verdict, job.max_length),
        candidates=compare_forms(job, run),
    )


def quantize_for(job: Job, start: FloatGraph, profile: TargetProfile) -> OnnxModel:
    """Return the graph to ship on a target: quantized, or the float one where the recipe says so."""
    options, path = job.recipe.quantize, _scratch_file(job, profile)
    if start.calibration is None or start.tuning is None:
        return start.model
    if not options.mixed:
        return quantize(start.model, start.calibration, profile, options, path)
    return quantize_within(
        start.model,
        start.calibration,
        profile,
        options,
        path,
        tuning=start.tuning,
        gates=job.recipe.gates,
        progress=job.progress,
    )


def audited(job: Job, run: TargetRun) -> TargetRun:
    """Return the run with what the audit of the calibration found on held-out samples."""
    if run.start.audit is None:
        return run
    clock = Clock()
    samples = job.data.held_out[:HELD_OUT_SAMPLES]
    clipping = count_clipping(run.model.only.path, SingleBatches(job.model.preprocessor, samples))
    gates = {**run.profile.policy.gates, **job.recipe.gates}
    verdict = replace(
        run.verdict,
        checks=(*run.verdict.checks, *audit_checks(run.start.audit, clipping, job.recipe.quantize, gates)),
        notes=(*run.verdict.notes, *audit_notes(run.start.audit, clipping)),
    )
    record = audit_record(run.start.audit, clipping, len(samples), clock)
    return replace(run, model=run.model.with_step(record), verdict=verdict)


def compare_forms(job: Job, run: TargetRun) -> tuple[Candidate, ...]:
    """Return the forms that a model could ship in, measured side by side; none unless the recipe asks."""
    latency, start, profile = job.recipe.latency, run.start, run.profile
    if not latency.candidates or start.calibration is None:
        return ()
    dynamic = quantize_dynamic(start.model, profile, _scratch_file(job, profile, ".dynamic"))
    files = {
        "float": start.exported.only.path,
        "float-rewritten": start.model.only.path,
        "dynamic": dynamic.only.path,
        "static": run.model.only.path,
    }
    return measure_candidates(
        files,
        Golden.load(start.golden),
        profile.runtime.points,
        shipped="static",
        timed=bool(run.verdict.latency),
        runs=latency.runs,
        threads=latency.threads or profile.runtime.threads,
        session_options=profile.runtime.session_options,
        gates={**profile.policy.gates, **job.recipe.gates},
        max_length=job.max_length,
    )


def _twin(profile: TargetProfile, earlier: Sequence[TargetRun]) -> OnnxModel | None:
    """Return the graph of an earlier target that has the same rules, without that target's audit."""
    rules = (profile.onnx, profile.quantization, profile.policy.gates)
    for run in earlier:
        if rules == (run.profile.onnx, run.profile.quantization, run.profile.policy.gates):
            return replace(run.model, history=tuple(r for r in run.model.history if r.step != "audit"))
    return None


def _scratch_file(job: Job, profile: TargetProfile, form: str = "") -> Path:
    return job.scratch / f"{profile.name}{form}.onnx"
