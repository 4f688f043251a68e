"""Who makes and who reads the values of a graph, past the nodes that only move them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from edgekit.validate.explanation.multiply_adds import INT8_PRODUCTS

QUANTIZE = ("QuantizeLinear", "DynamicQuantizeLinear")
MOVES = frozenset(
    {
        *("Reshape", "Transpose", "Split", "Concat", "Slice", "Gather", "GatherND", "GatherElements", "Tile"),
        *("Squeeze", "Unsqueeze", "Expand", "Flatten", "Identity", "Pad"),
    }
)
"""Ops that move values and compute none."""


@dataclass(frozen=True)
class Wiring:
    """Who makes and who reads each value of the optimized graph.

    Attributes:
        constants: Names of the values that are stored in the file.
        producers: Value -> node that makes it.
        readers: Value -> nodes that read it.
        outputs: Names of the graph's outputs.
    """

    constants: frozenset[str]
    producers: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, tuple[onnx.NodeProto, ...]]
    outputs: frozenset[str]

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> Wiring:
        """Read the wiring of a graph."""
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                readers.setdefault(name, []).append(node)
        return cls(
            frozenset(tensor.name for tensor in graph.initializer),
            {name: node for node in graph.node for name in node.output},
            {name: tuple(found) for name, found in readers.items()},
            frozenset(value.name for value in graph.output),
        )

    def is_constant(self, name: str) -> bool:
        """Return whether a value is stored in the file, as it is or as codes."""
        if name in self.constants:
            return True
        maker = self.producers.get(name)
        return maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in self.constants

    def maker(self, node: onnx.NodeProto, index: int) -> str:
        """Return the op type that makes an input, or an empty string."""
        name = node.input[index] if len(node.input) > index else ""
        return self.producers[name].op_type if name in self.producers else ""

    def origin(self, name: str) -> onnx.NodeProto | None:
        """Return the node that computes a value, past those that only move it."""
        maker = self.producers.get(name)
        while maker is not None and maker.op_type in MOVES:
            maker = self.producers.get(maker.input[0])
        return maker

    def users(self, name: str) -> list[onnx.NodeProto]:
        """Return the nodes that compute with a value, past those that only move it."""
        found: list[onnx.NodeProto] = []
        for reader in self.readers.get(name, ()):
            found += self.users(reader.output[0]) if reader.op_type in MOVES else [reader]
        return found

    @property
    def quantized(self) -> bool:
        """Whether anything in the graph is in 8 bits."""
        return any(n.op_type in INT8_PRODUCTS or n.op_type in QUANTIZE for n in self.producers.values())
