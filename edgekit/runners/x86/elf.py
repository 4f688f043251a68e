"""Find the CPUID instructions of a shared library, so that nothing else is taken for one.

The two bytes of CPUID also turn up inside other instructions and in tables, so every place is decoded from
the beginning of its function. Where functions begin and end is told by the unwind table, which each compiled
function has; where it does not say, the library is refused.

Source: System V ABI, AMD64 supplement, 4.2.4 (.eh_frame); Linux Standard Base 5.0, 10.6 (.eh_frame_hdr).
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass

from edgekit.runners.x86.instructions import boundaries

CPUID = b"\x0f\xa2"
_LOAD, _UNWIND, _EXECUTABLE = 1, 0x6474E550, 1
_TABLE_OF_OFFSETS = 0x3B  # DW_EH_PE_datarel | DW_EH_PE_sdata4: what every linker writes


@dataclass(frozen=True)
class Segment:
    """A part of the file that is mapped into memory.

    Attributes:
        kind: Type of the program header.
        flags: Its access rights.
        offset: Where it lies in the file.
        address: Where it is mapped, relative to the library's base.
        size: Bytes in the file.
    """

    kind: int
    flags: int
    offset: int
    address: int
    size: int


def cpuid_places(library: bytes) -> tuple[tuple[int, int], ...]:
    """Return (address relative to the base, offset in the file) of each CPUID instruction, ascending.

    Args:
        library: An ELF shared library for x86-64.

    Raises:
        ValueError: It is no such file, or a place cannot be told from data.
    """
    segments = _segments(library)
    functions = _functions(library, segments)
    begins = [begin for begin, _ in functions]
    decoded: dict[int, frozenset[int]] = {}
    places = []
    for segment in segments:
        if segment.kind != _LOAD or not segment.flags & _EXECUTABLE:
            continue
        shift = segment.offset - segment.address
        at, end = library.find(CPUID, segment.offset), segment.offset + segment.size
        while 0 <= at < end - 1:
            nearest = bisect_right(begins, at - shift) - 1
            begin, behind = functions[nearest] if nearest >= 0 else (0, 0)
            if at - shift >= behind:
                raise ValueError(f"the bytes of CPUID at {at - shift:#x} are in no function")
            if begin not in decoded:
                decoded[begin] = frozenset(boundaries(library, begin + shift, behind + shift))
            if at in decoded[begin]:
                places.append((at - shift, at))
            at = library.find(CPUID, at + 1)
    return tuple(places)


def _segments(library: bytes) -> tuple[Segment, ...]:
    if library[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", library, 18) != (62,):
        raise ValueError("it is not an ELF library for x86-64")
    (table,), (size, count) = struct.unpack_from("<Q", library, 32), struct.unpack_from("<HH", library, 54)
    found = []
    for index in range(count):
        kind, flags, offset, address, _, held = struct.unpack_from("<IIQQQQ", library, table + index * size)
        found.append(Segment(kind, flags, offset, address, held))
    return tuple(found)


def _functions(library: bytes, segments: tuple[Segment, ...]) -> list[tuple[int, int]]:
    """Return (begin, end) of each function of the unwind table, ascending."""
    header = next((segment for segment in segments if segment.kind == _UNWIND), None)
    if header is None or library[header.offset + 3] != _TABLE_OF_OFFSETS:
        raise ValueError("it has no sorted unwind table")
    (count,) = struct.unpack_from("<I", library, header.offset + 8)
    found = []
    for begin, entry in struct.iter_unpack("<ii", library[header.offset + 12 :][: count * 8]):
        at = header.offset + entry  # the table and its entries lie in one segment
        relative, size = struct.unpack_from("<iI", library, at + 8)
        if header.address + entry + 8 + relative != header.address + begin:
            raise ValueError(f"its unwind table is of another kind: entry at {at:#x}")
        found.append((header.address + begin, header.address + begin + size))
    return sorted(found)
