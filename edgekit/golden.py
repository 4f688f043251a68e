"""`Golden`: recorded inputs with the float model's outputs, as one file.

It is what parity is measured against everywhere, and nothing after `export` needs PyTorch because of it.
The file is a plain `.npz`; the same golden always makes the same bytes (numpy writes fixed time stamps).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.errors import PackageError
from edgekit.store import writing

_SCHEMA = 1


@dataclass(frozen=True)
class GoldenBatch:
    """One batch: what went in and what the fp32 PyTorch model gave.

    Attributes:
        inputs: Input name -> array; the batch is axis 0.
        outputs: Output name -> float32 array; the batch is axis 0.
        labels: The user's labels, int64, one row per sample; None where there are none. Token labels are
            padded with -100.
    """

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Samples in the batch."""
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class Golden:
    """All batches, with the task that knows how to compare them."""

    task: str
    batches: tuple[GoldenBatch, ...]

    @property
    def samples(self) -> int:
        """Samples in all batches."""
        return sum(batch.size for batch in self.batches)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in graph order."""
        return tuple(self.batches[0].outputs)

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the distinct shapes of the first input, in the order they occur."""
        return tuple(dict.fromkeys(next(iter(b.inputs.values())).shape for b in self.batches))

    def save(self, path: Path) -> None:
        """Write the golden file in one step."""
        arrays: dict[str, np.ndarray] = {}
        for index, batch in enumerate(self.batches):
            for name, value in batch.inputs.items():
                arrays[f"{index}/in/{name}"] = value
            for name, value in batch.outputs.items():
                arrays[f"{index}/out/{name}"] = value
            if batch.labels is not None:
                arrays[f"{index}/labels"] = batch.labels
        header = json.dumps({"schema": _SCHEMA, "task": self.task, "batches": len(self.batches)})
        with writing(path) as aside, aside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, header=np.array(header), **arrays)

    @classmethod
    def load(cls, path: Path) -> Golden:
        """Read a golden file.

        Raises:
            PackageError: The file is missing, damaged, or of another version.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                arrays = {key: data[key] for key in data.files}
            header = json.loads(str(arrays.pop("header")))
            schema, task, count = header["schema"], header["task"], header["batches"]
        except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds for a damaged file
            detail = str(error) or type(error).__name__
            raise PackageError(f"cannot read the golden file {path}: {detail}") from None
        if schema != _SCHEMA:
            raise PackageError(f"{path}: golden schema {schema} is not {_SCHEMA}")
        batches = tuple(_batch(arrays, index) for index in range(count))
        if not batches or not all(batch.inputs and batch.outputs for batch in batches):
            raise PackageError(f"the golden file {path} is incomplete: a batch has no inputs or no outputs")
        return cls(task, batches)


def _batch(arrays: Mapping[str, np.ndarray], index: int) -> GoldenBatch:
    def group(kind: str) -> dict[str, np.ndarray]:
        prefix = f"{index}/{kind}/"
        return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}

    return GoldenBatch(group("in"), group("out"), arrays.get(f"{index}/labels"))
