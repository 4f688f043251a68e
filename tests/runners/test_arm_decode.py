"""Instruction words fall into their class: words that an assembler made, and laws of the patterns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.runners.arm.decode import (
    CLASSES,
    PATTERNS,
    by_class,
    classify,
    int8_share,
    multiply_adds,
    plugin_table,
)

WORDS = (
    ("sdot", 16, 0x4E829420, "sdot v0.4s, v1.16b, v2.16b"),
    ("sdot", 8, 0x0E829420, "sdot v0.2s, v1.8b, v2.8b"),
    ("sdot", 16, 0x6E82943F, "udot v31.4s, v1.16b, v2.16b"),
    ("sdot", 16, 0x4E829C20, "usdot v0.4s, v1.16b, v2.16b"),
    ("sdot", 16, 0x4FA2E820, "sdot v0.4s, v1.16b, v2.4b[3]"),
    ("sdot", 16, 0x6FBFE3D0, "udot v16.4s, v30.16b, v31.4b[1]"),
    ("sdot", 8, 0x2FBFE3D0, "udot v16.2s, v30.8b, v31.4b[1]"),
    ("sdot", 16, 0x4F82F020, "usdot v0.4s, v1.16b, v2.4b[0]"),
    ("sdot", 16, 0x4F02F820, "sudot v0.4s, v1.16b, v2.4b[2]"),
    ("smmla", 32, 0x4E82A420, "smmla v0.4s, v1.16b, v2.16b"),
    ("smmla", 32, 0x6E82A420, "ummla v0.4s, v1.16b, v2.16b"),
    ("smmla", 32, 0x4E82AC20, "usmmla v0.4s, v1.16b, v2.16b"),
    ("sdot", 16, 0x44820020, "sdot z0.s, z1.b, z2.b"),
    ("sdot", 16, 0x44820420, "udot z0.s, z1.b, z2.b"),
    ("sdot", 16, 0x44827820, "usdot z0.s, z1.b, z2.b"),
    ("sdot", 16, 0x44AA0020, "sdot z0.s, z1.b, z2.b[1]"),
    ("sdot", 16, 0x44AA1C20, "sudot z0.s, z1.b, z2.b[1]"),
    ("smmla", 32, 0x45029820, "smmla z0.s, z1.b, z2.b"),
    ("smmla", 32, 0x45829820, "usmmla z0.s, z1.b, z2.b"),
    ("smmla", 32, 0x45C29820, "ummla z0.s, z1.b, z2.b"),
    ("smlal", 8, 0x0E228020, "smlal v0.8h, v1.8b, v2.8b"),
    ("smlal", 8, 0x6E228020, "umlal2 v0.8h, v1.16b, v2.16b"),
    ("smlal", 4, 0x0E628020, "smlal v0.4s, v1.4h, v2.4h"),
    ("smlal", 2, 0x6EA2A020, "umlsl2 v0.2d, v1.4s, v2.4s"),
    ("smlal", 8, 0x0E22C020, "smull v0.8h, v1.8b, v2.8b"),
    ("smlal", 8, 0x6E22C020, "umull2 v0.8h, v1.16b, v2.16b"),
    ("smlal", 4, 0x2F722820, "umlal v0.4s, v1.4h, v2.h[7]"),
    ("smlal", 4, 0x4F422020, "smlal2 v0.4s, v1.8h, v2.h[0]"),
    ("smlal", 4, 0x0F72A020, "smull v0.4s, v1.4h, v2.h[3]"),
    ("smlal", 2, 0x6FA2A820, "umull2 v0.2d, v1.4s, v2.s[3]"),
    ("smlal", 4, 0x0F726020, "smlsl v0.4s, v1.4h, v2.h[3]"),
    ("mla", 16, 0x4E229420, "mla v0.16b, v1.16b, v2.16b"),
    ("mla", 8, 0x4E629C20, "mul v0.8h, v1.8h, v2.8h"),
    ("mla", 2, 0x2EA29420, "mls v0.2s, v1.2s, v2.2s"),
    ("mla", 4, 0x6FA20020, "mla v0.4s, v1.4s, v2.s[1]"),
    ("mla", 4, 0x0F528020, "mul v0.4h, v1.4h, v2.h[1]"),
    ("fmla", 4, 0x4E22CC20, "fmla v0.4s, v1.4s, v2.4s"),
    ("fmla", 2, 0x0E22CC20, "fmla v0.2s, v1.2s, v2.2s"),
    ("fmla", 4, 0x4EA2CC20, "fmls v0.4s, v1.4s, v2.4s"),
    ("fmla", 2, 0x4E62CC20, "fmla v0.2d, v1.2d, v2.2d"),
    ("fmla", 8, 0x4E420C20, "fmla v0.8h, v1.8h, v2.8h"),
    ("fmla", 4, 0x4FA21820, "fmla v0.4s, v1.4s, v2.s[3]"),
    ("fmla", 2, 0x4FC21820, "fmla v0.2d, v1.2d, v2.d[1]"),
    ("fmla", 8, 0x4F321820, "fmla v0.8h, v1.8h, v2.h[7]"),
    ("fmla", 1, 0x5FA21020, "fmla s0, s1, v2.s[1]"),
    ("fmla", 1, 0x1F020C20, "fmadd s0, s1, s2, s3"),
    ("fmla", 1, 0x1F628C20, "fnmsub d0, d1, d2, d3"),
    ("fmla", 4, 0x65A20020, "fmla z0.s, p0/m, z1.s, z2.s"),
    ("fmla", 4, 0x65A28020, "fmad z0.s, p0/m, z1.s, z2.s"),
    ("fmla", 4, 0x64AA0020, "fmla z0.s, z1.s, z2.s[1]"),
    ("bfmmla", 16, 0x6E42EC20, "bfmmla v0.4s, v1.8h, v2.8h"),
    ("bfmmla", 8, 0x6E42FC20, "bfdot v0.4s, v1.8h, v2.8h"),
    ("bfmmla", 8, 0x4F62F020, "bfdot v0.4s, v1.8h, v2.2h[1]"),
    ("load", 0, 0xF9400420, "ldr x0, [x1, #8]"),
    ("load", 0, 0xB8804420, "ldrsw x0, [x1], #4"),
    ("load", 0, 0x38624820, "ldrb w0, [x1, w2, uxtw]"),
    ("load", 0, 0x3DC00420, "ldr q0, [x1, #16]"),
    ("load", 0, 0xBC404420, "ldr s0, [x1], #4"),
    ("load", 0, 0x3CDF0023, "ldur q3, [x1, #-16]"),
    ("load", 0, 0xACC10440, "ldp q0, q1, [x2], #32"),
    ("load", 0, 0xA8C17BFD, "ldp x29, x30, [sp], #16"),
    ("load", 0, 0x4CDFA000, "ld1 {v0.16b, v1.16b}, [x0], #32"),
    ("load", 0, 0x4D40C800, "ld1r {v0.4s}, [x0]"),
    ("load", 0, 0x58000000, "ldr x0, ."),
    ("load", 0, 0xF9802000, "prfm pldl1keep, [x0, #64]"),
    ("load", 0, 0xA540A000, "ld1w {z0.s}, p0/z, [x0]"),
    ("load", 0, 0xA4002000, "ld1rqb {z0.b}, p0/z, [x0]"),
    ("load", 0, 0x85014000, "ld1w {z0.s}, p0/z, [x0, z1.s, uxtw]"),
    ("store", 0, 0xF9000420, "str x0, [x1, #8]"),
    ("store", 0, 0x78002420, "strh w0, [x1], #2"),
    ("store", 0, 0x3D800420, "str q0, [x1, #16]"),
    ("store", 0, 0xFC226820, "str d0, [x1, x2]"),
    ("store", 0, 0xAD010440, "stp q0, q1, [x2, #32]"),
    ("store", 0, 0xA9BF7BFD, "stp x29, x30, [sp, #-16]!"),
    ("store", 0, 0x4C9F7800, "st1 {v0.4s}, [x0], #16"),
    ("store", 0, 0xE540E000, "st1w {z0.s}, p0, [x0]"),
    ("atomic", 0, 0xC85F7C20, "ldxr x0, [x1]"),
    ("atomic", 0, 0x889FFC20, "stlr w0, [x1]"),
    ("atomic", 0, 0xF8E00041, "ldaddal x0, x1, [x2]"),
    ("branch", 0, 0x14000000, "b ."),
    ("branch", 0, 0x54000001, "b.ne ."),
    ("branch", 0, 0xB4000000, "cbz x0, ."),
    ("branch", 0, 0x37180000, "tbnz x0, #3, ."),
    ("branch", 0, 0xD63F0020, "blr x1"),
    ("branch", 0, 0xD65F03C0, "ret"),
    ("branch", 0, 0xD4000001, "svc #0"),
    ("simd", 0, 0x6E22DC20, "fmul v0.4s, v1.4s, v2.4s"),
    ("simd", 0, 0x1E222820, "fadd s0, s1, s2"),
    ("simd", 0, 0x4FA29020, "fmul v0.4s, v1.4s, v2.s[1]"),
    ("simd", 0, 0x4E606820, "sadalp v0.4s, v1.8h"),
    ("simd", 0, 0x4EA28420, "add v0.4s, v1.4s, v2.4s"),
    ("simd", 0, 0x4EA24420, "sshl v0.4s, v1.4s, v2.4s"),
    ("simd", 0, 0x4E010C20, "dup v0.16b, w1"),
    ("simd", 0, 0x4E020020, "tbl v0.16b, {v1.16b}, v2.16b"),
    ("simd", 0, 0x4E21D820, "scvtf v0.4s, v1.4s"),
    ("simd", 0, 0x1E270020, "fmov s0, w1"),
    ("simd", 0, 0x1E212000, "fcmp s0, s1"),
    ("simd", 0, 0x6E024020, "ext v0.16b, v1.16b, v2.16b, #8"),
    ("simd", 0, 0x6EA2B420, "sqrdmulh v0.4s, v1.4s, v2.4s"),
    ("simd", 0, 0x65820020, "fadd z0.s, z1.s, z2.s"),
    ("simd", 0, 0x2598E3E0, "ptrue p0.s"),
    ("integer", 0, 0x8B020020, "add x0, x1, x2"),
    ("integer", 0, 0xF1002020, "subs x0, x1, #8"),
    ("integer", 0, 0x9B020C20, "madd x0, x1, x2, x3"),
    ("integer", 0, 0xD37DF020, "lsl x0, x1, #3"),
    ("integer", 0, 0x90000000, "adrp x0, ."),
    ("integer", 0, 0x9A820020, "csel x0, x1, x2, eq"),
    ("integer", 0, 0xD2800020, "mov x0, #1"),
    ("integer", 0, 0xD3431820, "ubfx x0, x1, #3, #4"),
)
"""Class, multiply-adds, word and text: what Clang (of ziglang 0.17.1) assembles each text to."""


@pytest.mark.parametrize(("kind", "done", "word", "text"), WORDS, ids=[row[3] for row in WORDS])
def test_a_word_from_the_assembler_has_its_class(kind: str, done: int, word: int, text: str) -> None:
    found = classify(word)
    assert (found.kind, found.multiply_adds) == (kind, done)


def test_every_pattern_can_be_reached_and_says_what_it_is() -> None:
    for pattern in PATTERNS:
        assert pattern.kind in CLASSES
        assert pattern.value & ~pattern.mask == 0
        assert pattern.what
        assert classify(pattern.value) is pattern  # none before it takes its plainest word


@given(st.integers(0, 2**32 - 1))
def test_every_word_has_a_class(word: int) -> None:
    assert classify(word).kind in CLASSES


@given(st.lists(st.integers(0, 10**12), min_size=len(PATTERNS), max_size=len(PATTERNS)))
def test_classes_add_up_to_the_total(executed: list[int]) -> None:
    counts = by_class(sum(executed), executed)
    assert sum(count for kind, count in counts.items() if kind != "total") == counts["total"]
    assert set(multiply_adds(executed)) <= set(counts)


def test_the_plugin_gets_every_pattern_once_in_order() -> None:
    rows = [line.split() for line in plugin_table().splitlines()]
    assert [int(row[2]) for row in rows] == list(range(len(PATTERNS)))
    assert [(int(row[0], 16), int(row[1], 16)) for row in rows] == [(p.mask, p.value) for p in PATTERNS]


def test_the_share_in_dot_products_is_of_multiply_adds_not_of_instructions() -> None:
    assert int8_share({"sdot": 48, "smlal": 16, "fmla": 1000, "mla": 500}) == 0.75
    assert int8_share({"smmla": 32}) == 1.0
    assert int8_share({"fmla": 9}) is None
