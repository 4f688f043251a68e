"""Classes of A64 instructions, told apart by their fixed bits, with the multiply-adds that each one does.

The emulator's plugin gets the patterns as a table (`plugin_table`) and counts per pattern; `by_class` and
`multiply_adds` add those up. An instruction belongs to the first pattern that it matches.

Source: Arm Architecture Reference Manual for A-profile (DDI 0487), C4.1 "A64 instruction set encoding" for
the groups, C7.2 (Advanced SIMD and floating point) and C8.2 (SVE) for each named instruction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

CLASSES = (
    "sdot",
    "smmla",
    "smlal",
    "mla",
    "fmla",
    "bfmmla",
    "load",
    "store",
    "atomic",
    "branch",
    "simd",
    "integer",
)
"""`sdot` holds SDOT, UDOT, USDOT and SUDOT; `smmla` SMMLA, UMMLA and USMMLA; `smlal` the widening SMULL,
SMLAL, SMLSL and their unsigned forms; `mla` MUL, MLA and MLS of integers; `fmla` floating-point multiply-adds
of any width, scalar ones too; `bfmmla` those of bfloat16; `simd` all other vector and floating-point
instructions; `integer` the rest."""

_DOT_CLASSES = ("sdot", "smmla")
_INT8_CLASSES = (*_DOT_CLASSES, "smlal")
"""Where the multiply-adds of int8 matrix products run; `mla` holds the corrections for zero points."""


@dataclass(frozen=True)
class Pattern:
    """Instructions whose bits under `mask` are `value`.

    Attributes:
        kind: One of `CLASSES`.
        mask: The fixed bits.
        value: What they are.
        multiply_adds: What one of these does; 0 where it is no multiply-add. SVE: at 128 bits.
        what: The instruction or group, as the manual calls it.
    """

    kind: str
    mask: int
    value: int
    multiply_adds: int
    what: str


def _by_width(kind: str, mask: int, value: int, multiply_adds: int, what: str) -> tuple[Pattern, ...]:
    """Return a vector instruction in both widths (bit 30, Q): at 128 bits it does `multiply_adds`."""
    wide = 1 << 30
    return (
        Pattern(kind, mask | wide, value | wide, multiply_adds, what),
        Pattern(kind, mask | wide, value, multiply_adds // 2, what),
    )


def _by_size(
    kind: str, mask: int, value: int, multiply_adds: Sequence[int], what: str
) -> tuple[Pattern, ...]:
    """Return an instruction once per element size (bits 23:22) that it has: `multiply_adds` is not 0."""
    return tuple(
        Pattern(kind, mask | 3 << 22, value | size << 22, number, what)
        for size, number in enumerate(multiply_adds)
        if number
    )


_WIDENING = (8, 4, 2)
"""Elements of a 64-bit half by size: both the lower and the upper half's form take that many."""
_FULL = (16, 8, 4)
_FLOAT = 0xBFA0FC00

PATTERNS: tuple[Pattern, ...] = (
    *_by_width("sdot", 0xBFE0FC00, 0x0E809400, 16, "SDOT (vector)"),
    *_by_width("sdot", 0xBFE0FC00, 0x2E809400, 16, "UDOT (vector)"),
    *_by_width("sdot", 0xBFE0FC00, 0x0E809C00, 16, "USDOT (vector)"),
    *_by_width("sdot", 0xBFC0F400, 0x0F80E000, 16, "SDOT (by element)"),
    *_by_width("sdot", 0xBFC0F400, 0x2F80E000, 16, "UDOT (by element)"),
    *_by_width("sdot", 0xBFC0F400, 0x0F80F000, 16, "USDOT (by element)"),
    *_by_width("sdot", 0xBFC0F400, 0x0F00F000, 16, "SUDOT (by element)"),
    Pattern("smmla", 0xFFE0FC00, 0x4E80A400, 32, "SMMLA (vector)"),
    Pattern("smmla", 0xFFE0FC00, 0x6E80A400, 32, "UMMLA (vector)"),
    Pattern("smmla", 0xFFE0FC00, 0x4E80AC00, 32, "USMMLA (vector)"),
    Pattern("sdot", 0xFFE0F800, 0x44800000, 16, "SVE SDOT, UDOT (4-way, vectors)"),
    Pattern("sdot", 0xFFE0FC00, 0x44807800, 16, "SVE USDOT (vectors)"),
    Pattern("sdot", 0xFFE0F800, 0x44A00000, 16, "SVE SDOT, UDOT (4-way, indexed)"),
    Pattern("sdot", 0xFFE0F800, 0x44A01800, 16, "SVE USDOT, SUDOT (indexed)"),
    Pattern("smmla", 0xFFE0FC00, 0x45009800, 32, "SVE SMMLA"),
    Pattern("smmla", 0xFFE0FC00, 0x45809800, 32, "SVE USMMLA"),
    Pattern("smmla", 0xFFE0FC00, 0x45C09800, 32, "SVE UMMLA"),
    *_by_size("smlal", 0x9F20FC00, 0x0E208000, _WIDENING, "SMLAL, UMLAL and their upper halves (vector)"),
    *_by_size("smlal", 0x9F20FC00, 0x0E20A000, _WIDENING, "SMLSL, UMLSL and their upper halves (vector)"),
    *_by_size("smlal", 0x9F20FC00, 0x0E20C000, _WIDENING, "SMULL, UMULL and their upper halves (vector)"),
    *_by_size("smlal", 0x9F00F400, 0x0F002000, (0, 4, 2), "SMLAL, UMLAL (by element)"),
    *_by_size("smlal", 0x9F00F400, 0x0F006000, (0, 4, 2), "SMLSL, UMLSL (by element)"),
    *_by_size("smlal", 0xBF00F400, 0x0F00A000, (0, 4, 2), "SMULL (by element)"),
    *_by_size("smlal", 0xBF00F400, 0x2F00A000, (0, 4, 2), "UMULL (by element)"),
    *(
        pattern
        for base in _by_size("mla", 0x9F20FC00, 0x0E209400, _FULL, "MLA, MLS (vector)")
        for pattern in _by_width("mla", base.mask, base.value, base.multiply_adds, base.what)
    ),
    *(
        pattern
        for base in _by_size("mla", 0xBF20FC00, 0x0E209C00, _FULL, "MUL (vector)")
        for pattern in _by_width("mla", base.mask, base.value, base.multiply_adds, base.what)
    ),
    *(
        pattern
        for value, what in (
            (0x2F000000, "MLA (by element)"),
            (0x2F004000, "MLS (by element)"),
            (0x0F008000, "MUL (by element)"),
        )
        for base in _by_size("mla", 0xBF00F400, value, (0, 8, 4), what)
        for pattern in _by_width("mla", base.mask, base.value, base.multiply_adds, what)
    ),
    *_by_width("fmla", 0xBFE0FC00, 0x0E20CC00, 4, "FMLA (vector), single precision"),
    *_by_width("fmla", 0xBFE0FC00, 0x0EA0CC00, 4, "FMLS (vector), single precision"),
    Pattern("fmla", 0xFF60FC00, 0x4E60CC00, 2, "FMLA, FMLS (vector), double precision"),
    *_by_width("fmla", 0xBF60FC00, 0x0E400C00, 8, "FMLA, FMLS (vector), half precision"),
    *_by_width("fmla", 0xBFC0B400, 0x0F801000, 4, "FMLA, FMLS (by element), single precision"),
    Pattern("fmla", 0xFFC0B400, 0x4FC01000, 2, "FMLA, FMLS (by element), double precision"),
    *_by_width("fmla", 0xBFC0B400, 0x0F001000, 8, "FMLA, FMLS (by element), half precision"),
    Pattern("fmla", 0xFF80B400, 0x5F801000, 1, "FMLA, FMLS (scalar, by element)"),
    Pattern("fmla", 0xFF000000, 0x1F000000, 1, "FMADD, FMSUB, FNMADD, FNMSUB (scalar)"),
    Pattern("fmla", 0xFFE0C000, 0x65A00000, 4, "SVE FMLA, FMLS (vectors), single precision"),
    Pattern("fmla", 0xFFE0C000, 0x65A08000, 4, "SVE FMAD, FMSB, single precision"),
    Pattern("fmla", 0xFFE0F800, 0x64A00000, 4, "SVE FMLA, FMLS (indexed), single precision"),
    Pattern("bfmmla", 0xFFE0FC00, 0x6E40EC00, 16, "BFMMLA"),
    *_by_width("bfmmla", 0xBFE0FC00, 0x2E40FC00, 8, "BFDOT (vector)"),
    *_by_width("bfmmla", 0xBFC0F400, 0x0F40F000, 8, "BFDOT (by element)"),
    Pattern("load", 0x3B000000, 0x18000000, 0, "load literal"),
    Pattern("load", 0xBE400000, 0x0C400000, 0, "LD1 to LD4, multiple and single structures"),
    Pattern("store", 0xBE400000, 0x0C000000, 0, "ST1 to ST4, multiple and single structures"),
    Pattern("load", 0x3A400000, 0x28400000, 0, "LDP, LDNP"),
    Pattern("store", 0x3A400000, 0x28000000, 0, "STP, STNP"),
    Pattern("atomic", 0x3F000000, 0x08000000, 0, "exclusive, ordered, compare and swap"),
    Pattern("atomic", 0x3F200C00, 0x38200000, 0, "atomic memory operations"),
    Pattern("load", 0x3E400000, 0x3C400000, 0, "LDR, LDUR (vector)"),
    Pattern("store", 0x3E400000, 0x3C000000, 0, "STR, STUR (vector)"),
    Pattern("store", 0x3EC00000, 0x38000000, 0, "STR, STUR, STTR, STRB, STRH"),
    Pattern("load", 0x3E400000, 0x38400000, 0, "LDR, LDUR, LDTR, LDRB, LDRH"),
    Pattern("load", 0x3E800000, 0x38800000, 0, "LDRSB, LDRSH, LDRSW, PRFM"),
    Pattern("load", 0xFE000000, 0x84000000, 0, "SVE 32-bit gather and broadcast loads"),
    Pattern("load", 0xFE000000, 0xA4000000, 0, "SVE contiguous loads"),
    Pattern("load", 0xFE000000, 0xC4000000, 0, "SVE 64-bit gather loads"),
    Pattern("store", 0xFE000000, 0xE4000000, 0, "SVE stores"),
    Pattern("branch", 0x1C000000, 0x14000000, 0, "branches, exceptions, system"),
    Pattern("simd", 0x0E000000, 0x0E000000, 0, "other Advanced SIMD and floating point"),
    Pattern("simd", 0x1E000000, 0x04000000, 0, "other SVE"),
    Pattern("integer", 0x00000000, 0x00000000, 0, "the rest: integer data processing"),
)


def classify(word: int) -> Pattern:
    """Return the pattern of an instruction word."""
    return next(pattern for pattern in PATTERNS if word & pattern.mask == pattern.value)


def plugin_table() -> str:
    """Return the patterns as the plugin reads them: mask, value, place in `PATTERNS`."""
    return "".join(f"{p.mask:08x} {p.value:08x} {index}\n" for index, p in enumerate(PATTERNS))


def by_class(total: int, executed: Iterable[int]) -> dict[str, int]:
    """Add up counts per pattern.

    Args:
        total: All instructions.
        executed: Count of each of `PATTERNS`, in order.

    Returns:
        `total`, then every class that occurred, in the order of `CLASSES`.
    """
    sums = dict.fromkeys(CLASSES, 0)
    for pattern, count in zip(PATTERNS, executed, strict=True):
        sums[pattern.kind] += count
    return {"total": total, **{kind: count for kind, count in sums.items() if count}}


def multiply_adds(executed: Iterable[int]) -> Mapping[str, int]:
    """Return class -> multiply-adds done, for the classes that did any."""
    sums: dict[str, int] = {}
    for pattern, count in zip(PATTERNS, executed, strict=True):
        if pattern.multiply_adds and count:
            sums[pattern.kind] = sums.get(pattern.kind, 0) + count * pattern.multiply_adds
    return sums


def int8_share(done: Mapping[str, int]) -> float | None:
    """Return which share of int8 multiply-adds ran in SDOT or SMMLA; None where there were none at all.

    Args:
        done: What `multiply_adds` returns.
    """
    total = sum(done.get(kind, 0) for kind in _INT8_CLASSES)
    return sum(done.get(kind, 0) for kind in _DOT_CLASSES) / total if total else None
