"""Which form of int8 convolutions loses least in the model's outputs: equalized or not, corrected or not.

Each layer's own error falls under both, for only then they are done there. The outputs still may lose:
where most of an image is one colour, the mean error is the background's, and taking it away spoils the
rest. So each is also tried on the whole model, with inputs that nothing was fitted to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.profile import Quantization
from edgekit.quantize.calibrate import Calibration
from edgekit.quantize.convs import quantize_convs
from edgekit.quantize.equalize import Equalized, EqualizeRules, equalize
from edgekit.quantize.observe import Batch, observe
from edgekit.quantize.plan import Plan
from edgekit.quantize.schemes import ActivationScheme
from edgekit.quantize.windows import Samples, take_samples
from edgekit.recipe import QuantizeOptions
from edgekit.record import Clock, Fact, Skip, StepRecord
from edgekit.store import workspace

_NAMES = {
    "equalized": "cross-layer equalization of convolutions",
    "corrected": "bias correction of convolutions",
}
_NO_GAIN = "the model's outputs do not surely lose less with it, on inputs that nothing was fitted to"


@dataclass(frozen=True)
class ConvForm:
    """What is done beside rounding.

    Attributes:
        equalized: Channels between convolutions brought to like sizes.
        corrected: Mean errors taken into the biases.
    """

    equalized: bool = False
    corrected: bool = False


def quantize_convolutions(
    path: Path,
    graph: ir.Graph,
    plan: Plan,
    planned: Callable[[ir.Model], Plan],
    calibration: Calibration,
    scheme: ActivationScheme,
    rules: Quantization,
    options: QuantizeOptions,
) -> StepRecord:
    """Quantize the convolutional regions of a model in place, in the form that loses least.

    Args:
        path: The float graph.
        graph: The same, to be edited.
        plan: What is quantized of it.
        planned: Makes the plan of a copy, for a trial.
        calibration: Statistics of its tensors, and inputs to try forms on.
        scheme: Codes of activations.
        rules: What the profile allows.
        options: What the request allows.
    """
    clock = Clock()
    fitted, held_out = calibration.inputs[::2], calibration.inputs[1::2]
    samples, form = Samples({}, {}), ConvForm()
    trials: list[dict[str, Fact]] = []
    skipped = list(plan.conv_skipped)
    if plan.convs and held_out and (options.smoothing or options.bias_correction):
        samples = take_samples(path, plan, fitted)
        names = [value.name or "" for value in graph.outputs]
        expected = [values for _, values in observe(path, names, held_out)]

        def tried(form: ConvForm) -> np.ndarray:
            trial = g.load(path)
            _, now, _ = _quantize(
                trial.graph, planned(trial), calibration, samples, scheme, rules, options, form
            )
            errors = _output_errors(trial, names, held_out, expected)
            skipped.extend(skip for skip in now.skipped if skip not in skipped)
            trials.append({**vars(form), "output_error": float(f"{errors.mean():.3e}")})
            return errors

        least = tried(form)
        for wanted, change in ((options.smoothing, "equalized"), (options.bias_correction, "corrected")):
            changed = replace(form, **{change: True})
            if wanted and _surely_less(errors := tried(changed), least):
                form, least = changed, errors
            elif wanted:
                skipped.append(Skip(_NAMES[change], _NO_GAIN))
    tensors, now, layers = _quantize(graph, plan, calibration, samples, scheme, rules, options, form)
    return clock.record(
        "quantize",
        "conv",
        f"quantized {len(plan.convs)} convolutions with {tensors} tensors held in 8 bits",
        skipped=tuple(skipped),
        convolutions=len(plan.convs),
        matrix_products=len(plan.on_codes),
        range_method=options.range_method,
        forms_tried=trials,
        equalized=list(now.done),
        biases_corrected=sum(bool(layer["bias_corrected"]) for layer in layers),
        layers=layers,
    )


def _quantize(
    graph: ir.Graph,
    plan: Plan,
    calibration: Calibration,
    samples: Samples,
    scheme: ActivationScheme,
    rules: Quantization,
    options: QuantizeOptions,
    form: ConvForm,
) -> tuple[int, Equalized, list[dict[str, Fact]]]:
    now = Equalized(calibration.tensors, samples)
    if form.equalized:
        allowed = EqualizeRules(
            scheme, rules.per_channel, rules.reduce_range, options.range_method, options.percentile
        )
        now = equalize(graph, plan, calibration.tensors, samples, allowed)
    narrowed = options.model_copy(update={"bias_correction": form.corrected})
    affines, layers = quantize_convs(graph, plan, now.tensors, now.samples, scheme, rules, narrowed)
    return len(affines), now, layers


def _output_errors(
    trial: ir.Model, names: Sequence[str], inputs: Sequence[Batch], expected: Sequence[dict[str, np.ndarray]]
) -> np.ndarray:
    """Return the energy of the outputs' errors for each input, over the outputs' mean energy, [inputs]."""
    errors, energies = [], []
    with workspace() as scratch:
        g.remove_unused(trial)
        g.forget_inner_shapes(trial)
        g.save(trial, scratch / "trial.onnx")
        for (_, found), real in zip(observe(scratch / "trial.onnx", names, inputs), expected, strict=True):
            pairs = [(found[name].astype(np.float64), real[name]) for name in names]
            errors.append(sum(float(np.sum((a - b) ** 2)) for a, b in pairs))
            energies.append(sum(float(np.sum(b.astype(np.float64) ** 2)) for _, b in pairs))
    return np.array(errors) / (np.mean(energies) or 1.0)


def _surely_less(errors: np.ndarray, others: np.ndarray) -> bool:
    """Return whether errors on the same inputs are less by more than twice their difference's spread."""
    gain = others - errors
    return bool(gain.mean() > 2 * gain.std() / np.sqrt(len(gain)))
