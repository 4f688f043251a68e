"""Compile C for another architecture, with a compiler that is one file from PyPI.

No C library is built and no system headers are used: a program is linked against the very `libc.so.6` that it
will run with, and `start.S` stands in for the start files, so that a compilation takes half a second.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import MachineError
from edgekit.runners.debian import debian_part
from edgekit.runners.kit import Part
from edgekit.runners.process import tail
from edgekit.runners.unpack import flat_from_deb, from_wheel

SOURCES = Path(__file__).parent
RUNNER_SOURCES = tuple(SOURCES / name for name in ("runner.c", "cpu.h", "start.S"))
COMPILER = Part(
    "ziglang-0.17.1-x86_64.whl",
    (
        "https://files.pythonhosted.org/packages/59/e3/2a34676370a11c36b7cd04ffb2439c1089c0530cf4b01408c77cf7f8d9c3/"
        "ziglang-0.17.1-py3-none-manylinux_2_12_x86_64.manylinux2010_x86_64.musllinux_1_1_x86_64.whl",
    ),
    "ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54",
    101_083_562,
)
"""Clang and its linker for all architectures (the `ziglang` wheel, for Linux on x86-64)."""
HEADERS = debian_part(
    "o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_armhf.deb",
    85_232,
    "f6eabca8bccabcd80fb325a51171976356c8612e6f9d72886436106026a09c13",
)
"""ONNX Runtime's C headers; the interface only grows, so any later runtime fits."""
_NEEDED = re.compile(
    r"ziglang/(zig|lib/include/.*"
    r"|lib/libc/include/(generic-glibc|any-linux-any|(aarch64|arm|x86|x86_64)-linux-(gnu|any)[^/]*)/.*)"
)
_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Compiler:
    """An unpacked compiler.

    Attributes:
        folder: Where it lies.
    """

    folder: Path

    def compile(self, target: str, output: Path, sources: Sequence[Path], *flags: str) -> None:
        """Compile one or more C or assembly sources and link them with nothing but libraries that are named.

        Args:
            target: Architecture and system, e.g. `aarch64-linux-gnu`.
            output: File to write.
            sources: Sources (`.c`, `.S`), and libraries to link against.
            flags: More flags of the C compiler and linker.

        Raises:
            MachineError: It does not start here or does not compile; its last lines are named.
        """
        inputs: list[str | Path] = []
        for source in sources:
            if source.suffix in (".c", ".S"):  # -nostdlib takes the headers away, so not both at once
                inputs.append(self.folder / f"{source.name}.{target}.o")
                self._run(target, "-c", "-O2", "-std=c11", *flags, source, "-o", inputs[-1])
            else:
                inputs.append(source)
        self._run(target, "-nostdlib", *flags, *inputs, "-o", output)

    def _run(self, target: str, *arguments: str | Path) -> None:
        cache, lib = self.folder / "cache", self.folder / "ziglang" / "lib"
        folders = {"GLOBAL_CACHE": cache, "LOCAL_CACHE": cache, "LIB": lib}
        try:
            subprocess.run(
                [self.folder / "ziglang" / "zig", "cc", "-target", target, *arguments],
                check=True,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                env={**os.environ, **{f"ZIG_{name}_DIR": str(path) for name, path in folders.items()}},
            )
        except subprocess.CalledProcessError as error:
            raise MachineError(f"{arguments[-1]} does not compile: {tail(error.stderr)}") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MachineError(f"the compiler in {COMPILER.file} does not run here: {error}") from None

    def compile_runner(self, target: str, output: Path, libraries: Sequence[Path]) -> None:
        """Compile `runner.c`.

        Args:
            target: As for `compile`.
            output: The program.
            libraries: `libc.so.6` of the system that it will run in, and what that architecture's code needs
                beside it (32-bit ARM: `libgcc_s.so.1`).

        Raises:
            MachineError: As for `compile`.
        """
        sources = [SOURCES / "runner.c", SOURCES / "start.S", *libraries]
        self.compile(target, output, sources, "-fPIE", "-pie", f"-I{self.folder / 'include'}")


def unpack_compiler(downloads: Path, folder: Path) -> Compiler:
    """Return the compiler and the C headers that `COMPILER` and `HEADERS` are, unpacked into a folder.

    Raises:
        MachineError: They cannot be unpacked.
    """
    from_wheel(downloads / COMPILER.file, folder, lambda name: _NEEDED.fullmatch(name) is not None)
    flat_from_deb(downloads / HEADERS.file, folder / "include", "usr/include/onnxruntime/*.h")
    return Compiler(folder)
