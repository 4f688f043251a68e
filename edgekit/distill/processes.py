"""The processes that train together: one, or as many as `accelerate launch` or torchrun started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from edgekit.errors import MissingDependencyError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes that train together.

    Attributes:
        device: Of this one.
        rank: Of this one.
        count: How many there are.
        rank_here: Of this one among those of its machine.
        count_here: How many these are.
    """

    device: torch.device
    rank: int
    count: int
    rank_here: int
    count_here: int

    @property
    def main(self) -> bool:
        """Whether this one evaluates, writes and tells."""
        return self.rank == 0

    def told(self, value: T) -> T:
        """Return the main process's value in every process."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Put the sum over all processes in the place of each one's gradients."""
        if self.count == 1:
            return
        from accelerate.utils import reduce

        used = torch.tensor([p.grad is not None for p in parameters], device=self.device)
        used = reduce(used.float(), "sum") > 0
        parameters = [p for p, anywhere in zip(parameters, used.tolist(), strict=True) if anywhere]
        if not parameters:
            return
        flat = reduce(torch.cat([_gradient(p).flatten() for p in parameters]), "sum")
        sizes = [p.numel() for p in parameters]
        for parameter, part in zip(parameters, flat.split(sizes), strict=True):
            parameter.grad = part.view_as(parameter)


def training_processes() -> Processes:
    """Return the processes that train together, and where this one does.

    Raises:
        MissingDependencyError: accelerate is not installed.
    """
    try:
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env
    except ImportError:
        raise MissingDependencyError("accelerate", "train students", "distill") from None
    # Only when it is told so does it connect processes that have no GPU.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes))
    return Processes(
        torch.device(state.device), state.process_index, state.num_processes, state.local_process_index, here
    )


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
