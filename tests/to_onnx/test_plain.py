"""What cannot be exported is named: the op and its module, the axis, the branch."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.errors import ExportError
from edgekit.model import TorchModel
from edgekit.source.wrap import Selected
from edgekit.tasks.arrays import ArrayPreprocessor
from edgekit.to_onnx import export_model


def plain(module: nn.Module, axes: Mapping[str, Mapping[int, str]], **inputs: np.ndarray) -> TorchModel:
    return TorchModel(
        module=Selected(module, {"output": 0}, {}).eval(),
        task="generic",
        input_names=tuple(inputs),
        output_names=("output",),
        example_inputs=inputs,
        dynamic_axes={name: dict(named) for name, named in axes.items()},
        preprocessor=ArrayPreprocessor(()),
        from_transformers=False,
        name="plain",
    )


X = np.ones((2, 4), np.float32)
BATCH = {"x": {0: "batch"}}


class Airy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.airy_ai(x)


class Block(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4), inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


class FixedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 2, 2)


class FixedTime(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.ones(4)


class Square(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class Numpy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy() * 2)


def test_an_op_without_an_onnx_form_is_named_with_its_module(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"aten\.special_airy_ai\.default has no ONNX form \(.* block\.1, a Airy\)"
    ):
        export_model(plain(Block(Airy()), BATCH, x=X), tmp_path, opset=20, ir_version=10)
    assert not (tmp_path / "float.onnx").exists()


def test_control_flow_that_depends_on_values_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"control flow depends on values.*test_plain\.py, line \d+: return x \* 2 if"
    ):
        export_model(plain(Branch(), BATCH, x=X), tmp_path, opset=20, ir_version=10)


@pytest.mark.parametrize(
    ("module", "axes", "message"),
    [
        (
            FixedBatch(),
            BATCH,
            r"axis 0 \('batch'\) of input 'x' has to vary, but the model's code fixes it to 2",
        ),
        (
            FixedTime(),
            {"x": {0: "batch", 1: "time"}},
            r"axis 1 \('time'\) of input 'x' has to vary, .* fixes it to 4",
        ),
    ],
)
def test_an_axis_that_the_code_fixes_is_named(
    module: nn.Module, axes: Mapping[str, Mapping[int, str]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        export_model(plain(module, axes, x=X), tmp_path, opset=20, ir_version=10)


def test_two_axes_that_have_to_be_equal_are_named(tmp_path: Path) -> None:
    square = np.ones((3, 3), np.float32)
    axes = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "steps"}}
    with pytest.raises(ExportError, match=r"axis 1 \('steps'\) of input 'y' always equals the axis 'time'"):
        export_model(
            plain(Square(), axes, x=np.ones((2, 3), np.float32), y=square[:2]),
            tmp_path,
            opset=20,
            ir_version=10,
        )


def test_what_cannot_be_traced_is_passed_on_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"cannot be traced: .*numpy") as caught:
        export_model(plain(Numpy(), BATCH, x=X), tmp_path, opset=20, ir_version=10)
    assert "\n" not in caught.value.message
    assert "test_plain.py" in caught.value.message
