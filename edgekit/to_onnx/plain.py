"""The plain road: any `nn.Module` through `torch.export` and `torch.onnx`; errors name what failed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from edgekit.errors import ExportError
from edgekit.model import TorchModel
from edgekit.source.wrap import named

# "You marked L['tensors'][0].size()[1] as dynamic but your code specialized it to be a constant (5)."
_SPECIALIZED = re.compile(
    r"marked L\['tensors'\]\[(\d+)\]\.size\(\)\[(\d+)\] as dynamic but .*?constant \((\d+)\)"
)
_RELATED = re.compile(r"L\['tensors'\]\[(\d+)\]\.size\(\)\[(\d+)\]")
_NO_FUNCTION = re.compile(r"OpOverload\(op='(.+?)', overload='(.+?)'\)")
_USER_CODE = re.compile(r'^\s*File "(.+?)", line (\d+), in (\w+)\s*\n\s*(.+)$', re.MULTILINE)


class Positional(nn.Module):
    """A model called by position that returns a tuple, which is what the exporter handles best."""

    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.model = model.module
        self.names = model.input_names

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs in graph order."""
        return tuple(named(self.model(**dict(zip(self.names, tensors, strict=True)))).values())


def export_plain(model: TorchModel, opset: int) -> ir.Model:
    """Export with `torch.export` and `torch.onnx`.

    Raises:
        ExportError: Control flow depends on data, an asked-for dynamic axis is fixed by the code, or an op
            has no ONNX form.
    """
    tensors = tuple(torch.from_numpy(model.example_inputs[name]) for name in model.input_names)
    dims = tuple(dynamic_shapes(model).values())
    module = Positional(model).eval()
    try:
        with torch.no_grad():
            program = torch.export.export(module, tensors, dynamic_shapes={"tensors": dims}, strict=False)
    except Exception as error:  # torch.export raises dozens of types
        raise _trace_error(error, model) from error
    try:
        exported = torch.onnx.export(
            program,
            input_names=list(model.input_names),
            output_names=list(model.output_names),
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise _conversion_error(error, program) from error
    return exported.model


def dynamic_shapes(model: TorchModel) -> Mapping[str, Mapping[int, Any]]:
    """Return the dynamic axes by input name as `torch.export` wants them."""
    return {
        name: dict.fromkeys(model.dynamic_axes.get(name, {}), torch.export.Dim.DYNAMIC)
        for name in model.input_names
    }


def axis_of(model: TorchModel, position: int, axis: int) -> str:
    """Return how a person names an axis: input and axis name."""
    name = model.input_names[position]
    return f"axis {axis} ('{model.dynamic_axes[name][axis]}') of input '{name}'"


def _trace_error(error: Exception, model: TorchModel) -> ExportError:
    text = str(error)
    if found := _SPECIALIZED.search(text):
        where = axis_of(model, int(found[1]), int(found[2]))
        return ExportError(
            f"{where} has to vary, but the model's code fixes it to {found[3]}, the size in the example",
            "Look for a reshape, a comparison or a Python number that takes the size literally.",
        )
    if "Constraints violated" in text and (related := _RELATED.findall(text)):
        axes = " and ".join(dict.fromkeys(axis_of(model, int(p), int(a)) for p, a in related))
        return ExportError(f"{axes} cannot vary freely: {_violation(text)}")
    at = _user_line(text) or _user_frame(error)
    if "data-dependent" in text or "data dependent" in text:
        return ExportError(
            f"the model's control flow depends on values, which a graph cannot hold{at}",
            "Write it with torch.where, or make the branch depend on shapes alone.",
        )
    return ExportError(f"the model cannot be traced: {type(error).__name__}: {_first_line(text)}{at}")


def _conversion_error(error: Exception, program: Any) -> ExportError:
    text = "\n".join(str(link) for link in _chain(error))
    if found := _NO_FUNCTION.search(text):
        op = f"{found[1]}.{found[2]}"
        return ExportError(
            f"the op {op} has no ONNX form{_module_of(program, op)}",
            "Replace it in the model with ops that have one.",
        )
    causes = [_first_line(str(link)) for link in _chain(error)]
    return ExportError(f"the model cannot be converted to ONNX: {causes[-1]}")


def _module_of(program: Any, op: str) -> str:
    """Return the module that calls an op, as " (called in block.1, a Sub)"."""
    for candidate in (lambda: program, lambda: program.run_decompositions()):
        for node in candidate().graph.nodes:
            if node.op == "call_function" and str(node.target) == op:
                path, kind = list(node.meta.get("nn_module_stack", {"": ("", "the model")}).values())[-1]
                path = str(path).removeprefix("model.").removeprefix("model.")
                kind = kind if isinstance(kind, str) else kind.__qualname__
                return f" (called in {path or 'the model'}, a {kind.rsplit('.', 1)[-1]})"
    return ""


def _user_line(text: str) -> str:
    frames = _USER_CODE.findall(text)
    if not frames:
        return ""
    file, line, _, code = frames[-1]
    return f" ({file.rsplit('/', 1)[-1]}, line {line}: {code.strip()})"


def _user_frame(error: BaseException) -> str:
    """Return the last frame outside torch, as " (file, line n)"."""
    import traceback

    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not re.search(r"[/\\](torch|edgekit)[/\\]", f.filename)
    ]
    frames = [f for f in frames if not f.filename.startswith("<")]
    return f" ({frames[-1].filename.rsplit('/', 1)[-1]}, line {frames[-1].lineno})" if frames else ""


def _violation(text: str) -> str:
    return next(
        (line.strip(" -") for line in text.splitlines() if line.strip().startswith("- ")), _first_line(text)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(text: str) -> str:
    line = next((part.strip() for part in text.splitlines() if part.strip()), "no reason given")
    return line[:300]
