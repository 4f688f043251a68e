"""The golden holds what the PyTorch model gives, or is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.errors import ModelError
from edgekit.model import TorchModel
from edgekit.source.wrap import Selected
from edgekit.tasks.arrays import ArrayPreprocessor
from edgekit.to_onnx import record_golden


def model_of(module: nn.Module, name: str = "input") -> TorchModel:
    return TorchModel(
        module=Selected(module, {"output": 0}, {}),
        task="generic",
        input_names=(name,),
        output_names=("output",),
        example_inputs={},
        dynamic_axes={},
        preprocessor=ArrayPreprocessor(()),
        from_transformers=False,
        name="x",
    )


def batch(rows: int, name: str = "input") -> dict[str, np.ndarray]:
    return {name: np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)}


def test_inputs_outputs_and_labels_are_recorded_in_order() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3).eval()
    labels = np.array([1, 0, 2])
    golden = record_golden(model_of(layer), [(batch(1), None), (batch(3), labels)])
    assert (golden.task, golden.samples, golden.output_names) == ("generic", 4, ("output",))
    with torch.no_grad():
        expected = layer(torch.from_numpy(batch(3)["input"])).numpy()
    np.testing.assert_array_equal(golden.batches[1].outputs["output"], expected)
    assert golden.batches[1].labels is labels
    assert golden.batches[0].labels is None


def test_outputs_that_are_not_finite_are_refused_by_name() -> None:
    class Log(nn.Module):
        def forward(self, data: torch.Tensor) -> torch.Tensor:
            return torch.log(data - 1)

    with pytest.raises(ModelError, match=r"output 'output' holds NaN or infinity \(2 of 8 values\)"):
        record_golden(model_of(Log(), "data"), [(batch(2, "data"), None)])


def test_a_model_that_is_not_repeatable_is_refused() -> None:
    with pytest.raises(
        ModelError, match="two runs of the model on the same inputs differ in output 'output'"
    ):
        record_golden(model_of(nn.Dropout(0.5).train()), [(batch(8), None)])


def test_an_output_without_a_batch_axis_is_refused() -> None:
    class Mean(nn.Module):
        def forward(self, data: torch.Tensor) -> torch.Tensor:
            return data.mean()

    with pytest.raises(ModelError, match=r"output 'output' has shape \[\] for a batch of 2"):
        record_golden(model_of(Mean(), "data"), [(batch(2, "data"), None)])
