"""The values that models travel in: `ModelRef` → `TorchModel` → `OnnxModel`.

None of them imports torch or onnx; they can be named from any room.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.record import StepRecord

if TYPE_CHECKING:
    import numpy as np
    import torch

    from edgekit.tasks.base import Preprocessor
    from edgekit.trained_scales import TrainedScales


@dataclass(frozen=True)
class ModelRef:
    """What the user wrote for MODEL, with the switches that say how it may be loaded.

    Attributes:
        spec: A directory, a Hub id, or `package.module:factory`.
        revision: Hub revision; None takes the default branch and the record holds the commit.
        allow_pickle: Load a pickle checkpoint with `weights_only=True` where there are no safetensors.
        max_length: Longest token sequence; None takes the model's own limit.
        weights: For a factory: the directory that `edgekit compress` wrote from it.
    """

    spec: str
    revision: str | None = None
    allow_pickle: bool = False
    max_length: int | None = None
    weights: str | None = None


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: Name in the graph.
        dtype: numpy name, e.g. `int64`, `float32`.
        shape: One entry per axis: a fixed size, or the name of a dynamic axis such as `batch`.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON values."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a graph, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the signature as JSON values."""
        return {"inputs": [s.to_json() for s in self.inputs], "outputs": [s.to_json() for s in self.outputs]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Signature:
        """Read what `to_json` wrote."""

        def specs(rows: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
            return tuple(TensorSpec(r["name"], r["dtype"], tuple(r["shape"])) for r in rows)

        return cls(specs(data["inputs"]), specs(data["outputs"]))


@dataclass(frozen=True)
class TorchModel:
    """A loaded PyTorch module that is ready to be exported.

    Attributes:
        module: In eval mode, fp32, on the CPU; takes the inputs by keyword and returns a dict or tuple of
            tensors that `output_names` names in order. Only what the task uses comes out.
        task: Name of the task, a key of `edgekit.tasks.TASKS`.
        input_names: Keyword names of the forward's inputs, in graph order.
        output_names: Names of the outputs, in graph order.
        example_inputs: One small batch (batch size 2) that the exporter traces with.
        dynamic_axes: For each input, axis index -> readable axis name; an axis not named is fixed.
        preprocessor: Turns the user's samples into inputs of this model.
        from_transformers: True where the weights came from a `transformers` class.
        name: Short readable name, used in titles.
        files: Tokenizer, preprocessor and config files that an app needs beside the graph.
        folder: The directory that it was loaded from; None for a factory's.
        config: The model's own configuration as JSON values (empty for a plain module).
        source_sha256: Digest of the weights and configuration, so that a recipe can pin them.
        history: What was done so far.
        trained: The codes that its last training steps had in them; whoever changes a weight drops them.
    """

    module: torch.nn.Module
    task: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    example_inputs: dict[str, np.ndarray]
    dynamic_axes: dict[str, dict[int, str]]
    preprocessor: Preprocessor
    from_transformers: bool
    name: str
    files: tuple[Path, ...] = ()
    folder: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)
    source_sha256: str = ""
    history: tuple[StepRecord, ...] = ()
    trained: TrainedScales | None = None


@dataclass(frozen=True)
class ModelFacts:
    """What is still needed of a `TorchModel` once it is exported; the fields mean the same.

    A job that holds these and not the module lets go of PyTorch's copy of the weights.
    """

    task: str
    preprocessor: Preprocessor
    name: str
    files: tuple[Path, ...]
    config: dict[str, Any]
    source_sha256: str
    trained: TrainedScales | None = None

    @classmethod
    def of(cls, model: TorchModel) -> ModelFacts:
        """Take them from a model."""
        return cls(
            model.task,
            model.preprocessor,
            model.name,
            model.files,
            model.config,
            model.source_sha256,
            model.trained,
        )


@dataclass(frozen=True)
class Graph:
    """One named graph of a model: a file and its signature."""

    name: str
    path: Path
    signature: Signature


@dataclass(frozen=True)
class OnnxModel:
    """One or more named graphs that share a set of weights, with their history.

    Attributes:
        graphs: In running order; one named `model` is the common case.
        opset: Version of the default ONNX operator set.
        ir_version: Version of the ONNX file format.
        history: Every step since the model was loaded.
    """

    graphs: tuple[Graph, ...]
    opset: int
    ir_version: int
    history: tuple[StepRecord, ...] = ()

    @property
    def only(self) -> Graph:
        """The graph of a model that has exactly one."""
        (graph,) = self.graphs
        return graph

    @property
    def file_bytes(self) -> int:
        """Size of all graph files on disk, external data included."""
        total = 0
        for graph in self.graphs:
            data = graph.path.with_name(graph.path.name + ".data")
            total += graph.path.stat().st_size + (data.stat().st_size if data.exists() else 0)
        return total

    def with_step(self, *records: StepRecord, graphs: tuple[Graph, ...] | None = None) -> OnnxModel:
        """Return the model with records appended and, where given, other graphs."""
        return replace(self, graphs=graphs or self.graphs, history=(*self.history, *records))
