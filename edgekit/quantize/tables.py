"""Embedding tables in 8 or 4 bits: only the rows that are read are turned back into float.

The 8-bit form has a scale per row, the 4-bit form one per block of a row. Both are made of standard
operators, so every runtime reads them; where a target says so, 4 bits are read by ONNX Runtime's own
operator `GatherBlockQuantized` instead. Tables that other nodes read too stay as they are: their float
numbers would be in the file anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit import graph as g
from edgekit.quantize.blocks import BLOCK, MIDDLE, BlockCodes, block_codes, codes_at
from edgekit.quantize.schemes import quantize_product_weight
from edgekit.quantize.trained import Handover
from edgekit.record import Skip
from edgekit.trained_scales import TableScales

_ROWS_AT_ONCE = 1 << 13
"""Of a table: its float copies on the way would otherwise take several times its size."""

# A table of this share of the largest one, such as that of positions, is read in every row of every text
# and saves next to nothing.
_SMALL = 1 / 8


@dataclass(frozen=True)
class StoredTable:
    """One table, and how it is stored.

    Attributes:
        name: Of the constant in the float graph.
        form: `int8` or `int4`.
        shape: Rows and columns.
        error: Energy of the error over the energy of the table.
        zero_points: Whether blocks have zero points of their own.
        bytes_saved: Against float32.
    """

    name: str
    form: str
    shape: tuple[int, int]
    error: float
    zero_points: bool
    bytes_saved: int


def store_tables(
    graph: ir.Graph,
    gathers: Sequence[ir.Node],
    *,
    int4: bool,
    operator: bool = False,
    handover: Handover | None = None,
) -> tuple[tuple[StoredTable, ...], tuple[Skip, ...]]:
    """Store the tables of some Gathers in few bits.

    Args:
        graph: Edited in place.
        gathers: Gathers along axis 0 of a constant float32 matrix.
        int4: 4 bits where that pays, else 8.
        operator: 4 bits are read by `GatherBlockQuantized`, not by standard operators.
        handover: Trained scales, which tables take as they are.

    Returns:
        What was stored, and what is not in the form that was asked for, with the reason.
    """
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in gathers:
        if node.inputs[0] is not None:
            readers.setdefault(node.inputs[0], []).append(node)
    largest = max((table.size for value in readers if (table := g.constant(value)) is not None), default=0)
    stored, skipped = [], []
    for value, nodes in readers.items():
        table, name = g.constant(value), value.name or "table"
        assert table is not None
        others = [node for node in g.consumers(value) if node not in nodes]
        if others or value.is_graph_output():
            also = f"{others[0].op_type} {others[0].name}" if others else "the caller"
            skipped.append(
                Skip(f"table {name}", f"{also} reads it too, in float, so the file holds it anyway")
            )
            continue
        why_8 = why_not_4_bits(table, largest) if int4 else ""
        if why_8:
            skipped.append(Skip(f"table {name} in 4 bits", f"{why_8}; it has 8"))
        form = "int4" if int4 and not why_8 else "int8"
        trained = handover.table(name, table, form) if handover is not None else None
        if form == "int4":
            stored.append(_in_4_bits(graph, nodes, name, table, trained, operator=operator))
        else:
            stored.append(_in_8_bits(graph, nodes, name, table))
    return tuple(stored), tuple(skipped)


def why_not_4_bits(table: np.ndarray, largest: int) -> str:
    """Return why a table is better off in 8 bits, or an empty string.

    Args:
        table: float32 [rows, columns].
        largest: Numbers in the largest table beside it.
    """
    if table.size < _SMALL * largest:
        return f"it is small beside the largest table ({table.size:,} of {largest:,} numbers)"
    blocks = -(-table.shape[1] // BLOCK)
    if blocks * (BLOCK // 2 + 2) >= table.shape[1] + 2:
        return f"rows of {table.shape[1]} numbers fill no block of {BLOCK}, so 4 bits save nothing"
    return ""


def _in_8_bits(graph: ir.Graph, nodes: Sequence[ir.Node], name: str, table: np.ndarray) -> StoredTable:
    """Make `Gather(table, ids)` into `Cast(Gather(codes, ids)) * Gather(scales, ids)`."""
    codes, scale = np.empty(table.shape, np.int8), np.empty(len(table), np.float32)
    lost = energy = 0.0
    for start in range(0, len(table), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        found = quantize_product_weight(table[part].T, per_channel=True, saturation_safe=False)
        codes[part], scale[part] = found[0].T, found[1]
        real = codes[part] * scale[part, None]
        lost += float(np.square(real - table[part], dtype=np.float64).sum())
        energy += float(np.square(table[part], dtype=np.float64).sum())
    held = g.add_constant(graph, f"{name}_quantized", codes)
    scales = g.add_constant(graph, f"{name}_scale", scale[:, None])
    for node, stem in zip(nodes, _stems(name, nodes), strict=True):
        rows = _made(ir.node("Gather", [held, node.inputs[1]], name=f"{stem}_rows"))
        cast = _made(ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{stem}_cast"))
        steps = _made(ir.node("Gather", [scales, node.inputs[1]], name=f"{stem}_scales"))
        real_rows = ir.node("Mul", [cast.outputs[0], steps.outputs[0]], name=f"{stem}_real")
        g.replace_node(graph, node, [rows, cast, steps, real_rows])
    saved = table.nbytes - codes.nbytes - scale.nbytes
    return StoredTable(name, "int8", _shape(table), lost / energy if energy else 0.0, False, saved)


def _in_4_bits(
    graph: ir.Graph,
    nodes: Sequence[ir.Node],
    name: str,
    table: np.ndarray,
    trained: TableScales | None,
    *,
    operator: bool,
) -> StoredTable:
    found = block_codes(table) if trained is None else codes_at(table, trained.scale, trained.zero_point)
    if operator:
        _by_operator(graph, nodes, name, found)
    else:
        _by_standard_operators(graph, nodes, name, found)
    blocks = found.scale.size
    held = found.codes.size // 2 + 2 * blocks + (blocks // 2 if found.zero_point is not None else 0)
    return StoredTable(
        name, "int4", _shape(table), found.error, found.zero_point is not None, table.nbytes - held
    )


def _by_operator(graph: ir.Graph, nodes: Sequence[ir.Node], name: str, found: BlockCodes) -> None:
    """Read the rows by ONNX Runtime's own operator.

    Its types int4 and uint4 are there since it is, uint8 with two codes came later and has no odd widths.
    Source: the runners ort-1.18.0 (none), ort-1.20.1 (the former), ort-1.23.2 (both).
    """
    graph.opset_imports["com.microsoft"] = 1
    own = found.zero_point is not None
    kind = ir.DataType.UINT4 if own else ir.DataType.INT4
    codes = found.codes.astype(np.int8) - (0 if own else MIDDLE)
    inputs = [
        g.add_constant(graph, f"{name}_quantized", codes.astype(kind.numpy())),
        g.add_constant(graph, f"{name}_scale", found.scale),
    ]
    if found.zero_point is not None:
        inputs.append(g.add_constant(graph, f"{name}_zero_point", found.zero_point.astype(kind.numpy())))
    attributes = {"block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1}
    for node, stem in zip(nodes, _stems(name, nodes), strict=True):
        read = ir.node(
            "GatherBlockQuantized",
            [inputs[0], node.inputs[1], *inputs[1:]],
            attributes,
            domain="com.microsoft",
            name=f"{stem}_rows",
        )
        g.replace_node(graph, node, [read])


def _by_standard_operators(graph: ir.Graph, nodes: Sequence[ir.Node], name: str, found: BlockCodes) -> None:
    """Read the rows with two codes in each byte: the first half of a block in the low bits.

    Rows are held as [blocks, BLOCK / 2], so that scales need no repeating; the rows' last blocks are filled
    up with zeros.
    """
    columns = found.codes.shape[1]
    blocks, half = found.scale.shape[1], BLOCK // 2
    filled = np.pad(found.codes, ((0, 0), (0, blocks * BLOCK - columns))).reshape(-1, blocks, BLOCK)
    packed = filled[..., :half] | (filled[..., half:] << 4)
    held = g.add_constant(graph, f"{name}_packed", packed)
    scales = g.add_constant(graph, f"{name}_scale", found.scale[..., None])
    low_bits = _shared(graph, "table_low_bits", np.array(15, np.uint8))
    shift = _shared(graph, "table_shift", np.array(4, np.uint8))
    width = _shared(graph, f"table_width_{blocks * BLOCK}", np.array([blocks * BLOCK], np.int64))
    middle = _shared(graph, "table_middle", np.array(MIDDLE, np.float32))
    zeros = None
    if found.zero_point is not None:
        zeros = g.add_constant(graph, f"{name}_zero_point", found.zero_point[..., None])
    for node, stem in zip(nodes, _stems(name, nodes), strict=True):
        ids, new = node.inputs[1], _Chain(stem)
        pairs = new.add("Gather", [held, ids], "rows")
        low = new.add("BitwiseAnd", [pairs, low_bits], "low")
        high = new.add("BitShift", [pairs, shift], "high", direction="RIGHT")
        both = new.add("Concat", [low, high], "codes", axis=-1)
        codes = new.add("Cast", [both], "cast", to=ir.DataType.FLOAT)
        offset = middle
        if zeros is not None:
            own = new.add("Gather", [zeros, ids], "zeros")
            offset = new.add("Cast", [own], "offset", to=ir.DataType.FLOAT)
        steps = new.add("Sub", [codes, offset], "steps")
        real = new.add("Mul", [steps, new.add("Gather", [scales, ids], "scales")], "blocks")
        shape = new.add("Concat", [new.add("Shape", [ids], "shape"), width], "joined", axis=0)
        joined = new.add("Reshape", [real, shape], "real")
        if blocks * BLOCK > columns:
            start, end, axis = (np.array([number], np.int64) for number in (0, columns, -1))
            cut = [_shared(graph, f"table_cut_{number[0]}", number) for number in (start, end, axis)]
            new.add("Slice", [joined, *cut], "cut")
        g.replace_node(graph, node, new.nodes)


@dataclass(frozen=True)
class _Chain:
    """Nodes in the order in which they are made, with names that begin alike."""

    stem: str
    nodes: list[ir.Node] = field(default_factory=list)

    def add(self, op: str, inputs: Sequence[ir.Value | None], what: str, **attributes: Any) -> ir.Value:
        """Append a node of one output and return that."""
        self.nodes.append(_made(ir.node(op, inputs, attributes, name=f"{self.stem}_{what}")))
        return self.nodes[-1].outputs[0]


def _shared(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Return the constant of a name and value, added where it is not there."""
    there = graph.initializers.get(name)
    held = g.constant(there)
    if there is not None and held is not None and held.dtype == array.dtype and np.array_equal(held, array):
        return there
    return g.add_constant(graph, name, array)


def _stems(name: str, nodes: Sequence[ir.Node]) -> list[str]:
    """Return a stem for the names of each reader's nodes."""
    return [name if index == 0 else f"{name}_{index + 1}" for index in range(len(nodes))]


def _made(node: ir.Node) -> ir.Node:
    node.outputs[0].name = f"{node.name}_value"
    return node


def _shape(table: np.ndarray) -> tuple[int, int]:
    rows, columns = table.shape
    return rows, columns
