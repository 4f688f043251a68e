"""Models from the user's own code: `package.module:factory`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekit import structure
from edgekit.errors import ModelError, RecipeError, nearest
from edgekit.model import ModelRef, TensorSpec, TorchModel
from edgekit.record import Clock, Skip
from edgekit.source.checkpoint import check_finite, read_json, weight_files
from edgekit.source.quiet import quiet
from edgekit.source.wrap import Selected, named, run
from edgekit.tasks.arrays import ArrayPreprocessor

# Task -> the one output it uses; None: every output.
_OUTPUT: dict[str, str | None] = {
    "generic": None,
    "feature-extraction": "last_hidden_state",
    "sentence-embedding": "sentence_embedding",
    "text-classification": "logits",
    "token-classification": "logits",
    "image-classification": "logits",
    "multi-label-text-classification": "logits",
    "multi-label-image-classification": "logits",
}
_WANTED = "It has to return (module, example_inputs), or (module, example_inputs, dynamic_axes)."


def load_factory(ref: ModelRef, task: str | None) -> TorchModel:
    """Load what a factory in the user's code returns.

    The factory takes nothing and returns an `nn.Module` with its example inputs (a tensor, a tuple, or a
    dict by name), and, where axes other than the batch vary, a dict input name -> {axis: axis name}.

    Raises:
        ModelError: There is no such module or factory, it fails, it returns something else, or the model
            fails on its own example inputs.
        RecipeError: The task is unknown.
    """
    clock = Clock()
    task = task or "generic"
    if task not in _OUTPUT:
        raise RecipeError(f"unknown task '{task}'", nearest(task, _OUTPUT))
    with _working_directory_importable(), quiet():
        module, examples, more_axes = _unpacked(_call(_factory(ref.spec), ref.spec), ref.spec)
        module = module.to("cpu").float().eval()
        if ref.weights is not None:
            _load_weights(module, Path(ref.weights))
        inputs = _inputs(module, examples, ref.spec)
        axes = _axes(inputs, more_axes, ref.spec)
        outputs, skipped = _outputs(named(run(module, inputs)), task)
    check_finite(module)
    wrapped = Selected(module, outputs, {}).eval()
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    parameters = sum(p.numel() for p in module.parameters())
    name = type(module).__name__
    record = clock.record(
        "load",
        "factory",
        f"Called {ref.spec}, which made a {name} with {parameters:,} parameters.",
        skipped=skipped,
        bytes_after=_weights_bytes(module),
        source=ref.spec,
        model_class=name,
        parameters=parameters,
        weights_bytes=_weights_bytes(module),
        task=task,
    )
    return TorchModel(
        module=wrapped,
        task=task,
        input_names=tuple(inputs),
        output_names=tuple(outputs),
        example_inputs=arrays,
        dynamic_axes=axes,
        preprocessor=ArrayPreprocessor(_specs(arrays, axes)),
        from_transformers=False,
        name=name,
        source_sha256=_digest(module),
        history=(record,),
    )


def _load_weights(module: nn.Module, folder: Path) -> None:
    """Give a factory's module the sizes and weights that `edgekit compress` wrote."""
    from safetensors.torch import load_model

    where = folder / structure.FILE
    if not where.is_file():
        raise ModelError(
            f"{folder} has no {structure.FILE}, so `edgekit compress` did not make it of a factory's model",
            "Give the folder that it wrote to --weights.",
        )
    (file,) = weight_files(folder, allow_pickle=False)
    structure.rebuild(module, structure.Structure.from_json(read_json(where), str(where)), str(where))
    try:
        load_model(module, str(file), strict=True)
    except Exception as error:  # safetensors and torch each raise their own
        line = " ".join(str(error).split())[:300]
        raise ModelError(f"{file} does not fit the module that the factory makes: {line}") from None


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _factory(spec: str) -> Callable[[], Any]:
    module_name, _, attribute = spec.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise ModelError(
            f"no model at '{spec}': no such directory, and it is not of the form package.module:factory"
        )
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ModelError(
                f"there is no Python module '{error.name}' ({spec})",
                "Run from the directory that holds it, or install it.",
            ) from None
        raise ModelError(f"importing {module_name} failed: {error}") from error
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise ModelError(f"importing {module_name} failed: {_described(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [
                name for name, value in vars(found).items() if callable(value) and not name.startswith("_")
            ]
            raise ModelError(f"module {module_name} has no '{attribute}'", nearest(attribute, names))
        found = getattr(found, part)
    if not callable(found):
        raise ModelError(f"{spec} is a {type(found).__name__}, not a function", _WANTED)
    return found


def _call(factory: Callable[[], Any], spec: str) -> Any:
    try:
        return factory()
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise ModelError(f"{spec}() failed: {_described(error)}") from error


def _described(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text} ({Path(last.filename).name}, line {last.lineno})"


def _unpacked(made: Any, spec: str) -> tuple[nn.Module, Any, Mapping[str, Mapping[int, str]]]:
    if not isinstance(made, tuple) or len(made) not in (2, 3):
        raise ModelError(f"{spec}() returned {type(made).__name__}, not a model with example inputs", _WANTED)
    module, examples, axes = (*made, {})[:3]
    if not isinstance(module, nn.Module):
        raise ModelError(f"{spec}() returned {type(module).__name__} where the module should be", _WANTED)
    if not isinstance(axes, Mapping) or not all(isinstance(value, Mapping) for value in axes.values()):
        raise ModelError(
            f"{spec}() returned dynamic axes that are no dict", "Give {input name: {axis: axis name}}."
        )
    return module, examples, axes


def _inputs(module: nn.Module, examples: Any, spec: str) -> dict[str, torch.Tensor]:
    """Return the example inputs by name, float32 or integer, with a batch of two."""
    parameters = inspect.signature(module.forward).parameters
    names = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if isinstance(examples, (torch.Tensor, np.ndarray)):
        examples = (examples,)
    if isinstance(examples, (tuple, list)):
        if len(examples) > len(names):
            raise ModelError(
                f"{spec}() gives {len(examples)} example inputs, but forward takes {len(names)}", _WANTED
            )
        examples = dict(zip(names, examples, strict=False))
    if not isinstance(examples, Mapping) or not examples:
        raise ModelError(f"{spec}() gives {type(examples).__name__} as example inputs", _WANTED)
    for name in examples:
        if name not in names and not takes_any:
            raise ModelError(
                f"{spec}() gives an input '{name}' that forward does not take", nearest(str(name), names)
            )
    required = [n for n in names if parameters[n].default is inspect.Parameter.empty and n not in examples]
    if required:
        raise ModelError(f"{spec}() gives no example for forward's argument '{required[0]}'")
    ordered = sorted(examples, key=lambda name: names.index(name) if name in names else len(names))
    inputs = {name: _tensor(name, examples[name], spec) for name in ordered}
    sizes = {name: len(tensor) for name, tensor in inputs.items()}
    if len(set(sizes.values())) != 1:
        raise ModelError(f"the example inputs of {spec} differ in axis 0, the batch: {sizes}")
    return {name: (torch.cat([t, t]) if len(t) == 1 else t[:2]).contiguous() for name, t in inputs.items()}


def _tensor(name: str, value: Any, spec: str) -> torch.Tensor:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if not isinstance(value, torch.Tensor):
        raise ModelError(f"{spec}() gives {type(value).__name__} as example input '{name}', not a tensor")
    if value.ndim == 0 or value.numel() == 0:
        raise ModelError(
            f"example input '{name}' of {spec} has shape {list(value.shape)}; axis 0 is the batch"
        )
    value = value.detach().to("cpu")
    return value.float() if value.is_floating_point() else value


def _axes(
    inputs: Mapping[str, torch.Tensor], more: Mapping[str, Mapping[int, str]], spec: str
) -> dict[str, dict[int, str]]:
    axes: dict[str, dict[int, str]] = {name: {0: "batch"} for name in inputs}
    for name, named_axes in more.items():
        if name not in inputs:
            raise ModelError(f"{spec}() names dynamic axes of '{name}'", nearest(str(name), inputs))
        for axis, label in named_axes.items():
            if (
                not isinstance(axis, int)
                or not 0 <= axis < inputs[name].ndim
                or not str(label).isidentifier()
            ):
                raise ModelError(
                    f"{spec}(): {axis!r}: {label!r} is no axis of '{name}' {list(inputs[name].shape)}",
                    "Give {input name: {axis: axis name}}, the axis counted from 0.",
                )
            if inputs[name].shape[axis] < 2:
                raise ModelError(
                    f"the dynamic axis {axis} ('{label}') of example input '{name}' has size 1",
                    "The exporter needs an example of at least 2 on every dynamic axis.",
                )
            axes[name][axis] = str(label)
    return axes


def _specs(arrays: dict[str, np.ndarray], axes: dict[str, dict[int, str]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, str(a.dtype), tuple(axes[name].get(axis, size) for axis, size in enumerate(a.shape)))
        for name, a in arrays.items()
    )


def _outputs(returned: dict[str | int, Any], task: str) -> tuple[dict[str, str | int], tuple[Skip, ...]]:
    """Return output name -> key of what the forward returns, and what is left out."""
    tensors = [key for key, value in returned.items() if isinstance(value, torch.Tensor)]
    left = [Skip(str(key), "it is no tensor") for key in returned if key not in tensors]
    if not tensors:
        raise ModelError("the model returns no tensor")
    wanted = _OUTPUT[task]
    if wanted is None:
        if tensors == [0]:
            return {"output": 0}, tuple(left)
        return {key if isinstance(key, str) else f"output_{key}": key for key in tensors}, tuple(left)
    key = wanted if wanted in tensors else tensors[0]
    if wanted not in tensors and len(tensors) > 1:
        raise ModelError(
            f"the model returns {len(tensors)} outputs, and the task {task} needs one called '{wanted}'",
            "Return a dict from forward, or use --task generic.",
        )
    left += [Skip(str(other), f"the task {task} does not use it") for other in tensors if other != key]
    return {wanted: key}, tuple(left)


def _weights_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def _digest(module: nn.Module) -> str:
    """Return a digest of the weights, the structure, and the source of the user's classes."""
    sha = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", repr(module)).encode())
    for kind in sorted({type(m) for m in module.modules()}, key=lambda k: (k.__module__, k.__qualname__)):
        if not kind.__module__.startswith("torch."):
            try:
                sha.update(inspect.getsource(kind).encode())
            except (OSError, TypeError):  # defined in an interpreter: the structure has to do
                sha.update(kind.__qualname__.encode())
    for name, tensor in module.state_dict().items():
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(
            tensor.contiguous().view(torch.uint8).numpy() if tensor.ndim else repr(tensor.item()).encode()
        )
    return sha.hexdigest()
