"""Other releases of ONNX Runtime on this CPU, and the installed one without Python: all through the C runner.

A release is the shared library of its own wheel, so that no release meets another's Python or numpy.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from edgekit.errors import MachineError
from edgekit.record import Level
from edgekit.runners.base import Job, Result
from edgekit.runners.job_folder import read_result, write_job
from edgekit.runners.kit import Kit, Part, State, kit_state, open_kit
from edgekit.runners.native_c.compiler import HEADERS, RUNNER_SOURCES
from edgekit.runners.process import run_child, tail
from edgekit.runners.unpack import flat_from_deb, from_wheel
from edgekit.store import workspace

_COMPILE_S = 120.0
_WHEELS = "https://files.pythonhosted.org/packages/"


@dataclass(frozen=True)
class CRunner:
    """ONNX Runtime's shared library on this CPU, driven by a C program.

    Attributes:
        name: What `--on` takes.
        title: One line that says what it stands for.
        kit: The compiled program, with the library where it is not the installed one.
    """

    name: str
    title: str
    kit: Kit | None
    level: Level = "native"

    def state(self) -> State:
        """Return whether the kit is there, and the installed library where that is what runs."""
        if _problem():
            return State(_problem())
        assert self.kit is not None
        state = kit_state(self.kit)
        if state.ready and self.kit is CPP and _installed_library() is None:
            return State("the installed onnxruntime has no libonnxruntime.so", "pip install onnxruntime")
        return state

    def run(self, job: Job) -> Result:
        """Run a job in a process that has no Python."""
        assert self.kit is not None
        folder = open_kit(self.kit)
        library = next(folder.glob("libonnxruntime.so.*"), None) or _installed_library()
        with workspace() as work:
            write_job(job, work)
            run_child(
                self.name,
                [folder / "runner", str(library), work],
                timeout_s=job.timeout_s,
                memory_limit_bytes=job.memory_limit_bytes,
            )
            return read_result(job, work, self.name)


def _problem() -> str:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"it needs Linux on x86-64, and this is {platform.system()} on {platform.machine()}"
    return ""


def _installed_library() -> Path | None:
    """Return the shared library inside the installed wheel; nothing is imported."""
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return None
    return next((Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*"), None)


def _build(library: Callable[[Path, Path], None] | None, downloads: Path, folder: Path) -> None:
    """Compile the runner with this machine's compiler; put a release's library beside it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise MachineError("there is no C compiler here", "Install one, e.g.: apt-get install gcc libc6-dev")
    if library is not None:
        library(downloads, folder)
    with workspace() as work:
        flat_from_deb(downloads / HEADERS.file, work, "usr/include/onnxruntime/*.h")
        source, program = str(RUNNER_SOURCES[0]), str(folder / "runner")
        command = [compiler, "-O2", "-std=c11", f"-I{work}", "-o", program, source, "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S, check=False)
    if done.returncode:
        raise MachineError(f"the C runner does not compile with {compiler}: {tail(done.stderr)}")


def _from_wheel(file: str, downloads: Path, folder: Path) -> None:
    with workspace() as work:
        from_wheel(downloads / file, work, lambda name: "/libonnxruntime.so." in name)
        (library,) = (work / "onnxruntime" / "capi").iterdir()
        shutil.move(library, folder / library.name)


def _from_npm(file: str, downloads: Path, folder: Path) -> None:
    with tarfile.open(downloads / file) as archive:
        (member,) = (m for m in archive if "/linux/x64/libonnxruntime.so." in m.name)
        member.name = Path(member.name).name
        archive.extract(member, folder, filter="data")


def _release(version: str, address: str, sha256: str, size_bytes: int) -> CRunner:
    npm = address.startswith("https://registry.npmjs.org/")
    file = f"onnxruntime-{version}{'.tgz' if npm else '.whl'}"
    url = address if npm else _WHEELS + address
    kit = Kit(
        name=f"ort-{version}",
        title=f"the library of ONNX Runtime {version}, and the C runner",
        parts=(Part(file, (url,), sha256, size_bytes), HEADERS),
        build=partial(_build, partial(_from_npm if npm else _from_wheel, file)),
        sources=RUNNER_SOURCES,
        installed_bytes=25_000_000,
    )
    return CRunner(kit.name, f"ONNX Runtime {version} on this CPU", kit)


CPP = Kit(
    name="cpp",
    title="the C runner, for the installed ONNX Runtime",
    parts=(HEADERS,),
    build=partial(_build, None),
    sources=RUNNER_SOURCES,
    installed_bytes=100_000,
)

RELEASES: tuple[CRunner, ...] = (
    CRunner("cpp", "this CPU, the installed ONNX Runtime's C interface, no Python", CPP),
    _release(
        "1.18.0",
        "https://registry.npmjs.org/onnxruntime-node/-/onnxruntime-node-1.18.0.tgz",
        "d9ffdc4b27fa5d65878153b6c6182c6634fad7102673eddba0cf12f919fb9edd",
        55_692_982,
    ),
    _release(
        "1.19.2",
        "60/ce/be4152da5c1030ab5a159a4a792ed9abad6ba498d79ef0aeba593ff7b5bf/"
        "onnxruntime-1.19.2-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        "a36511dc07c5c964b916697e42e366fa43c48cdb3d3503578d78cef30417cb84",
        13_167_809,
    ),
    _release(
        "1.20.1",
        "11/ac/4120dfb74c8e45cce1c664fc7f7ce010edd587ba67ac41489f7432eb9381/"
        "onnxruntime-1.20.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        "5eec64c0269dcdb8d9a9a53dc4d64f87b9e0c19801d9321246a53b7eb5a7d1bc",
        13_331_703,
    ),
    _release(
        "1.22.1",
        "59/f3/c93eb4167d4f36ea947930f82850231f7ce0900cb00e1a53dc4995b60479/"
        "onnxruntime-1.22.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        "f6effa1299ac549a05c784d50292e3378dbbf010346ded67400193b09ddc2f04",
        16_460_799,
    ),
    _release(
        "1.23.2",
        "e9/80/113381ba832d5e777accedc6cb41d10f9eca82321ae31ebb6bcede530cea/"
        "onnxruntime-1.23.2-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        "da44b99206e77734c5819aa2142c69e64f3b46edc3bd314f6a45a932defc0b3e",
        17_372_080,
    ),
    _release(
        "1.24.4",
        "d5/b6/7a4df417cdd01e8f067a509e123ac8b31af450a719fa7ed81787dd6057ec/"
        "onnxruntime-1.24.4-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        "e54ad52e61d2d4618dcff8fa1480ac66b24ee2eab73331322db1049f11ccf330",
        17_222_993,
    ),
    _release(
        "1.27.0",
        "e0/cd/74bb804170ceb622fda9111df31a07b3024f7491472256d3a90b5391a4d2/"
        "onnxruntime-1.27.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        "e4f7b0e90d2d212e2c2deaa6c8291616183ab815d3ec558ea12d3ac8b26d36f4",
        18_636_930,
    ),
    _release(
        "1.30.0",
        "4f/2e/4c96278a99140d0307ccda6fd51e6e9d1ca7c9f6fdd1fa96ff375acfc713/"
        "onnxruntime-1.30.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        "fd54b314ea385bcecac69ab431f020ba503e3878dad4ebb645fec5a24b041242",
        23_561_046,
    ),
)
"""The interface of the installed release, and others from the oldest that built-in targets name on.

The 1.18 wheel has no library that a C program could open; onnxruntime-node's archive of that release has.
"""
