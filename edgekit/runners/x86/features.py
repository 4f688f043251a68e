"""CPU features as CPUID tells them: which bit each one is, and how to clear it.

Source: Intel SDM volume 2, CPUID, tables "Feature Information" and "Structured Extended Feature Flags"; the
names are those of /proc/cpuinfo (Linux arch/x86/include/asm/cpufeatures.h).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

_EAX, _EBX, _ECX, _EDX = range(4)
ANY_SUBLEAF = 0xFFFFFFFF

FEATURES: dict[str, tuple[int, int, int, int]] = {
    "sse2": (1, 0, _EDX, 26),
    "ssse3": (1, 0, _ECX, 9),
    "sse4_1": (1, 0, _ECX, 19),
    "sse4_2": (1, 0, _ECX, 20),
    "fma": (1, 0, _ECX, 12),
    "avx": (1, 0, _ECX, 28),
    "f16c": (1, 0, _ECX, 29),
    "avx2": (7, 0, _EBX, 5),
    "avx512f": (7, 0, _EBX, 16),
    "avx512dq": (7, 0, _EBX, 17),
    "avx512ifma": (7, 0, _EBX, 21),
    "avx512cd": (7, 0, _EBX, 28),
    "avx512bw": (7, 0, _EBX, 30),
    "avx512vl": (7, 0, _EBX, 31),
    "avx512vbmi": (7, 0, _ECX, 1),
    "avx512_vbmi2": (7, 0, _ECX, 6),
    "vaes": (7, 0, _ECX, 9),
    "vpclmulqdq": (7, 0, _ECX, 10),
    "avx512_vnni": (7, 0, _ECX, 11),
    "avx512_bitalg": (7, 0, _ECX, 12),
    "avx512_vpopcntdq": (7, 0, _ECX, 14),
    "avx512_vp2intersect": (7, 0, _EDX, 8),
    "amx_bf16": (7, 0, _EDX, 22),
    "avx512_fp16": (7, 0, _EDX, 23),
    "amx_tile": (7, 0, _EDX, 24),
    "amx_int8": (7, 0, _EDX, 25),
    "avx_vnni": (7, 1, _EAX, 4),
    "avx512_bf16": (7, 1, _EAX, 5),
    "amx_fp16": (7, 1, _EAX, 21),
    "avx_ifma": (7, 1, _EAX, 23),
    "avx_vnni_int8": (7, 1, _EDX, 4),
    "avx_ne_convert": (7, 1, _EDX, 5),
    "amx_complex": (7, 1, _EDX, 8),
    "avx_vnni_int16": (7, 1, _EDX, 10),
    "avx10": (7, 1, _EDX, 19),
}
"""Name -> leaf, subleaf, register, bit."""

BASELINE = ("sse2", "ssse3", "sse4_1", "sse4_2")
"""Never cleared: what every x86-64 CPU of the last fifteen years has."""

_STATE_LEAF, _TILE_LEAVES, _AVX10_LEAF = 0xD, (0x1D, 0x1E), 0x24
_STATES = {"avx": 1 << 2, "avx512f": 0b111 << 5, "amx_tile": 0b11 << 17}
"""Bits of XCR0 that a feature's registers take, as leaf 0xD lists them."""

_GLIBC_NAMES = ("avx", "fma", "f16c", "avx2", "avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl")


def hidden(keeps: Iterable[str]) -> tuple[str, ...]:
    """Return the features to clear so that only `keeps` and the baseline are left."""
    kept = {*keeps, *BASELINE}
    return tuple(name for name in FEATURES if name not in kept)


def cpuid_mask(names: Iterable[str]) -> str:
    """Return what `mask.c` reads from EDGEKIT_CPUID_MASK to clear these features.

    Leaf 1 is cleared for any subleaf: the CPU ignores the register, so callers leave anything in it.
    """
    bits: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for name in names:
        leaf, subleaf, register, bit = FEATURES[name]
        bits[leaf, subleaf if leaf == 7 else ANY_SUBLEAF][register] |= 1 << bit
        bits[_STATE_LEAF, 0][_EAX] |= _STATES.get(name, 0)
        gone = _TILE_LEAVES if name == "amx_tile" else (_AVX10_LEAF,) if name == "avx10" else ()
        for whole in gone:
            bits[whole, ANY_SUBLEAF] = [0xFFFFFFFF] * 4
    return " ".join(
        f"{leaf:x}.{subleaf:x}:" + ":".join(f"{value:x}" for value in registers)
        for (leaf, subleaf), registers in sorted(bits.items())
    )


def glibc_tunables(names: Iterable[str]) -> str:
    """Return the entry of GLIBC_TUNABLES that keeps libm and libc from using these features.

    glibc picks `expf` and the like by CPU too, and CPUs with FMA get other last bits.
    Source: GNU C Library manual, Tunables, glibc.cpu.hwcaps; the `_Usable` names are those before 2.33.
    """
    off = [name.upper() for name in names if name in _GLIBC_NAMES]
    return "glibc.cpu.hwcaps=" + ",".join(f"-{name},-{name}_Usable" for name in off)


def features_of(leaves: Mapping[tuple[int, int], tuple[int, ...]]) -> tuple[str, ...]:
    """Return the features that CPUID answers show, sorted.

    Args:
        leaves: (leaf, subleaf) -> eax, ebx, ecx, edx.
    """
    nothing = (0, 0, 0, 0)
    return tuple(
        sorted(
            name
            for name, (leaf, subleaf, register, bit) in FEATURES.items()
            if leaves.get((leaf, subleaf), nothing)[register] >> bit & 1
        )
    )
