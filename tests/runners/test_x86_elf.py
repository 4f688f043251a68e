"""CPUID instructions of a shared library."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.runners.x86.elf import cpuid_places
from edgekit.runners.x86.overlay import installed_library

SOURCE = r"""
#include <cpuid.h>
static const unsigned char data[] __attribute__((used)) = {0x0f, 0xa2, 0x0f, 0xa2};
unsigned asks(unsigned leaf) { unsigned a, b, c, d; __cpuid(leaf, a, b, c, d); return b; }
unsigned operand(void) { unsigned x; __asm__ volatile("movl $0xa20f, %0" : "=r"(x)); return x; }
unsigned asks_twice(void) {
    unsigned a, b, c, d, x;
    __cpuid_count(7, 0, a, b, c, d);
    __asm__ volatile("movl $0x0fa20fa2, %0" : "=r"(x));
    x += b;
    __cpuid_count(7, 1, a, b, c, d);
    return x + a;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("elf")
    (folder / "asks.c").write_text(SOURCE)
    made = folder / "asks.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", made, folder / "asks.c"], check=True)
    return made


def test_operands_and_data_with_the_same_bytes_are_left_alone(library: Path) -> None:
    raw = library.read_bytes()
    places = cpuid_places(raw)
    assert raw.count(b"\x0f\xa2") > len(places) == 3
    assert all(raw[offset : offset + 2] == b"\x0f\xa2" for _, offset in places)


def test_a_library_without_an_unwind_table_is_refused(library: Path) -> None:
    raw = library.read_bytes().replace(bytes.fromhex("50e57464"), bytes.fromhex("51e57464"), 1)
    with pytest.raises(ValueError, match="unwind table"):
        cpuid_places(raw)


@pytest.mark.parametrize("raw", [b"", b"\x7fELF\x01\x01" + b"\0" * 60, b"MZ" + b"\0" * 80])
def test_another_kind_of_file_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not an ELF library"):
        cpuid_places(raw)


@pytest.mark.slow
def test_the_places_in_the_installed_runtime_are_those_that_a_disassembler_finds() -> None:
    library, objdump = installed_library(), shutil.which("objdump")
    if library is None or objdump is None:
        pytest.skip("there is no objdump, or no onnxruntime")
    text = subprocess.run([objdump, "-d", library], capture_output=True, text=True, check=True).stdout
    expected = [int(at, 16) for at in re.findall(r"^ *([0-9a-f]+):\t0f a2 +\tcpuid", text, re.MULTILINE)]
    assert expected
    assert [address for address, _ in cpuid_places(library.read_bytes())] == expected
