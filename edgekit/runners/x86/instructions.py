"""Lengths of x86-64 instructions: enough to tell where one begins, whatever it does.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, chapter 2 (prefixes, ModRM,
SIB, VEX, EVEX) and appendix A (opcode maps); AMD64 Architecture Programmer's Manual, volume 6 (XOP).
"""

from __future__ import annotations

from collections.abc import Iterator

_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_INVALID = frozenset(b"\x06\x07\x0e\x16\x17\x1e\x1f\x27\x2f\x37\x3f\x60\x61\x82\x9a\xce\xd4\xd5\xd6\xea")
_MODRM = frozenset(
    [op for op in range(0x40) if op & 7 < 4]
    + [0x63, 0x69, 0x6B, *range(0x80, 0x90), 0xC0, 0xC1, 0xC6, 0xC7]
    + [*range(0xD0, 0xD4), *range(0xD8, 0xE0), 0xF6, 0xF7, 0xFE, 0xFF]
)
_IMM8 = frozenset(
    [op for op in range(0x40) if op & 7 == 4]
    + [0x6A, 0x6B, *range(0x70, 0x80), 0x80, 0x83, 0xA8, *range(0xB0, 0xB8), 0xC0, 0xC1, 0xC6, 0xCD]
    + [*range(0xE0, 0xE8), 0xEB]
)
_IMM32 = frozenset(
    [op for op in range(0x40) if op & 7 == 5] + [0x68, 0x69, 0x81, 0xA9, *range(0xB8, 0xC0), 0xC7]
)
"""Two bytes after an operand-size prefix without REX.W."""

_0F_BARE = frozenset(
    b"\x05\x06\x07\x08\x09\x0b\x0e\x30\x31\x32\x33\x34\x35\x37\x77"
    b"\xa0\xa1\xa2\xa8\xa9\xaa\xc8\xc9\xca\xcb\xcc\xcd\xce\xcf"
)
_0F_INVALID = frozenset(b"\x04\x0a\x0c\x24\x25\x26\x27\x36\x39\x3b\x3c\x3d\x3e\x3f\xa6\xa7")
_0F_IMM8 = frozenset([0x0F, 0x70, 0x71, 0x72, 0x73, 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6])


def boundaries(code: bytes, begin: int, end: int) -> Iterator[int]:
    """Yield where each instruction of a function begins.

    Args:
        code: Bytes that hold the function.
        begin: Where its first instruction is.
        end: Just behind its last one.

    Raises:
        ValueError: An opcode does not exist, or the last instruction does not stop at `end`: this is no code,
            or not the beginning of it.
    """
    at = begin
    while at < end:
        yield at
        at += length(code, at)
    if at != end:
        raise ValueError(f"an instruction reaches over the end at {end:#x}")


def length(code: bytes, at: int) -> int:
    """Return the bytes that the instruction at `at` takes.

    Raises:
        ValueError: There is no such instruction in 64-bit mode.
    """
    begin, narrow, address32, selects = at, False, False, False
    while (op := code[at]) in _PREFIXES:
        narrow |= op == 0x66
        address32 |= op == 0x67
        selects |= op in (0x66, 0xF2)
        at += 1
    wide = False
    if op & 0xF0 == 0x40:  # REX
        wide, at = bool(op & 8), at + 1
        op = code[at]
    if op in (0xC4, 0xC5, 0x62) or (op == 0x8F and code[at + 1] & 0x1F >= 8):
        return _vector_end(code, at) - begin
    immediate_bytes = 2 if narrow and not wide else 4
    at += 1
    if op == 0x0F:
        return _two_byte_end(code, at, selects, immediate_bytes) - begin
    if op in _INVALID:
        raise ValueError(f"there is no opcode {op:#04x} at {begin:#x}")
    modrm = code[at] if op in _MODRM else 0
    if op in _MODRM:
        at = _operand_end(code, at)
    if op in _IMM8:
        at += 1
    elif op in _IMM32:
        at += 8 if wide and 0xB8 <= op < 0xC0 else immediate_bytes
    elif op in (0xE8, 0xE9):
        at += 4
    elif 0xA0 <= op < 0xA4:
        at += 4 if address32 else 8
    elif op in (0xC2, 0xCA):
        at += 2
    elif op == 0xC8:
        at += 3
    elif op in (0xF6, 0xF7) and modrm & 0x30 == 0:  # TEST; the others of the group have no immediate
        at += 1 if op == 0xF6 else immediate_bytes
    return at - begin


def _two_byte_end(code: bytes, at: int, selects: bool, immediate_bytes: int) -> int:
    op = code[at]
    if op == 0x38:
        return _operand_end(code, at + 2)
    if op == 0x3A:
        return _operand_end(code, at + 2) + 1
    if op in _0F_INVALID:
        raise ValueError(f"there is no opcode 0f {op:02x} at {at - 1:#x}")
    at += 1
    if op in _0F_BARE:
        return at
    if op & 0xF0 == 0x80:  # Jcc
        return at + immediate_bytes
    if op == 0x78 and selects:  # EXTRQ, INSERTQ of SSE4a
        return _operand_end(code, at) + 2
    return _operand_end(code, at) + (op in _0F_IMM8)


def _vector_end(code: bytes, at: int) -> int:
    """Return the end of a VEX, EVEX or XOP instruction whose first prefix byte is at `at`."""
    lead = code[at]
    opcode_map = 1 if lead == 0xC5 else code[at + 1] & (7 if lead == 0x62 else 0x1F)
    at += {0xC5: 2, 0xC4: 3, 0x8F: 3, 0x62: 4}[lead]
    op = code[at]
    at += 1
    if opcode_map == 1 and op == 0x77 and lead != 0x62:  # VZEROUPPER
        return at
    if opcode_map not in (1, 2, 3, 5, 6, 8, 9, 10):
        raise ValueError(f"there is no opcode map {opcode_map} at {at:#x}")
    immediate_bytes = {3: 1, 8: 1, 10: 4}.get(opcode_map, op in _0F_IMM8 if opcode_map == 1 else 0)
    return _operand_end(code, at) + immediate_bytes


def _operand_end(code: bytes, at: int) -> int:
    """Return what lies behind the ModRM byte at `at`, with its SIB byte and displacement."""
    mode, base = code[at] >> 6, code[at] & 7
    at += 1
    if mode == 3:
        return at
    if base == 4:
        base = code[at] & 7
        at += 1
    if mode == 1:
        return at + 1
    return at + 4 if mode == 2 or base == 5 else at
