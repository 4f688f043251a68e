"""What every technique is given, and how it looks at a model.

A technique is a function `(TorchModel, its options, Data) -> TorchModel`. It never changes the model that it
was given: it works on `branch(model)`, which shares every weight that is not replaced.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.compress.feeding import BATCH, fed, groups
from edgekit.compress.judge import Judge
from edgekit.data import Sample
from edgekit.latency_table import LatencyTable
from edgekit.model import TorchModel
from edgekit.record import Progress, StepRecord, silent


@dataclass(frozen=True)
class Data:
    """What techniques look at.

    Attributes:
        fit: Samples that statistics and least squares are taken from.
        judge: Tells how far a model's outputs are from the original's, on samples that `fit` does not hold.
        scratch: Folder for files that outlive the technique, such as a new tokenizer.
        latency: Measured times of layers by width, in ONNX Runtime; None where nobody asked for them.
        seed: Of every choice that is random.
        progress: Told of long work.
    """

    fit: tuple[Sample, ...]
    judge: Judge
    scratch: Path
    latency: LatencyTable | None = None
    seed: int = 0
    progress: Progress = field(default=silent, compare=False)


def branch(model: TorchModel) -> TorchModel:
    """Return a model whose module can be changed: parts are copied, weights are shared until replaced.

    Replace a parameter, never write into it: the model that this one came from holds it too.
    """
    memo = {id(tensor): tensor for tensor in (*model.module.parameters(), *model.module.buffers())}
    return replace(model, module=copy.deepcopy(model.module, memo), trained=None)


def finished(model: TorchModel, record: StepRecord) -> TorchModel:
    """Return a changed model in eval mode with the record of what was done."""
    return replace(model, module=model.module.eval(), history=(*model.history, record))


def parameters_of(module: nn.Module) -> int:
    """Return how many parameters a module has; shared ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def sizes(before: TorchModel, after: TorchModel) -> dict[str, Any]:
    """Return what the record of a technique says about sizes, as arguments of `Clock.record`."""
    out: dict[str, Any] = {}
    for when, model in (("before", before), ("after", after)):
        parameters = list(model.module.parameters())
        out[f"bytes_{when}"] = sum(p.numel() * p.element_size() for p in parameters)
        out[f"parameters_{when}"] = parameters_of(model.module)
    return out


def batches(
    model: TorchModel, samples: Sequence[Sample], size: int = BATCH
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the samples as inputs of the model, samples of like length together so that little is padded."""
    for chosen in groups(samples, size):
        yield fed(model, [samples[index] for index in chosen])


@contextmanager
def watching(
    module: nn.Module, names: Sequence[str], see: Callable[[str, torch.Tensor, torch.Tensor], None]
) -> Iterator[None]:
    """Call `see(name, input, output)` whenever one of the named parts has run, while the block lasts.

    Args:
        module: The root.
        names: Parts below it that take one tensor first and return one tensor.
        see: Told of each run; both tensors are detached.
    """

    def hook(name: str) -> Callable[..., None]:
        def after(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            see(name, inputs[0].detach(), first.detach())

        return after

    handles = [module.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run_all(model: TorchModel, samples: Sequence[Sample], size: int = BATCH) -> None:
    """Run the model over samples for what is watched."""
    with torch.no_grad():
        for inputs in batches(model, samples, size):
            model.module(**inputs)


def real_rows(values: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the rows of tokens that are no padding: [batch, sequence, dim] → [tokens, dim].

    A tensor without the mask's sequence, such as an image's patches, keeps all rows.
    """
    mask = inputs.get("attention_mask")
    if mask is not None and values.shape[:-1] == mask.shape:
        return values[mask.bool()]
    return values.reshape(-1, values.shape[-1])
