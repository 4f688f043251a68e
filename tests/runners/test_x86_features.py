"""CPU features and the CPUID bits that stand for them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgekit.runners.x86.features import (
    ANY_SUBLEAF,
    BASELINE,
    FEATURES,
    cpuid_mask,
    features_of,
    glibc_tunables,
    hidden,
)

names = st.sets(st.sampled_from([name for name in FEATURES if name not in BASELINE]))


def _parsed(mask: str) -> dict[tuple[int, int], tuple[int, ...]]:
    found = {}
    for entry in mask.split():
        key, *registers = entry.split(":")
        leaf, subleaf = key.split(".")
        found[int(leaf, 16), int(subleaf, 16)] = tuple(int(value, 16) for value in registers)
    return found


@given(names)
def test_clearing_the_mask_from_a_cpu_with_everything_leaves_what_was_kept(keeps: set[str]) -> None:
    masks = _parsed(cpuid_mask(hidden(keeps)))
    told = {}
    for leaf, subleaf in ((1, 0), (7, 0), (7, 1)):
        bits = masks.get((leaf, subleaf)) or masks.get((leaf, ANY_SUBLEAF)) or (0, 0, 0, 0)
        told[leaf, subleaf] = tuple(0xFFFFFFFF & ~value for value in bits)
    assert set(features_of(told)) == keeps | set(BASELINE)


def test_no_two_features_are_the_same_bit() -> None:
    assert len(set(FEATURES.values())) == len(FEATURES)


def test_without_amx_its_tiles_and_its_state_are_gone_too() -> None:
    masks = _parsed(cpuid_mask(["amx_tile"]))
    assert masks[0x1D, ANY_SUBLEAF] == masks[0x1E, ANY_SUBLEAF] == (0xFFFFFFFF,) * 4
    assert masks[0xD, 0][0] == 0b11 << 17


def test_the_c_library_is_told_in_the_spelling_of_old_and_new_releases() -> None:
    assert glibc_tunables(["fma", "avx2"]) == "glibc.cpu.hwcaps=-FMA,-FMA_Usable,-AVX2,-AVX2_Usable"
