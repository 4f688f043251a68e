"""A model with one shape of inputs, for processors whose graphs are compiled ahead of time."""

from __future__ import annotations

from dataclasses import replace

from edgekit.data import Sample
from edgekit.errors import ExportError
from edgekit.model import TorchModel
from edgekit.profile import StaticShape
from edgekit.record import Clock
from edgekit.tasks.text import TextPreprocessor


def with_static_shape(model: TorchModel, shape: StaticShape, sample: Sample) -> TorchModel:
    """Return the model as it is exported for one shape only: texts are padded, other axes have to be fixed.

    Args:
        model: The model, with its dynamic axes.
        shape: What the target asks for; a model that takes fewer tokens gets as many as it takes.
        sample: Any sample; the exporter traces with it.

    Raises:
        ExportError: An axis of an input other than batch and sequence varies.
    """
    clock = Clock()
    preprocessor = model.preprocessor
    fixed: dict[str, int] = {"batch": shape.batch}
    if isinstance(preprocessor, TextPreprocessor):
        length = min(shape.sequence, preprocessor.max_length)
        preprocessor = replace(preprocessor, static_length=length, max_length=length)
        fixed["sequence"] = length
    for name, axes in model.dynamic_axes.items():
        for axis, called in axes.items():
            if called not in fixed:
                raise ExportError(
                    f"axis {axis} ('{called}') of input '{name}' varies, and the target takes one shape only",
                    f"Fix it in the model: leave '{called}' out of its dynamic axes.",
                )
    record = clock.record(
        "export",
        "static-shape",
        "fixed " + ", ".join(f"{axis} to {size}" for axis, size in fixed.items()),
        axes=fixed,
    )
    return replace(
        model,
        preprocessor=preprocessor,
        dynamic_axes={name: {} for name in model.dynamic_axes},
        example_inputs=dict(preprocessor.batch([sample])),
        history=(*model.history, record),
    )
