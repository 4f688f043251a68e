"""What happens per target: forms are made of the float graph, one is chosen, measured and explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgekit.explaining import explain_timed
from edgekit.float_graph import FloatGraph, Job
from edgekit.forms import Forms, audit_ranges, compare_forms, compares, make_forms, why_untimed
from edgekit.model import OnnxModel
from edgekit.preflight import ship_of
from edgekit.profile import TargetProfile
from edgekit.record import Clock, Verdict
from edgekit.runtime import let_go
from edgekit.validate import validate
from edgekit.validate.candidates import FORMS, Candidate, Timings
from edgekit.validate.explanation import Explanation
from edgekit.validate.matrix import MatrixOptions
from edgekit.validate.shipping import choose_form, named_form
from edgekit.verification import verified


@dataclass(frozen=True)
class TargetRun:
    """What came out for one target.

    Attributes:
        target: The target as the recipe names it.
        profile: Its rules.
        start: The float graph that it was made from.
        forms: The forms that were made, without the records of how one was chosen.
        shipped: The form in the package.
        model: Its graph, with its history.
        verdict: Every measured value.
        explanation: Where the time of the shipped graph goes; None where nothing was timed.
        candidates: The forms that it could ship in, side by side; empty where they were not asked for.
    """

    target: str
    profile: TargetProfile
    start: FloatGraph
    forms: Forms
    shipped: str
    model: OnnxModel
    verdict: Verdict
    explanation: Explanation | None = None
    candidates: tuple[Candidate, ...] = ()


def run_target(
    job: Job, target: str, profile: TargetProfile, start: FloatGraph, earlier: Sequence[TargetRun] = ()
) -> TargetRun:
    """Make a target's forms, choose the one to ship, and measure it.

    Args:
        job: The export under way.
        target: The target as the recipe names it.
        profile: Its rules.
        start: The float graph of its opset and IR version.
        earlier: Runs of this job; forms made under the same rules are taken from there.
    """
    done = len(earlier) / len(job.recipe.targets)
    job.progress("quantize", profile.name, done)
    forms = _twin(job, profile, earlier) or make_forms(job, start, profile)
    let_go()
    job.progress("validate", profile.name, done)
    shipped, model, candidates, notes = choose(job, start, profile, forms)
    verdict = validate(
        model.only.path,
        start.golden,
        profile,
        float_path=start.baseline.only.path,
        gates=start.gates,
        latency=job.recipe.latency,
        max_length=job.max_length,
    )
    verdict = verified(
        replace(verdict, notes=(*notes, *verdict.notes)),
        model.only.path,
        start.golden,
        profile,
        MatrixOptions(
            runs=min(job.recipe.latency.runs, MatrixOptions.runs),
            timeout_s=job.recipe.verify.timeout_s,
            gates=start.gates,
            max_length=job.max_length,
        ),
        asked=job.recipe.verify.on,
        float_path=start.baseline.only.path,
        progress=job.progress,
    )
    audit = audit_ranges(job, start, profile, forms, shipped)
    if audit is not None:
        model = model.with_step(audit.record)
        verdict = replace(
            verdict, checks=(*verdict.checks, *audit.checks), notes=(*verdict.notes, *audit.notes)
        )
    explanation = explain_timed(model, start.golden, profile, verdict, job.max_length)
    return TargetRun(target, profile, start, forms, shipped, model, verdict, explanation, candidates)


def choose(
    job: Job, start: FloatGraph, profile: TargetProfile, forms: Forms
) -> tuple[str, OnnxModel, tuple[Candidate, ...], tuple[str, ...]]:
    """Return the form to ship, its graph, all forms measured where that was asked for, and what to say."""
    ship, clock = ship_of(job.recipe, profile), Clock()
    shipped = named_form("static" if ship == "best" else ship, tuple(forms))
    candidates: tuple[Candidate, ...] = ()
    timings = Timings()
    if compares(job, start, profile):
        job.progress("validate", f"{profile.name}: comparing {len(forms)} forms", None)
        candidates, timings = compare_forms(job, start, profile, forms)
    model, said = forms[shipped], ""
    if ship == "best":
        wants = profile.policy.wants
        decision = choose_form(candidates, timings, wants, untimed=why_untimed(job, profile))
        figures = [dict(form) for form in decision.forms]
        shipped, said = decision.shipped, f"{decision.why[0].upper()}{decision.why[1:]}."
        record = clock.record("validate", "ship", decision.why, shipped=shipped, wants=wants, forms=figures)
        model = forms[shipped].with_step(record)
    elif ship != "static" and job.recipe.quantize.method != "none":
        model = model.with_step(
            clock.record("validate", "ship", f"{FORMS[shipped]} ships, as asked", shipped=shipped)
        )
    marked = tuple(replace(candidate, shipped=candidate.name == shipped) for candidate in candidates)
    return shipped, model, marked, (said,) if said else ()


def _twin(job: Job, profile: TargetProfile, earlier: Sequence[TargetRun]) -> Forms | None:
    """Return the forms of an earlier target that has the same rules."""

    def rules(of: TargetProfile) -> tuple[object, ...]:
        return (of.onnx, of.quantization, of.optimize, of.policy.gates, ship_of(job.recipe, of))

    return next((run.forms for run in earlier if rules(run.profile) == rules(profile)), None)
