"""What convolutions read, in pieces small enough to keep: their windows at random places of a few inputs.

On windows a convolution is a matrix product, padding, strides and groups included. So what a form of it
loses can be measured without running a graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.quantize.observe import Batch, observe
from edgekit.quantize.plan import Plan, transposed

INPUTS_KEPT = 64
"""Inputs that windows are taken from; a 224x224 image has 0.6 MB."""
_PLACES = 32
_BYTES_PER_NODE = 2**22


@dataclass
class KeptInputs:
    """The inputs with the lowest digests: the same ones, whatever the order of the data.

    Attributes:
        by_digest: Digest -> input.
    """

    by_digest: dict[int, Batch] = field(default_factory=dict)

    def offer(self, digest: int, batch: Batch) -> None:
        """Keep an input if its digest is among the lowest so far."""
        if len(self.by_digest) < INPUTS_KEPT or digest < max(self.by_digest):
            self.by_digest[digest] = batch
        if len(self.by_digest) > INPUTS_KEPT:
            del self.by_digest[max(self.by_digest)]

    def in_order(self) -> tuple[Batch, ...]:
        """Return the inputs, lowest digest first."""
        return tuple(self.by_digest[digest] for digest in sorted(self.by_digest))


@dataclass(frozen=True)
class Samples:
    """Pieces of tensors, in the order of the inputs that they came from.

    Attributes:
        vectors: Tensor name -> one number per channel at random places, float32 [n, channels].
        windows: Name of a node's output -> what the node adds up there, float32 [n, channels, terms].
    """

    vectors: Mapping[str, np.ndarray]
    windows: Mapping[str, np.ndarray]


def take_samples(path: Path, plan: Plan, inputs: Sequence[Batch]) -> Samples:
    """Run the float graph on a few inputs and keep pieces of what its convolutional regions hold.

    Args:
        path: The float graph.
        plan: What is quantized of it.
        inputs: A few batches.
    """
    names = {value.name or "" for value in plan.tensors.values()}
    nodes = [node for node in (*plan.convs, *plan.on_codes) if _measurable(node)]
    read = {_name(node.inputs[0]) for node in nodes}
    vectors: dict[str, list[np.ndarray]] = {}
    windows: dict[str, list[np.ndarray]] = {}
    rng = np.random.default_rng(0)
    for _, values in observe(path, sorted(names | read), inputs) if inputs else ():
        for name in sorted(names):
            x = np.moveaxis(values[name], 1, -1).reshape(-1, values[name].shape[1])
            places = rng.integers(0, len(x), _places(x.shape[1], len(inputs)))
            vectors.setdefault(name, []).append(x[places].astype(np.float32))
        for node in nodes:
            found = windows_of(node, values[_name(node.inputs[0])], rng, len(inputs))
            windows.setdefault(_name(node.outputs[0]), []).append(found)
    return Samples(_joined(vectors), _joined(windows))


def windows_of(node: ir.Node, x: np.ndarray, rng: np.random.Generator, inputs: int = 1) -> np.ndarray:
    """Return what a convolution or Gemm adds up at random places of its output.

    Args:
        node: With a constant weight and pads that are numbers.
        x: What it reads, [batch, channels, ...].
        rng: Picks the places.
        inputs: How many inputs share the memory that a node may take.

    Returns:
        float32 [n, channels, terms]; `products` of it and the weight is the output there, less the bias.
    """
    weight = g.constant(node.inputs[1])
    assert weight is not None
    kernel = weight.shape[2:] if node.op_type == "Conv" else ()
    axes = len(kernel)
    pads = _ints(node, "pads", [0] * 2 * axes)
    strides, dilations = _ints(node, "strides", [1] * axes), _ints(node, "dilations", [1] * axes)
    padded = np.pad(x, [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)])
    places = [len(x)]
    for axis in range(axes):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        places.append((padded.shape[2 + axis] - reach) // strides[axis] + 1)
    count = _places(x.shape[1] * math.prod(kernel), inputs)
    at = np.unravel_index(rng.integers(0, math.prod(places), count), places)
    index = [at[0].reshape(-1, *[1] * axes)]
    for axis in range(axes):
        offsets = (dilations[axis] * np.arange(kernel[axis])).reshape([-1, *[1] * (axes - axis - 1)])
        index.append((at[axis + 1] * strides[axis]).reshape(-1, *[1] * axes) + offsets)
    found = np.moveaxis(padded, 1, -1)[tuple(index)]  # [n, *kernel, channels]
    return np.moveaxis(found, -1, 1).reshape(count, x.shape[1], -1).astype(np.float32)


def products(windows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Multiply windows with a weight, group by group.

    Args:
        windows: [n, channels, terms].
        weight: [outputs, channels of a group, terms].

    Returns:
        float32 [n, outputs].
    """
    n, channels, terms = windows.shape
    outputs, own, _ = weight.shape
    groups = channels // own
    rows = windows.reshape(n, groups, own * terms).transpose(1, 0, 2)
    columns = weight.reshape(groups, outputs // groups, own * terms).transpose(0, 2, 1)
    return np.matmul(rows, columns).transpose(1, 0, 2).reshape(n, outputs)


def kernel_weight(node: ir.Node) -> np.ndarray:
    """Return the weight of a Conv or Gemm as [outputs, channels of a group, terms], float32."""
    weight = g.constant(node.inputs[1])
    assert weight is not None
    if node.op_type == "Gemm":
        return (weight if transposed(node) else weight.T)[:, :, None]
    return weight.reshape(*weight.shape[:2], -1)


def as_stored(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    """Return a weight of `kernel_weight`'s shape as the node holds it; the inverse of `kernel_weight`."""
    old = g.constant(node.inputs[1])
    assert old is not None
    flat = node.op_type == "Gemm" and not transposed(node)
    return (weight[:, :, 0].T if flat else weight).reshape(old.shape)


def _measurable(node: ir.Node) -> bool:
    return "auto_pad" not in node.attributes or node.attributes["auto_pad"].as_string() in ("NOTSET", "VALID")


def _places(numbers: int, inputs: int) -> int:
    return int(np.clip(_BYTES_PER_NODE // (4 * numbers * inputs), 4, _PLACES))


def _ints(node: ir.Node, name: str, default: list[int]) -> list[int]:
    return list(node.attributes[name].as_ints()) if name in node.attributes else default


def _joined(parts: Mapping[str, Iterable[np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate(list(pieces)) for name, pieces in parts.items()}


def _name(value: ir.Value | None) -> str:
    return (value.name if value is not None else None) or ""
