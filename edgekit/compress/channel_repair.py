"""Fit convolutions and matrix products anew to what the original computes, after channels are gone.

Layer by layer in running order: least squares of the original's outputs on the inputs that are left, as
they come out of the smaller network so far; then the statistics of batch norms. What brings the outputs no
closer to the original's, on samples that nothing is fitted to, is taken back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from edgekit.compress.base import Data, batches, branch, run_all
from edgekit.compress.channel_groups import CONVOLUTIONS, NORMS, Side, passes_on, width
from edgekit.model import TorchModel
from edgekit.record import Skip

RIDGE = 1e-3
"""Pull toward the weights that were there, as a share of the inputs' mean square."""

ROWS = 4096
"""Positions per batch that a fit looks at: a map often has many more, all alike."""

Gone = Mapping[tuple[str, Side], Sequence[int]]


def repair(
    smaller: TorchModel, original: TorchModel, gone: Gone, data: Data, loss: float
) -> tuple[TorchModel, int, tuple[Skip, ...]]:
    """Return the smaller network refitted, how many parts changed, and which fits were taken back.

    Args:
        smaller: The network without the channels; it is not changed.
        original: The network with them.
        gone: What each side of each module has lost.
        data: Samples to fit, and the judge.
        loss: Of the smaller network as it is.
    """
    order, norm_behind = _running_order(original, data)
    parts = {name: original.module.get_submodule(name) for name in order}
    first = next((index for index, name in enumerate(order) if (name, "in") in gone), len(order))
    behind = order[first:]
    work = [name for name in behind if not isinstance(parts[name], NORMS)]
    work += [name for name in behind if isinstance(parts[name], NORMS)]
    skipped, norms_kept = [], 0
    for index, name in enumerate(work):
        data.progress("compress", f"repairing {name}", index / len(work))
        candidate = branch(smaller)
        if isinstance(parts[name], NORMS):
            _match(candidate, original, name, gone, data)
        else:
            _fit(candidate, original, name, gone, data, norm_behind.get(name))
        now = data.judge.loss(candidate)
        if now <= loss:
            smaller, loss = candidate, now
        elif isinstance(parts[name], NORMS):
            norms_kept += 1
        else:
            skipped.append(Skip(name, f"not refitted: the loss would rise from {loss:.4g} to {now:.4g}"))
    changed = len(work) - len(skipped) - norms_kept
    if norms_kept:
        skipped.append(Skip(f"statistics of {norms_kept} batch norms", "as they were: the loss would rise"))
    return smaller, changed, tuple(skipped)


def _running_order(model: TorchModel, data: Data) -> tuple[list[str], dict[str, str]]:
    """Return convolutions, matrix products and batch norms as they run, and the norm right behind a layer."""
    kinds = (*CONVOLUTIONS, nn.Linear, *NORMS)
    order: list[str] = []
    made: list[tuple[torch.Tensor, str]] = []  # held, so that no other tensor takes the place
    norm_behind: dict[str, str] = {}

    def hook(name: str) -> object:
        def after(part: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if name not in order:
                order.append(name)
            if isinstance(part, NORMS):
                norm_behind.update({layer: name for tensor, layer in made if tensor is inputs[0]})
            else:
                made.append((output, name))

        return after

    named = [(name, part) for name, part in model.module.named_modules() if isinstance(part, kinds)]
    handles = [part.register_forward_hook(hook(name)) for name, part in named]
    try:
        run_all(model, data.fit[:1])
    finally:
        for handle in handles:
            handle.remove()
    return order, norm_behind


def _fit(
    candidate: TorchModel, original: TorchModel, name: str, gone: Gone, data: Data, norm: str | None
) -> None:
    """Give a layer of the candidate the weights that come closest to the original's outputs.

    The constant part goes into the bias or, where there is none, into the mean of the norm behind.
    """
    part = candidate.module.get_submodule(name)
    old = part.get_parameter("weight").detach()
    groups = getattr(part, "groups", 1)
    rows = old.double().reshape(groups, len(old) // groups, -1)  # [groups, out, in·kernel]
    free = part.bias is not None or norm is not None
    kept = _kept(original, name, gone)
    inner, cross, x_sum, y_sum = torch.zeros(4, dtype=torch.float64)
    count = 0
    random = torch.Generator().manual_seed(data.seed)
    for inputs in batches(original, data.fit):
        x = _columns(part, _reach(candidate, name, inputs)[0], groups)
        y = _rows(part, _reach(original, name, inputs)[1])[:, kept]
        if len(x) > ROWS:
            chosen = torch.randperm(len(x), generator=random)[:ROWS]
            x, y = x[chosen], y[chosen]
        x, y = x.double().transpose(0, 1), y.double().reshape(len(y), groups, -1).transpose(0, 1)
        inner, cross = inner + x.mT @ x, cross + x.mT @ y
        x_sum, y_sum, count = x_sum + x.sum(dim=1), y_sum + y.sum(dim=1), count + x.shape[1]
    x_mean, y_mean = x_sum / count * free, y_sum / count * free
    inner = inner / count - x_mean[:, :, None] * x_mean[:, None, :]
    cross = cross / count - x_mean[:, :, None] * y_mean[:, None, :]
    square = inner.diagonal(dim1=1, dim2=2)
    pull = torch.diag_embed((RIDGE * square.mean(dim=1, keepdim=True) + 1e-12).expand_as(square))
    new = torch.linalg.solve(inner + pull, cross + pull @ rows.mT).mT
    part.weight = nn.Parameter(new.reshape(old.shape).to(old.dtype), requires_grad=False)
    shift = (y_mean - (new @ x_mean[:, :, None])[:, :, 0]).reshape(-1).to(old.dtype)
    if part.bias is not None:
        part.bias = nn.Parameter(shift, requires_grad=False)
    elif norm is not None:
        behind = candidate.module.get_submodule(norm)
        behind._buffers["running_mean"] = behind.get_buffer("running_mean") - shift


def _match(candidate: TorchModel, original: TorchModel, name: str, gone: Gone, data: Data) -> None:
    """Set a norm's statistics so that its outputs have the means and variances of the original's."""
    norm = candidate.module.get_submodule(name)
    if norm._buffers.get("running_mean") is None:
        return
    kept = _kept(original, name, gone)
    mean, variance = _moments(candidate, name, data)
    mean_0, variance_0 = (values[kept] for values in _moments(original, name, data))
    usable = (variance > 0) & (variance_0 > 0)
    ratio = torch.where(usable, variance / variance_0.clamp_min(1e-30), torch.ones(()).double())
    center, spread = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    eps = float(getattr(norm, "eps", 0.0))
    norm._buffers["running_mean"] = (mean - ratio.sqrt() * (mean_0 - center)).to(center.dtype)
    norm._buffers["running_var"] = ((spread + eps) * ratio - eps).clamp_min(0).to(spread.dtype)


def _moments(model: TorchModel, name: str, data: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance of each channel that comes into a part, float64."""
    total, squares, count = torch.zeros(()), torch.zeros(()), 0
    for inputs in batches(model, data.fit):
        x = _reach(model, name, inputs)[0].transpose(0, 1).flatten(1).double()
        total, squares, count = total + x.sum(dim=1), squares + x.square().sum(dim=1), count + x.shape[1]
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(0)


class _Reached(Exception):  # noqa: N818 - it is no error
    """Ends a forward where what was looked for has run."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        super().__init__()
        self.found = (x, y)


def _reach(
    model: TorchModel, name: str, inputs: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what goes into a part and what comes out of it, and run nothing behind it."""

    def stop(part: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        raise _Reached(args[0], output)

    handle = model.module.get_submodule(name).register_forward_hook(stop)
    try:
        with torch.no_grad():
            model.module(**inputs)
    except _Reached as reached:
        return reached.found
    finally:
        handle.remove()
    raise AssertionError(f"{name} ran before, and does not now")


def _kept(original: TorchModel, name: str, gone: Gone) -> torch.Tensor:
    """Return which of the original's channels a part still makes."""
    part = original.module.get_submodule(name)
    side: Side = "both" if passes_on(part) else "out"
    lost = set(gone.get((name, side), ()))
    return torch.tensor([place for place in range(width(part, side)) if place not in lost])


def _columns(part: nn.Module, x: torch.Tensor, groups: int) -> torch.Tensor:
    """Return what each output position is a product of: [positions, groups, in·kernel]."""
    if isinstance(part, nn.Linear):
        return x.reshape(-1, 1, x.shape[-1])
    assert isinstance(part, CONVOLUTIONS)
    mode = "constant" if part.padding_mode == "zeros" else part.padding_mode
    x = functional.pad(x, part._reversed_padding_repeated_twice, mode=mode)
    flat = [1] * (2 - len(part.kernel_size))  # a signal is an image of one line
    kernel, dilation, stride = ((*flat, *sizes) for sizes in (part.kernel_size, part.dilation, part.stride))
    patches = functional.unfold(x.reshape(*x.shape[:2], *flat, *x.shape[2:]), kernel, dilation, 0, stride)
    rows = patches.transpose(1, 2).flatten(0, 1)  # [positions, in·kernel], channel by channel
    return rows.reshape(len(rows), groups, -1)


def _rows(part: nn.Module, y: torch.Tensor) -> torch.Tensor:
    """Return outputs as [positions, channels]."""
    return y.reshape(-1, y.shape[-1]) if isinstance(part, nn.Linear) else y.movedim(1, -1).flatten(0, -2)
