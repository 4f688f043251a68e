"""The ARM kit: emulators, both ARM systems with their runtimes, the compiled runner and counting plugin."""

from __future__ import annotations

import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgekit.errors import MachineError
from edgekit.runners.arm import parts
from edgekit.runners.kit import Kit
from edgekit.runners.native_c.compiler import COMPILER, HEADERS, RUNNER_SOURCES, unpack_compiler
from edgekit.runners.unpack import flat_from_deb, from_wheel
from edgekit.store import workspace

COUNT_SOURCE = Path(__file__).parent / "count.c"
_LIBRARIES = ("*/ld-linux-*.so.*", "*/lib*.so.*[0-9]")


def host_problem() -> str:
    """Return why the emulators of the kit cannot run on this machine; empty where they can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"the ARM tiers need Linux on x86-64, this is {sys.platform} on {platform.machine()}"
    return ""


def runner_command(kit: Path, system: str, emulator: list[str | Path]) -> list[str | Path]:
    """Return the command that runs the C runner; the job's folder comes after it.

    Args:
        kit: The kit's folder.
        system: `arm64` or `armv7`.
        emulator: The emulator and its options.
    """
    lib = kit / system / "lib"
    (loader,) = lib.glob("ld-linux-*")
    (runtime,) = (path for path in lib.glob("libonnxruntime.so.1.*.*"))
    return [*emulator, loader, "--library-path", lib, kit / system / "runner", runtime]


def _build(downloads: Path, folder: Path) -> None:
    """Unpack and compile everything; unpacking releases the interpreter's lock, so two threads do it."""
    if problem := host_problem():
        raise MachineError(problem)
    arm64, armv7, counting = folder / "arm64" / "lib", folder / "armv7" / "lib", folder / "counting"
    with workspace() as work, ThreadPoolExecutor(2) as pool:
        emulator = downloads / parts.EMULATOR.file
        unpacking = pool.submit(
            flat_from_deb, emulator, folder / "emulator", "usr/bin/qemu-aarch64", "usr/bin/qemu-arm"
        )
        compiler = unpack_compiler(downloads, work)
        for packages, target in (
            (parts.ARM64_SYSTEM, arm64),
            (parts.ARMV7_SYSTEM, armv7),
            (parts.COUNTING_SYSTEM, counting / "lib"),
        ):
            for package in packages:
                flat_from_deb(downloads / package.file, target, *_LIBRARIES)
        flat_from_deb(downloads / parts.COUNTING_EMULATOR.file, counting, "usr/bin/qemu-aarch64")
        from_wheel(downloads / parts.RUNTIME.file, work, lambda name: "/libonnxruntime.so." in name)
        (runtime,) = (work / "onnxruntime" / "capi").iterdir()
        runtime.replace(arm64 / runtime.name)
        compiler.compile_runner("aarch64-linux-gnu", folder / "arm64" / "runner", [arm64 / "libc.so.6"])
        compiler.compile_runner(
            "arm-linux-gnueabihf",
            folder / "armv7" / "runner",
            [armv7 / "libc.so.6", armv7 / "libgcc_s.so.1"],
        )
        compiler.compile("x86_64-linux-gnu", counting / "count.so", [COUNT_SOURCE], "-shared", "-fPIC")
        unpacking.result()


KIT = Kit(
    name="arm",
    title="qemu-user, the aarch64 and 32-bit ARM builds of ONNX Runtime, a compiler for the runner",
    parts=(
        COMPILER,
        HEADERS,
        parts.EMULATOR,
        parts.RUNTIME,
        *parts.ARM64_SYSTEM,
        *parts.ARMV7_SYSTEM,
        parts.COUNTING_EMULATOR,
        *parts.COUNTING_SYSTEM,
    ),
    build=_build,
    sources=(*RUNNER_SOURCES, COUNT_SOURCE),
    installed_bytes=100_000_000,
)
