"""Named arrays → the inputs of a plain module, checked against its signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.data import Sample
from edgekit.errors import DataError, nearest
from edgekit.model import TensorSpec
from edgekit.record import Skip
from edgekit.tasks.base import Inputs, Modality
from edgekit.tasks.samples import class_indices, require_kind


@dataclass(frozen=True)
class ArrayPreprocessor:
    """Stacks array samples; nothing is converted but to a wider type, or float64 to float32.

    Attributes:
        inputs: The model's inputs in graph order; axis 0 of each shape is the batch.
        label2id: Class name -> index; empty takes any index.
    """

    inputs: tuple[TensorSpec, ...]
    label2id: Mapping[str, int] = field(default_factory=dict)
    modality: Modality = "arrays"

    def sift(self, samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], tuple[Skip, ...]]:
        """Return all samples, each checked against the signature.

        Raises:
            DataError: As `batch` and `labels`.
        """
        for sample in samples:
            self.labels([sample], self.batch([sample]))
        return tuple(samples), ()

    def batch(self, samples: Sequence[Sample], *, length: int | None = None) -> Inputs:
        """Samples → one array [batch, ...] per input; `length` has no meaning here.

        Raises:
            DataError: A sample is no arrays; a name, type or fixed axis is not the model's; or sizes differ
                within the batch.
        """
        require_kind(samples, "arrays")
        rows = [self._named(sample.value) for sample in samples]
        out: Inputs = {}
        sizes: dict[str, tuple[int, str]] = {}  # dynamic axis -> its size, and the input that set it
        for spec in self.inputs:
            arrays = [row[spec.name] for row in rows]
            for array in arrays:
                _require_shape(spec, array, sizes)
            out[spec.name] = np.stack([_converted(spec, array) for array in arrays])
        return out

    def labels(self, samples: Sequence[Sample], inputs: Inputs) -> np.ndarray | None:
        """Return class indices [batch], or None where a sample has none.

        Raises:
            DataError: A label is no class index.
        """
        if any(sample.label is None for sample in samples):
            return None
        return class_indices([sample.label for sample in samples], self.label2id)

    def to_json(self) -> dict[str, Any]:
        """Return what an app has to give."""
        return {
            "kind": "arrays",
            "inputs": {spec.name: {"dtype": spec.dtype, "shape": list(spec.shape)} for spec in self.inputs},
        }

    def _named(self, value: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [spec.name for spec in self.inputs]
        if len(names) == len(value) == 1:
            return {names[0]: next(iter(value.values()))}
        for name in names:
            if name not in value:
                raise DataError(f"the data has no array for the model's input '{name}'", nearest(name, value))
        for name in value:
            if name not in names:
                raise DataError(f"the model has no input for the array '{name}'", nearest(name, names))
        return dict(value)


def _require_shape(spec: TensorSpec, array: np.ndarray, sizes: dict[str, tuple[int, str]]) -> None:
    wanted = spec.shape[1:]
    where = f"input '{spec.name}'"
    if array.ndim != len(wanted) or any(
        isinstance(want, int) and have != want for have, want in zip(array.shape, wanted, strict=True)
    ):
        raise DataError(f"{where}: a sample has shape {array.shape}, the model takes {_said(wanted)}")
    for have, want in zip(array.shape, wanted, strict=True):
        if isinstance(want, str):
            first, origin = sizes.setdefault(want, (have, spec.name))
            if first != have:
                raise DataError(
                    f"{where}: axis '{want}' is {have}, but {first} elsewhere in the batch ('{origin}')",
                    "Give samples of one size.",
                )


def _said(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _converted(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    wanted = np.dtype(spec.dtype)
    widens = array.dtype.kind == wanted.kind and np.can_cast(array.dtype, wanted, "safe")
    if not widens and (array.dtype.name, wanted.name) != ("float64", "float32"):
        raise DataError(
            f"input '{spec.name}': the data is {array.dtype.name}, the model takes {wanted.name}",
            f"Save it as {wanted.name}.",
        )
    with np.errstate(over="ignore"):
        out = array.astype(wanted)
    if wanted.kind == "f" and not np.isfinite(out).all():
        raise DataError(f"input '{spec.name}': a value is NaN, infinite, or too large for {wanted.name}")
    return out
