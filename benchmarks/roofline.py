"""What this machine's int8 and float matrix products reach in ONNX Runtime, and what MiniLM needs of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

SHAPES = ((128, 1536, 1536), (512, 1024, 1024))
"""(rows, depth, columns) of the products that are tried; the best rate counts."""


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one encoder run.

    Attributes:
        weights: In products with a constant weight: what int8 kernels can take.
        attention: In the two products of attention, whose operands are both computed.
    """

    weights: int
    attention: int

    def bound_ms(self, weight_rate: float, attention_rate: float) -> float:
        """Return the time that the products alone take at these rates, in multiply-adds per second."""
        return (self.weights / weight_rate + self.attention / attention_rate) * 1e3


def encoder_work(
    batch: int, length: int, *, layers: int = 6, hidden: int = 384, intermediate: int = 1536
) -> Work:
    """Return the work of a BERT encoder; by default all-MiniLM-L6-v2's."""
    rows = batch * length
    weights = layers * rows * (4 * hidden * hidden + 2 * hidden * intermediate)
    return Work(weights, layers * 2 * rows * length * hidden)


def write_product(path: Path, shape: tuple[int, int, int], *, integer: bool, seed: int = 0) -> None:
    """Write a model of one product [rows, depth] x [depth, columns] with a constant right operand.

    Args:
        path: Where to.
        shape: Rows, depth, columns.
        integer: uint8 x int8 (MatMulInteger) in place of float.
        seed: Of the weights.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rows, depth, columns = shape
    rng = np.random.default_rng(seed)
    if integer:
        weight = rng.integers(-127, 128, (depth, columns)).astype(np.int8)
    else:
        weight = rng.standard_normal((depth, columns)).astype(np.float32)
    node = helper.make_node("MatMulInteger" if integer else "MatMul", ["x", "w"], ["y"])
    kinds = (TensorProto.UINT8, TensorProto.INT32) if integer else (TensorProto.FLOAT, TensorProto.FLOAT)
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", kinds[0], [rows, depth])],
        [helper.make_tensor_value_info("y", kinds[1], [rows, columns])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))


def product_input(shape: tuple[int, int, int], *, integer: bool, seed: int = 1) -> np.ndarray:
    """Return a left operand [rows, depth] for a model of `write_product`."""
    rng = np.random.default_rng(seed)
    if integer:
        return rng.integers(0, 256, shape[:2]).astype(np.uint8)
    return rng.standard_normal(shape[:2]).astype(np.float32)


def rate(shape: tuple[int, int, int], ms: float) -> float:
    """Return multiply-adds per second."""
    rows, depth, columns = shape
    return rows * depth * columns / (ms / 1e3)
