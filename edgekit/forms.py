"""The forms of a model for one target: made, audited where they have ranges, and measured side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.float_graph import FloatGraph, Job
from edgekit.golden import Golden
from edgekit.machine import read_machine, why_not_measured
from edgekit.mixed import quantize_within
from edgekit.model import OnnxModel
from edgekit.preflight import ship_of
from edgekit.profile import TargetProfile
from edgekit.quantize import quantize
from edgekit.quantize.audit import HELD_OUT_SAMPLES, audit_checks, audit_notes, audit_record, count_clipping
from edgekit.quantize.dynamic import quantize_dynamic
from edgekit.record import Check, Clock, StepRecord
from edgekit.tasks import request_gates
from edgekit.tasks.batches import SingleBatches
from edgekit.validate.candidates import Candidate, Timings, measure_candidates
from edgekit.validate.verdict import size_check

Forms = Mapping[str, OnnxModel]
"""Key of `edgekit.validate.candidates.FORMS` -> graph; the first is the float graph as exported."""


@dataclass(frozen=True)
class RangeAudit:
    """What the audit of the calibration found for one static form on held-out samples."""

    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    record: StepRecord


def make_forms(job: Job, start: FloatGraph, profile: TargetProfile) -> dict[str, OnnxModel]:
    """Return the forms that a target may ship or wants to see.

    Float is always there; dynamic and static int8 where one of them ships or all are compared; `mixed`
    where the gates need layers of the static form in float.
    """
    ship, every = ship_of(job.recipe, profile), compares(job, start, profile)
    forms = {"float": start.exported, "float-rewritten": start.model}
    if ship == "dynamic" or every:
        forms["dynamic"] = quantize_dynamic(start.model, profile, _scratch_file(job, profile, ".dynamic"))
    if ship == "static" or every:
        static, mixed = make_static(job, start, profile)
        forms["static"] = static
        if mixed is not None:
            forms["mixed"] = mixed
    return forms


def compares(job: Job, start: FloatGraph, profile: TargetProfile) -> bool:
    """Return whether all forms are to be made and measured."""
    asked = job.recipe.latency.candidates or ship_of(job.recipe, profile) == "best"
    return asked and start.calibration is not None


def make_static(job: Job, start: FloatGraph, profile: TargetProfile) -> tuple[OnnxModel, OnnxModel | None]:
    """Return the static int8 form, and the one with layers in float where the gates need it."""
    options, path = job.recipe.quantize, _scratch_file(job, profile)
    assert start.calibration is not None
    assert start.tuning is not None
    if not options.mixed or profile.quantization.scope == "whole-graph":
        return quantize(start.model, start.calibration, profile, options, path), None
    return quantize_within(
        start.model,
        start.calibration,
        profile,
        options,
        path,
        tuning=start.tuning,
        gates=request_gates(job.recipe, start.tuning),
        progress=job.progress,
    )


def audit_ranges(
    job: Job, start: FloatGraph, profile: TargetProfile, forms: Forms, name: str
) -> RangeAudit | None:
    """Return what the ranges of a form cut off on held-out samples; None for a form without ranges."""
    if start.audit is None or name not in ("static", "mixed"):
        return None
    clock = Clock()
    samples = job.data.held_out[:HELD_OUT_SAMPLES]
    clipping = count_clipping(forms[name].only.path, SingleBatches(start.preprocessor, samples))
    gates = {**profile.policy.gates, **start.gates}
    return RangeAudit(
        audit_checks(start.audit, clipping, job.recipe.quantize, gates),
        audit_notes(start.audit, clipping),
        audit_record(start.audit, clipping, len(samples), clock),
    )


def compare_forms(
    job: Job, start: FloatGraph, profile: TargetProfile, forms: Forms
) -> tuple[tuple[Candidate, ...], Timings]:
    """Return all forms, measured side by side, with their times; a form without times has none here."""
    latency = job.recipe.latency
    gates = {**profile.policy.gates, **start.gates}
    before = start.exported.only.path.stat().st_size
    further: dict[str, tuple[Check, ...]] = {}
    for name, model in forms.items():
        audit = audit_ranges(job, start, profile, forms, name)
        size = size_check(before / model.only.path.stat().st_size, profile, gates)
        further[name] = (size, *(audit.checks if audit else ()))
    return measure_candidates(
        {name: model.only.path for name, model in forms.items()},
        Golden.load(start.golden),
        profile.runtime.points,
        timed=why_untimed(job, profile) is None,
        runs=latency.runs,
        threads=latency.threads or profile.runtime.threads,
        session_options=profile.runtime.session_options,
        gates=gates,
        max_length=job.max_length,
        further=further,
    )


def why_untimed(job: Job, profile: TargetProfile) -> str | None:
    """Return why no times are taken here for a target, or None if they are."""
    if job.recipe.latency.runs == 0:
        return "the request asked for no timed runs"
    return why_not_measured(read_machine(), profile.hardware)


def _scratch_file(job: Job, profile: TargetProfile, form: str = "") -> Path:
    return job.scratch / f"{profile.name}{form}.onnx"
