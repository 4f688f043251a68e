"""Which rewrites of the float graph pay on this machine: measured, so that a profile can say it for others.

Each rewrite is judged in the form that ships, quantized, in company of all the others of the plan: what the
plan takes with it against what it takes without it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.golden import Golden
from edgekit.model import OnnxModel
from edgekit.optimize import REWRITES, GraphRewrite, optimize
from edgekit.profile import TargetProfile
from edgekit.quantize import calibrate, quantize
from edgekit.quantize.observe import Batch
from edgekit.recipe import QuantizeOptions
from edgekit.record import Progress, silent
from edgekit.runtime import open_session
from edgekit.validate.latency import WARM_UP_RUNS, bootstrap_ratio, has_sequence, inputs_at_points

PAYS = 1.005
"""Least gain over all input shapes that a rewrite must surely have: half a percent is its code's price."""


@dataclass(frozen=True)
class Ratio:
    """Time without over time with, median of the paired ratios, and its 95 % bootstrap interval."""

    gain: float
    low: float
    high: float

    @classmethod
    def of(cls, without: np.ndarray, with_it: np.ndarray) -> Ratio:
        """Compare times of the same turns, [turns]."""
        return cls(*bootstrap_ratio(without, with_it))


@dataclass(frozen=True)
class RewriteGain:
    """What one rewrite does to one model's quantized form.

    Attributes:
        rewrite: Its name.
        sites: How often it applies; 0 is not timed.
        shapes: Input shape -> gain.
        overall: Gain over all shapes, each of the same weight (geometric mean); None where nothing applies.
        pays: Whether the gain is surely above `PAYS`; None where nothing applies.
    """

    rewrite: str
    sites: int
    shapes: Mapping[str, Ratio]
    overall: Ratio | None
    pays: bool | None

    def to_json(self) -> dict[str, Any]:
        """Return the gain as JSON values."""
        return asdict(self)


def measure_rewrites(
    exported: OnnxModel,
    batches: Sequence[Batch],
    golden: Golden,
    profile: TargetProfile,
    folder: Path,
    *,
    tried: Collection[str] | None = None,
    rewrites: Mapping[str, GraphRewrite] = REWRITES,
    runs: int = 60,
    max_length: int | None = None,
    progress: Progress = silent,
) -> tuple[RewriteGain, ...]:
    """Measure what each rewrite gains on this machine, with one thread.

    The CPU time of the thread is compared, all forms in turns in one process, so that neither a busy machine
    nor a moody one decides.

    Args:
        exported: The float graph as it was exported.
        batches: Calibration inputs; they do not change the speed, so a few do.
        golden: Real inputs, tiled to the profile's input shapes.
        profile: The target; `profile.optimize` is the plan that each rewrite is toggled in.
        folder: Where the forms are written.
        tried: Names of the rewrites to judge; all by default.
        rewrites: All that there are, in order.
        runs: Timed turns at each input shape.
        max_length: Longest sequence that the model takes.
        progress: Told of each form.
    """
    plan = [name for name in rewrites if name in profile.optimize.rewrites]
    chosen = {"": plan} | {
        name: [other for other in rewrites if (other in plan) != (other == name)]
        for name in rewrites
        if tried is None or name in tried
    }
    files: dict[str, Path] = {}
    sites: dict[str, int] = {}
    for name, names in chosen.items():
        doing = f"the plan {'without' if name in plan else 'with'} {name}" if name else "the plan"
        progress("optimize", doing, None)
        path = folder / f"{name or 'plan'}.onnx"
        floats = optimize(exported, path, names, rewrites=rewrites)
        done = floats.history[-1].facts["rewrites"]
        assert isinstance(done, dict)
        sites = sites | done if not name else sites | {name: done.get(name, sites.get(name, 0))}
        if name and not sites[name]:
            continue
        options = QuantizeOptions(rounding="nearest")  # as fast as any other, and made sooner
        made = path.with_suffix(".int8.onnx")
        quantize(floats, calibrate(floats, batches), profile, options, made)
        files[name] = made
    progress("measure", f"{len(files)} forms in turns", None)
    timing = profile.runtime
    times = thread_times(
        files, golden, timing.points, timing.session_options, runs=runs, max_length=max_length
    )
    return tuple(_gain(name, sites[name], name in plan, times) for name in chosen if name)


def _gain(name: str, sites: int, planned: bool, times: Mapping[str, Mapping[str, np.ndarray]]) -> RewriteGain:
    """Return one rewrite's gain.

    Args:
        name: Of the rewrite.
        sites: How often it applies.
        planned: Whether the plan has it, so that the toggled form is the one without.
        times: Input shape -> form -> milliseconds, turn by turn; the plan's name is empty.
    """
    if not sites:
        return RewriteGain(name, 0, {}, None, None)
    pairs = {
        shape: (forms[name], forms[""]) if planned else (forms[""], forms[name])
        for shape, forms in times.items()
    }
    shapes = {shape: Ratio.of(*pair) for shape, pair in pairs.items()}
    turns = min(len(without) for without, _ in pairs.values())
    logs = np.mean([np.log(without[:turns] / with_it[:turns]) for without, with_it in pairs.values()], axis=0)
    overall = Ratio.of(np.exp(logs), np.ones(turns))
    return RewriteGain(name, sites, shapes, overall, overall.low > PAYS)


def thread_times(
    files: Mapping[str, Path],
    golden: Golden,
    points: Sequence[tuple[int, int]],
    session_options: Mapping[str, str],
    *,
    runs: int,
    max_length: int | None,
) -> dict[str, dict[str, np.ndarray]]:
    """Run several graphs in turns with one thread, in a new order every turn.

    Args:
        files: Name -> graph.
        golden: Real inputs, tiled to each shape.
        points: (batch, length) pairs; the length is ignored where inputs have no sequence axis.
        session_options: Session configuration entries.
        runs: Turns at each shape.
        max_length: Longest sequence that the model takes.

    Returns:
        Input shape -> name -> CPU time of the thread in ms, [runs].
    """
    sessions = {name: open_session(path, session_options=session_options) for name, path in files.items()}
    sequence = any(has_sequence(session) for session in sessions.values())
    inputs = inputs_at_points(golden, points, sequence=sequence, max_length=max_length)
    order, names, out = np.random.default_rng(0), list(files), {}
    for shape, values in inputs.items():
        feeds = {n: {v.name: values[v.name] for v in sessions[n].get_inputs()} for n in names}
        times: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(WARM_UP_RUNS + runs):
            for index in order.permutation(len(names)):
                name = names[index]
                begin = time.thread_time()
                sessions[name].run(None, feeds[name])
                if turn >= WARM_UP_RUNS:
                    times[name].append((time.thread_time() - begin) * 1e3)
        out[shape] = {name: np.array(found) for name, found in times.items()}
    return out
