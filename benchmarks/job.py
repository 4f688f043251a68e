"""What a competitor is given, and what it hands back. Needs numpy alone: every environment imports it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

MAX_TOKENS = 128
"""Longest text in tokens; the rest of a longer one is cut off, for every competitor alike."""


@dataclass(frozen=True)
class Job:
    """The same for every competitor but for the folder.

    Attributes:
        model: Directory of the model, as Hugging Face lays it out.
        float_onnx: The plain fp32 export, with pooling and normalization in the graph.
        calibration: Token arrays of the calibration texts, see `save_tokens`.
        folder: Where to write.
    """

    model: Path
    float_onnx: Path
    calibration: Path
    folder: Path

    def samples(self) -> list[dict[str, np.ndarray]]:
        """Return the calibration texts one by one, each int64 [1, its own length]."""
        return list(load_tokens(self.calibration))

    def padded(self) -> list[dict[str, np.ndarray]]:
        """Return them padded to [1, MAX_TOKENS], for tools that cannot take varying lengths."""
        return [
            {name: np.pad(row, ((0, 0), (0, MAX_TOKENS - row.shape[1]))) for name, row in sample.items()}
            for sample in self.samples()
        ]

    def save(self, path: Path) -> None:
        """Write the job as JSON."""
        path.write_text(json.dumps({key: str(value) for key, value in asdict(self).items()}))

    @classmethod
    def load(cls, path: Path) -> Job:
        """Read what `save` wrote."""
        return cls(**{key: Path(value) for key, value in json.loads(path.read_text()).items()})


@dataclass(frozen=True)
class Artifact:
    """What a competitor made.

    Attributes:
        path: The file to run.
        runtime: `onnxruntime` or `openvino`.
        note: What a reader of the table has to know.
        options: Configuration that its runtime needs (session entries, or properties of compile_model).
        includes_export: The time and memory of `make` hold the export from PyTorch too.
    """

    path: Path
    runtime: str = "onnxruntime"
    note: str = ""
    options: dict[str, str] = field(default_factory=dict)
    includes_export: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the artifact as JSON values."""
        return asdict(self) | {"path": str(self.path)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Artifact:
        """Read what `to_json` wrote."""
        return cls(**(data | {"path": Path(data["path"])}))


class Feeds:
    """`CalibrationDataReader` of ONNX Runtime over samples, kept to the inputs that a graph has."""

    def __init__(self, samples: list[dict[str, np.ndarray]], names: list[str]) -> None:
        """Start before the first sample."""
        self._left = iter([{name: sample[name] for name in names} for sample in samples])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next sample, None after the last."""
        return next(self._left, None)


def save_tokens(ids: list[list[int]], path: Path) -> None:
    """Write token ids of texts; a text has at most `MAX_TOKENS`."""
    table = np.zeros((len(ids), MAX_TOKENS), np.int64)
    for row, tokens in zip(table, ids, strict=True):
        row[: len(tokens)] = tokens
    np.savez(path, ids=table, lengths=np.array([len(tokens) for tokens in ids]))


def load_tokens(path: Path) -> Iterator[dict[str, np.ndarray]]:
    """Yield the inputs of each text: int64 [1, length], without padding."""
    with np.load(path) as data:
        table, lengths = data["ids"], data["lengths"]
    for row, length in zip(table, lengths, strict=True):
        yield inputs_of(row[None, :length])


def inputs_of(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Token ids [batch, length] → the three inputs of a BERT encoder."""
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }


def graph_inputs(path: Path) -> list[str]:
    """Return the names of an ONNX file's inputs."""
    import onnx

    return [value.name for value in onnx.load(str(path), load_external_data=False).graph.input]


def file_bytes(path: Path) -> int:
    """Return the size of an artifact: an IR's weights lie in a .bin, an ONNX file's perhaps in .data."""
    beside = (path.with_suffix(".bin"), path.with_name(path.name + ".data"))
    return sum(file.stat().st_size for file in (path, *beside) if file.is_file())
