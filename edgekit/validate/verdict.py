"""OnnxModel × golden × profile -> Verdict: everything that is measured on one artifact for one target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgekit.golden import Golden
from edgekit.machine import read_machine, why_not_measured
from edgekit.profile import TargetProfile
from edgekit.recipe import LatencyOptions
from edgekit.record import Check, Footprint, LatencyPoint, Verdict
from edgekit.runtime import open_session
from edgekit.validate.footprint import measure_footprint
from edgekit.validate.latency import measure_latency
from edgekit.validate.parity import compare_quantized


def validate(
    shipped_path: Path,
    golden_path: Path,
    profile: TargetProfile,
    *,
    float_path: Path | None,
    float_size: Footprint | None = None,
    gates: Mapping[str, float],
    latency: LatencyOptions,
    max_length: int | None = None,
) -> Verdict:
    """Measure a shipped graph and hold it against its budgets.

    Args:
        shipped_path: The graph to ship.
        golden_path: Recorded inputs with the PyTorch outputs.
        profile: The target.
        float_path: The float graph it was made from; None where only the package is at hand, and then
            nothing is timed against it.
        float_size: What was recorded of the float graph; needed where `float_path` is None.
        gates: Thresholds of the request, by check name; they come before the profile's and the task's.
        latency: How to time.
        max_length: Longest token sequence that the model takes; None where it is not known.
    """
    golden = Golden.load(golden_path)
    threads = latency.threads or profile.runtime.threads
    options = profile.runtime.session_options
    missing = why_not_measured(read_machine(), profile.hardware)
    comparison = compare_quantized(shipped_path, golden, threads=threads, session_options=options)

    def footprint(path: Path) -> Footprint:
        return measure_footprint(
            path, golden_path, threads=threads, session_options=options, measured=missing is None
        )

    shipped_size = footprint(shipped_path)
    if float_size is None:
        assert float_path is not None
        float_size = footprint(float_path)
    points: tuple[LatencyPoint, ...] = ()
    if missing is not None:
        note = f"not measured here: {missing}"
    elif latency.runs == 0:
        note = "not measured: the request asked for no timed runs"
    elif float_path is None:
        note = "not measured: the package does not hold the float graph to time against"
    else:
        note = f"float and quantized in turns in one process, {threads} thread{'s' if threads > 1 else ''}"
        float_session, session = (
            open_session(path, threads=threads, session_options=options)
            for path in (float_path, shipped_path)
        )
        points = measure_latency(
            float_session,
            session,
            golden,
            profile.runtime.points,
            runs=latency.runs,
            threads=threads,
            max_length=max_length,
        )
    overrides = {**profile.policy.gates, **gates}
    checks = [check.with_budget(overrides) for check in comparison.checks]
    checks.append(size_check(float_size.file_bytes / shipped_size.file_bytes, profile, overrides))
    if points or "speedup" in overrides:
        checks.append(_speed_check(points, note, overrides))
    return Verdict(
        profile.name,
        tuple(checks),
        points,
        note,
        float_size,
        shipped_size,
        comparison.errors,
        tuple(_notes(points, missing, profile, shipped_path)),
    )


def size_check(ratio: float, profile: TargetProfile, overrides: Mapping[str, float]) -> Check:
    """Return the check of float bytes over shipped bytes."""
    budget = overrides.get("size_ratio", profile.policy.min_size_ratio)
    why = (
        "set by the request or the target"
        if budget is not None
        else "shown, not gated: small graphs shrink less"
    )
    return Check("size_ratio", "Float file over shipped file", ratio, "x", ">=", budget, why)


def _speed_check(points: tuple[LatencyPoint, ...], note: str, overrides: Mapping[str, float]) -> Check:
    budget = overrides.get("speedup")
    slowest = min((point.speedup_low for point in points), default=None)
    why = note if slowest is None else "lower end of the interval at the slowest point"
    return Check("speedup", "Speed-up over float, at least", slowest, "x", ">=", budget, why)


def _notes(
    points: tuple[LatencyPoint, ...], missing: str | None, profile: TargetProfile, shipped: Path
) -> list[str]:
    notes = []
    if missing:
        notes.append(
            "Parity was measured with ONNX Runtime on this machine, not on a device of the target"
            f" ({profile.hardware.isa}). Latency, load time and memory are left out: {missing}."
        )
    not_faster = [point for point in points if point.verdict != "faster"]
    if not_faster and profile.policy.wants == "speed" and _quantizes(shipped):
        told = ", ".join(f"{point.verdict} at {point.shape}" for point in not_faster)
        notes.append(
            f"int8 does not pay in speed here: {told}. It still saves size; if speed is all"
            " that counts, ship the float form (--ship float), or the one that measures best (--ship best)."
        )
    return notes


def _quantizes(path: Path) -> bool:
    """Return whether a graph quantizes activations."""
    from edgekit import graph as g  # not at the top: the memory probe must not hold what it loads

    return any(g.nodes(g.load(path).graph, "QuantizeLinear", "DynamicQuantizeLinear"))
