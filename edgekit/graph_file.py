"""ONNX files, weight by weight: read when a weight is asked for, written from where it lies.

Protobuf's own reader and writer hold all weights two and three times at once. Here only what is around them
goes through protobuf: large weights are left out before it reads, and put in after it has written. The bytes
are the same.

Source: protobuf encoding documentation (tags, varints, lengths); onnx.proto, field numbers.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

LARGE_BYTES = 1 << 16
"""Weights from here on stay in the file until they are asked for."""

_GRAPH, _INITIALIZER, _DATA_TYPE, _RAW_DATA = 7, 5, 2, 9  # numbers of ModelProto, GraphProto, TensorProto
_VARINT, _EIGHT_BYTES, _SIZED, _FOUR_BYTES = 0, 1, 2, 5  # how long a field is
# Types whose numbers lie in the file as numpy holds them; 4-bit ones do not.
_PLAIN = {int(d) for d in ir.DataType if (d.is_floating_point() or d.is_integer()) and d.bitwidth >= 8}

_Place = tuple[int, int]
"""Where bytes lie in a file, and how many."""


def read_model(path: Path) -> ir.Model:
    """Return the model in a file; its large weights are read anew whenever they are asked for.

    The file has to stay as it is while the model is used.

    Raises:
        Exception: The file is not an ONNX model; protobuf, onnx_ir and the file system each raise their own.
    """
    try:
        skeleton, places = _without_weights(path)
        proto = onnx.ModelProto.FromString(skeleton)
    except Exception:  # protobuf's error has no public name; the usual reader says what is wrong
        return ir.load(path)
    model = ir.serde.deserialize_model(proto)
    ir.external_data.set_base_dir(model.graph, path.parent)
    for tensor, place in zip(proto.graph.initializer, places, strict=True):
        if place is None:
            continue
        value = model.graph.initializers[tensor.name]
        assert value.const_value is not None
        if value.const_value.nbytes != place[1]:
            return ir.load(path)
        value.const_value = _in_file(path, place, value.const_value)
    return model


def write_model(model: ir.Model, file: BinaryIO) -> None:
    """Write a model with its weights inside; the same model always makes the same bytes.

    Args:
        model: Afterwards it is as it was before.
        file: A real file, open for writing.
    """
    weights = {
        name: value for name, value in model.graph.initializers.items() if value.const_value is not None
    }
    proto = _around(model, set(weights))
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    around = proto.SerializeToString(deterministic=True)
    parts = [_parts(value) for value in weights.values()]
    sizes = [len(head) + (tensor.nbytes if tensor is not None else 0) for head, tensor in parts]
    inside = sum(len(_sized(_INITIALIZER, size)) + size for size in sizes)
    before, first = _end_before(around, _GRAPH), _end_before(graph, _INITIALIZER)
    file.write(around[:before] + _sized(_GRAPH, len(graph) + inside) + graph[:first])
    for (head, tensor), size in zip(parts, sizes, strict=True):
        file.write(_sized(_INITIALIZER, size) + head)
        if tensor is not None:
            _write_numbers(tensor, file)
    file.write(graph[first:] + around[before:])


def _without_weights(path: Path) -> tuple[bytes, list[_Place | None]]:
    """Return the file's bytes without its large weights, and for each initializer where its numbers lie."""
    places: list[_Place | None] = []
    out: list[bytes] = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for number, start, value, end in _fields(data, 0, len(data)):
            if number != _GRAPH:
                out.append(data[start:end])
                continue
            inside = []
            for inner, begin, content, stop in _fields(data, value, end):
                cut = _numbers(data, content, stop) if inner == _INITIALIZER else None
                if inner == _INITIALIZER:
                    places.append((cut[1], cut[2] - cut[1]) if cut else None)
                if cut is None:
                    inside.append(data[begin:stop])
                else:
                    kept = data[content : cut[0]] + data[cut[2] : stop]
                    inside.append(_sized(_INITIALIZER, len(kept)) + kept)
            out.append(_sized(_GRAPH, sum(map(len, inside))) + b"".join(inside))
    return b"".join(out), places


def _numbers(data: mmap.mmap, start: int, end: int) -> tuple[int, int, int] | None:
    """Return start, value and end of the field with a large weight's numbers; None for another weight."""
    found, plain = None, False
    for number, begin, value, stop in _fields(data, start, end):
        if number == _DATA_TYPE:
            plain = _varint(data, value)[0] in _PLAIN
        elif number == _RAW_DATA and stop - value >= LARGE_BYTES:
            found = begin, value, stop
    return found if plain else None


def _fields(data: mmap.mmap | bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, start, start of the value and end of each field of a message."""
    while start < end:
        key, value = _varint(data, start)
        kind, stop = key & 7, 0
        if kind == _VARINT:
            stop = _varint(data, value)[1]
        elif kind == _SIZED:
            size, value = _varint(data, value)
            stop = value + size
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            stop = value + (8 if kind == _EIGHT_BYTES else 4)
        if not value <= stop <= end:
            raise ValueError("not a message of protobuf")
        yield key >> 3, start, value, stop
        start = stop


def _varint(data: mmap.mmap | bytes, at: int) -> tuple[int, int]:
    """Return the number at a place and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        number, at, shift = number | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return number, at


def _sized(number: int, size: int) -> bytes:
    """Return what stands before the `size` bytes of a field."""
    out = bytearray([number << 3 | _SIZED])
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out)


def _end_before(data: bytes, number: int) -> int:
    """Return where the fields below a number end; protobuf writes fields in the order of their numbers."""
    return next((start for found, start, _, _ in _fields(data, 0, len(data)) if found >= number), len(data))


def _in_file(path: Path, place: _Place, like: ir.TensorProtocol) -> ir.LazyTensor:
    shape = tuple(like.shape.numpy())
    read = partial(_read, path, place[0], like.dtype, shape)
    return ir.LazyTensor(read, like.dtype, ir.Shape(shape), name=like.name, doc_string=like.doc_string)


def _read(path: Path, offset: int, dtype: ir.DataType, shape: tuple[int, ...]) -> ir.TensorProtocol:
    count = int(np.prod(shape))
    return ir.Tensor(np.fromfile(path, dtype.numpy(), count, offset=offset).reshape(shape), dtype)


def _around(model: ir.Model, names: set[str]) -> onnx.ModelProto:
    """Return a model as protobuf holds it, but for its weights.

    Types of constants are left out too: 80 bytes each, and they stand in the constants.
    """
    held = dict(model.graph.initializers)
    model.graph.initializers.clear()
    try:
        ir.external_data.load_to_model(model)  # weights in the bodies of loops and branches
        proto = ir.serde.serialize_model(model)
    finally:
        model.graph.initializers.update(held)
    typed = [info for info in proto.graph.value_info if info.name not in names]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(typed)
    return proto


def _parts(value: ir.Value) -> tuple[bytes, ir.TensorProtocol | None]:
    """Return a weight's message up to its numbers, and what holds those; None where they are in it."""
    tensor = value.const_value
    assert tensor is not None
    tensor.name = value.name
    if (
        isinstance(tensor, (ir.TensorProtoTensor, ir.StringTensor))
        or tensor.doc_string
        or tensor.metadata_props
    ):
        return ir.serde.serialize_tensor(tensor).SerializeToString(deterministic=True), None
    proto = onnx.TensorProto(
        data_type=int(tensor.dtype), dims=[int(size) for size in tensor.shape.numpy()], name=value.name
    )
    return proto.SerializeToString(deterministic=True) + _sized(_RAW_DATA, tensor.nbytes), tensor


def _write_numbers(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    if isinstance(tensor, ir.ExternalTensor):
        tensor.tofile(file)  # from file to file
        return
    array = tensor.numpy()
    if array.nbytes == tensor.nbytes:
        # Not as `array.tofile`, whose error does not say that the disk is full.
        file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    else:
        file.write(tensor.tobytes())  # 4-bit numbers, two to a byte
