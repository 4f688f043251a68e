"""One block of samples → what is kept of the teacher's outputs, as numpy tables in half precision."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekit.compress.base import real_rows
from edgekit.compress.feeding import BATCH, fed, groups
from edgekit.data import Sample
from edgekit.distill.precision import Precision, computing_in
from edgekit.errors import ModelError
from edgekit.model import TorchModel

_CHUNK = 1024  # rows whose probabilities are sorted at once: 0.5 GB at a vocabulary of 128 thousand
_LARGEST = float(np.finfo(np.float16).max)

VALUES, COUNTS, INDICES, LOG_REST = "values.f16", "counts.i32", "indices.i32", "log_rest.f32"
DTYPES = {VALUES: "<f2", COUNTS: "<i4", INDICES: "<i4", LOG_REST: "<f4"}

Tables = dict[str, np.ndarray]


@dataclass(frozen=True)
class Wanted:
    """What is kept of each row of the teacher's output.

    Attributes:
        top: Keep only the log-probabilities of this many largest logits; None keeps the whole row as it is.
        temperature: What logits are divided by before they become probabilities; positive, and without
            meaning where `top` is None.
        precision: In which the teacher computes: bf16 turns its embeddings by about 0.3 degrees.
    """

    top: int | None = None
    temperature: float = 1.0
    precision: Precision = "fp32"

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that hold it."""
        return (VALUES, COUNTS) if self.top is None else (VALUES, COUNTS, INDICES, LOG_REST)


@dataclass(frozen=True, eq=False)
class TeacherRun:
    """The teacher as it runs.

    Attributes:
        teacher: As it was given.
        module: The teacher's, on `device`; a copy where that is not the CPU.
        wanted: What is kept.
        device: Where `module` is.
    """

    teacher: TorchModel
    module: nn.Module
    wanted: Wanted
    device: str

    @classmethod
    def on(cls, device: str, teacher: TorchModel, wanted: Wanted) -> TeacherRun:
        """Bring the teacher to a device."""
        module = teacher.module if device == "cpu" else copy.deepcopy(teacher.module).to(device)
        return cls(teacher, module, wanted, device)


def block_tables(run: TeacherRun, samples: Sequence[Sample], start: int) -> Tables:
    """Run the teacher over one block of samples, those of like length together.

    Args:
        run: The teacher.
        samples: Of the block.
        start: How many samples come before it.

    Returns:
        File name -> rows in the samples' order.

    Raises:
        DataError: A sample cannot be used.
        ModelError: An output is not finite, or too large for half precision.
    """
    is_text = isinstance(samples[0].value, (str, list))
    # without a mask nobody could tell padding from text
    batch = BATCH if not is_text or "attention_mask" in run.teacher.input_names else 1
    found: dict[int, Tables] = {}
    for chosen in groups(samples, batch):
        rows, counts = _rows(run, [samples[index] for index in chosen])
        tables, fits = _kept(rows, run.wanted)
        ends = np.cumsum(counts)
        if not fits.all():
            index = chosen[int(np.searchsorted(ends, np.argmin(fits), side="right"))]
            raise _unfit(start + index, samples[index])
        for index, end, count in zip(chosen, ends, counts, strict=True):
            own = {name: table[end - count : end] for name, table in tables.items()}
            found[index] = own | {COUNTS: np.array([count], DTYPES[COUNTS])}
    return {name: np.concatenate([found[i][name] for i in range(len(samples))]) for name in run.wanted.files}


def _rows(run: TeacherRun, samples: Sequence[Sample]) -> tuple[torch.Tensor, np.ndarray]:
    """Samples → the teacher's first output [rows, width] without padding, and the rows of each sample."""
    inputs = {name: tensor.to(run.device) for name, tensor in fed(run.teacher, samples).items()}
    device = torch.device(run.device).type
    with torch.no_grad(), computing_in(run.wanted.precision, device):
        returned = run.module(**inputs)
    output = next(iter(returned.values())) if isinstance(returned, dict) else returned[0]
    rows = real_rows(output if output.ndim > 1 else output[:, None], inputs)
    mask = inputs.get("attention_mask")
    if mask is not None and output.shape[:-1] == mask.shape:
        return rows, mask.bool().sum(dim=1).cpu().numpy()
    return rows, np.full(len(samples), len(rows) // len(samples))


def _kept(rows: torch.Tensor, wanted: Wanted) -> tuple[Tables, np.ndarray]:
    """[rows, width] → file name -> what is written, and for each row whether half precision can hold it."""
    parts = [_of_whole(part) if wanted.top is None else _of_top(part, wanted) for part in rows.split(_CHUNK)]
    tables = {
        name: np.concatenate([tables[name].cpu().numpy().astype(DTYPES[name]) for tables, _ in parts])
        for name in parts[0][0]
    }
    return tables, np.concatenate([fits.cpu().numpy() for _, fits in parts])


def _of_whole(rows: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    fits = (rows.abs() <= _LARGEST).all(dim=1)
    return {VALUES: rows.float().clamp(-_LARGEST, _LARGEST)}, fits


def _of_top(rows: torch.Tensor, wanted: Wanted) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    logits = rows.float() / wanted.temperature
    fits = logits.isfinite().all(dim=1)
    logits -= logits.amax(dim=1, keepdim=True)  # what is small beside a large one keeps its digits
    total = logits.logsumexp(dim=1, keepdim=True)
    largest, indices = logits.topk(min(wanted.top or 1, logits.shape[1]), dim=1)
    values = largest - total
    fits &= (values >= -_LARGEST).all(dim=1)
    rest = logits.scatter(1, indices, -torch.inf).logsumexp(dim=1) - total[:, 0]
    return {VALUES: values.clamp(min=-_LARGEST), INDICES: indices, LOG_REST: rest}, fits


def _unfit(index: int, sample: Sample) -> ModelError:
    value = sample.value
    if isinstance(value, dict):
        begins = ", ".join(f"{name} {array.reshape(-1)[:6].tolist()}" for name, array in value.items())
    elif isinstance(value, list):
        begins = " ".join(value)
    else:
        begins = value.name if isinstance(value, Path) else value
    begins = begins if len(begins) <= 60 else f"{begins[:57]}..."
    return ModelError(
        f"the teacher's output for sample {index} is not finite, or over {_LARGEST:g}: {begins!r}",
        "Leave the sample out; where many are so, the teacher's weights are broken.",
    )
