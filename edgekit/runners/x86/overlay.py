"""The kit of the masked tiers: a copy of the installed runtime that asks `mask.c` instead of the CPU.

CPUID faulting (arch_prctl, ARCH_SET_CPUID) would do without a copy, but many CPUs and virtual machines have
none. This way needs nothing but a compiler: each CPUID of the library becomes UD2, and a handler answers.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
from pathlib import Path

from edgekit.errors import MachineError
from edgekit.runners.kit import Kit
from edgekit.runners.process import tail
from edgekit.runners.x86.elf import CPUID, cpuid_places
from edgekit.store import sha256_file

UD2 = b"\x0f\x0b"
PRELOAD = "libmask.so"
_SOURCE = Path(__file__).with_name("mask.c")
_COMPILERS = ("cc", "gcc", "clang")
_LIBRARY = "onnxruntime_pybind11_state"
_ALSO = ("*.py", "LICENSE*", "capi/*.py", "capi/libonnxruntime_providers_shared.so")
"""What else of the package `import onnxruntime` takes."""


def installed_library() -> Path | None:
    """Return the library of the installed onnxruntime, without importing it; None where there is none."""
    spec = importlib.util.find_spec("onnxruntime")
    places = spec.submodule_search_locations if spec is not None else None
    return next(Path(places[0]).glob(f"capi/{_LIBRARY}*.so"), None) if places else None


def masked_kit() -> Kit | None:
    """Return the kit for the onnxruntime that is installed here; None where none is.

    Another release of onnxruntime makes another kit: the digest of its library is pinned.
    """
    library = installed_library()
    if library is None:
        return None
    stat = library.stat()
    return Kit(
        name="x86-tiers",
        title="a copy of the installed ONNX Runtime whose CPU features can be masked (needs a C compiler)",
        parts=(),
        build=lambda _, folder: build_overlay(library, folder),
        pins=(_digest(library, stat.st_mtime_ns, stat.st_size), sha256_file(_SOURCE)),
        revision=2,
        installed_bytes=stat.st_size,
    )


def build_overlay(library: Path, folder: Path) -> None:
    """Fill an empty folder with a patched copy of the runtime and the preload library.

    Args:
        library: Of an installed Python package `onnxruntime`, in its folder `capi`.
        folder: Becomes a folder for PYTHONPATH.

    Raises:
        MachineError: There is no C compiler, or the library's CPUID instructions cannot be told from data.
    """
    package, code = library.parents[1], bytearray(library.read_bytes())
    try:
        places = cpuid_places(bytes(code))
    except ValueError as error:
        raise MachineError(
            f"{library.name} cannot be patched: {error}", "Use another onnxruntime release."
        ) from None
    for _, offset in places:
        assert code[offset : offset + 2] == CPUID
        code[offset : offset + 2] = UD2
    copy = folder / package.name
    (copy / "capi").mkdir(parents=True)
    for source in (path for pattern in _ALSO for path in package.glob(pattern)):
        shutil.copyfile(source, copy / source.relative_to(package))
    (copy / "capi" / library.name).write_bytes(code)
    sites = ", ".join(f"{address:#x}" for address, _ in places)
    header = f'#define LIBRARY "{_LIBRARY}"\nstatic const unsigned long SITES[] = {{{sites}}};\n'
    (folder / "sites.h").write_text(header, encoding="utf-8")
    _compile(folder)


def _compile(folder: Path) -> None:
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise MachineError(
            "the masked x86 tiers need a C compiler; there is no cc, gcc or clang in PATH",
            "Install one, e.g.: apt install gcc",
        )
    command = [compiler, "-O2", "-Wall", "-shared", "-fPIC", f"-I{folder}", str(_SOURCE), "-o"]
    done = subprocess.run(
        [*command, str(folder / PRELOAD), "-ldl"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MachineError(f"{compiler} cannot compile {_SOURCE.name}: {tail(done.stderr)}")


@functools.cache
def _digest(library: Path, changed_ns: int, size: int) -> str:
    """Return the library's digest; read once in a process as long as its time and size stay."""
    return sha256_file(library)
