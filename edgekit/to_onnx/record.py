"""Records the golden: the user's inputs with the fp32 PyTorch model's outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.errors import ModelError
from edgekit.golden import Golden, GoldenBatch
from edgekit.model import TorchModel
from edgekit.tasks.base import Inputs

# Threads may add in another order from run to run: some float32 roundings, relative to the largest value.
_NOISE = 1e-5


def record_golden(model: TorchModel, batches: Sequence[tuple[Inputs, np.ndarray | None]]) -> Golden:
    """Run the PyTorch model on batches and record what it gives.

    The first batch runs twice: what is not repeatable cannot be compared with.

    Args:
        model: The float model.
        batches: Inputs by name, the batch in axis 0, with labels [batch, ...] or None.

    Returns:
        One golden batch per batch, in order; outputs are float32.

    Raises:
        ModelError: The model fails, an output is NaN or infinite or has no batch axis, or two runs on the
            same inputs differ.
    """
    if not batches:
        raise ValueError("a golden needs at least one batch")
    first = _run(model, batches[0][0])
    again = _run(model, batches[0][0])
    for name, value in first.items():
        if np.abs(value - again[name]).max(initial=0) > _NOISE * np.abs(value).max(initial=0):
            raise ModelError(
                f"two runs of the model on the same inputs differ in output '{name}'",
                "Something in it is random or keeps state: dropout outside training, noise, a counter.",
            )
    outputs = [first, *(_run(model, inputs) for inputs, _ in batches[1:])]
    return Golden(
        model.task,
        tuple(
            GoldenBatch(inputs, out, labels) for (inputs, labels), out in zip(batches, outputs, strict=True)
        ),
    )


def _run(model: TorchModel, inputs: Inputs) -> dict[str, np.ndarray]:
    import torch

    from edgekit.source.quiet import quiet
    from edgekit.source.wrap import named, run

    tensors = {name: torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in model.input_names}
    with quiet():
        returned = named(run(model.module, tensors))
    size = len(next(iter(tensors.values())))
    outputs = {}
    for name, value in zip(model.output_names, returned.values(), strict=True):
        array = value.detach().to(torch.float32).numpy()
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise ModelError(
                f"the float model's output '{name}' holds NaN or infinity ({bad} of {array.size} values)",
                "Check the checkpoint and the inputs; there is nothing to compare a quantized model with.",
            )
        if array.ndim == 0 or len(array) != size:
            raise ModelError(
                f"the model's output '{name}' has shape {list(array.shape)} for a batch of {size}",
                "Every output needs the batch as its first axis.",
            )
        outputs[name] = array
    return outputs
