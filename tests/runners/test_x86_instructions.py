"""Where x86-64 instructions begin."""

from __future__ import annotations

import pytest

from edgekit.runners.x86.instructions import boundaries, length

# Encodings as GNU as 2.40 writes them.
KNOWN = {
    "cpuid": "0f a2",
    "ret": "c3",
    "sub $8, %rsp": "48 83 ec 08",
    "sub $0xa20f, %rsp": "48 81 ec 0f a2 00 00",
    "mov $0xa20f, %ax": "66 b8 0f a2",
    "mov $0xa20f, %eax": "b8 0f a2 00 00",
    "movabs $0xa20fa20fa20f, %rax": "48 b8 0f a2 0f a2 0f a2 00 00",
    "movabs 0x1122334455667788, %eax": "a1 88 77 66 55 44 33 22 11",
    "mov %fs:0x28, %rax": "64 48 8b 04 25 28 00 00 00",
    "mov 0x10(%rsp,%rcx,4), %eax": "8b 44 8c 10",
    "mov 0xa20f(%rip), %eax": "8b 05 0f a2 00 00",
    "mov 0x0(%rbp), %eax": "8b 45 00",
    "mov 0x0(,%rax,8), %eax": "8b 04 c5 00 00 00 00",
    "testb $1, (%rax)": "f6 00 01",
    "neg %eax": "f7 d8",
    "test $0x10000, %eax": "f7 c0 00 00 01 00",
    "testw $1, (%rax)": "66 f7 00 01 00",
    "call": "e8 00 00 00 00",
    "data16 call of a TLS sequence": "66 66 48 e8 00 00 00 00",
    "jne far": "0f 85 00 00 00 00",
    "jne near": "75 05",
    "nopw 0x0(%rax,%rax,1)": "66 0f 1f 84 00 00 00 00 00",
    "lock cmpxchg %ecx, (%rdx)": "f0 0f b1 0a",
    "shld $4, %eax, %edx": "0f a4 c2 04",
    "bt $3, %eax": "0f ba e0 03",
    "enter $16, $0": "c8 10 00 00",
    "ret $8": "c2 08 00",
    "pshufb %xmm1, %xmm0": "66 0f 38 00 c1",
    "palignr $15, %xmm1, %xmm0": "66 0f 3a 0f c1 0f",
    "pshufd $0xa2, %xmm1, %xmm0": "66 0f 70 c1 a2",
    "xgetbv": "0f 01 d0",
    "endbr64": "f3 0f 1e fa",
    "vzeroupper": "c5 f8 77",
    "vpshufd $0xa2, %ymm1, %ymm0": "c5 fd 70 c1 a2",
    "vpmaddubsw (%rax), %ymm1, %ymm0": "c4 e2 75 04 00",
    "vperm2f128 $1, %ymm2, %ymm1, %ymm0": "c4 e3 75 06 c2 01",
    "vpdpbusd 0x40(%rax), %zmm1, %zmm0": "62 f2 75 48 50 40 01",
    "vpternlogd $0xff, %zmm0, %zmm0, %zmm0": "62 f3 7d 48 25 c0 ff",
    "vaddph %zmm2, %zmm1, %zmm0 (map 5)": "62 f5 74 48 58 c2",
    "tilerelease": "c4 e2 78 49 c0",
    "tdpbusd %tmm2, %tmm1, %tmm0": "c4 e2 69 5e c1",
    "vpcmov of XOP": "8f e8 70 a2 c2 30",
    "pop (%rax)": "8f 00",
    "push %r12": "41 54",
    "movzwl 0xa20f(%rax), %eax": "0f b7 80 0f a2 00 00",
}


@pytest.mark.parametrize(("text", "code"), KNOWN.items(), ids=list(KNOWN))
def test_an_instruction_is_as_long_as_the_assembler_wrote_it(text: str, code: str) -> None:
    raw = bytes.fromhex(code)
    assert length(raw + b"\x90" * 16, 0) == len(raw)


def test_a_function_is_cut_where_its_instructions_begin() -> None:
    raw = [bytes.fromhex(code) for code in KNOWN.values()]
    begins = [sum(map(len, raw[:index])) for index in range(len(raw))]
    code = b"".join(raw)
    assert list(boundaries(code, 0, len(code))) == begins


def test_code_that_is_read_from_the_wrong_place_does_not_end_where_the_function_ends() -> None:
    with pytest.raises(ValueError, match="reaches over the end"):
        list(boundaries(bytes.fromhex("b8 0f a2 00 00"), 0, 4))


@pytest.mark.parametrize("code", ["06", "d6", "0f 04", "0f 39"])
def test_what_is_no_instruction_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="no opcode"):
        length(bytes.fromhex(code) + b"\0" * 8, 0)
