"""Qualcomm's Hexagon processor (HTP), in the functional simulation that comes with its execution provider.

The graph is compiled ahead of time for one generation of the processor, and what was compiled is run. That
says whether the answers are right, not how fast a phone gives them.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import RunnerMissingError
from edgekit.record import Level
from edgekit.runners.base import Job, Result
from edgekit.runners.kit import Kit, Part, State, kit_state, open_kit
from edgekit.runners.process import run_child
from edgekit.runners.python_child import run_in_python

_EDGEKIT = str(Path(__file__).parents[2])

_COMPILE_TIMEOUT_S = 600
"""all-MiniLM-L6-v2 takes 4 seconds."""

_LIBRARIES = (
    "libonnxruntime_providers_qnn.so",
    "libQnnHtp.so",
    "libHtpPrepare.so",
    "libQnnSystem.so",
    "libQnnIr.so",
)
"""Of the wheel's libraries, what ahead-of-time compilation and the simulation of the HTP load."""


def _environment() -> dict[str, str]:
    """Return what a child needs to find this very edgekit, also from another working directory."""
    return {"PYTHONPATH": os.pathsep.join([_EDGEKIT, os.environ.get("PYTHONPATH", "")])}


def _build(downloads: Path, folder: Path) -> None:
    (archive,) = downloads.iterdir()
    with zipfile.ZipFile(archive) as wheel:
        for name in wheel.namelist():
            room, _, file = name.partition("/")
            wanted = file in _LIBRARIES or file.endswith(("LICENSE", "LICENSE.pdf"))
            if (room == "onnxruntime_qnn" and wanted) or room == "onnxruntime_qnn.libs":
                wheel.extract(name, folder)


KIT = Kit(
    name="qnn",
    title="onnxruntime-qnn 2.7.0 with Qualcomm's HTP compiler and simulation (Qualcomm's own licence)",
    parts=(
        Part(
            file="onnxruntime_qnn-2.7.0-cp311-cp311-manylinux_2_35_x86_64.whl",
            urls=(
                "https://files.pythonhosted.org/packages/7c/82/97e1b8cc3da172013d3ef39d217515c6c5633addad465121d8e95a90b25b/onnxruntime_qnn-2.7.0-cp311-cp311-manylinux_2_35_x86_64.whl",
            ),
            sha256="c56c01562b8534fe8980cfea4601408d950c065f8251fb862ce82101c52c9849",
            bytes=98578793,
        ),
    ),
    build=_build,
    installed_bytes=220_000_000,
)


@dataclass(frozen=True)
class QnnHtp:
    """One generation of the Hexagon processor, simulated.

    Attributes:
        name: What `--on` takes.
        title: One line that says which phones have it.
        arch: The generation's number.
    """

    name: str
    title: str
    arch: str
    level: Level = "simulated"
    kit: Kit | None = KIT

    def state(self) -> State:
        """Return whether the kit is there; its libraries are for Linux on x86-64."""
        if sys.platform != "linux" or platform.machine() != "x86_64":
            return State(f"it needs Linux on x86-64, and this is {platform.system()} on {platform.machine()}")
        return kit_state(KIT)

    def run(self, job: Job) -> Result:
        """Compile and run a job; nothing is timed, a simulation's times mean nothing."""
        state = self.state()
        if not state.ready:
            raise RunnerMissingError(
                f"{self.name}: {state.missing}", f"Run: {state.hint}" if state.hint else ""
            )
        folder = open_kit(KIT)
        result = run_in_python(
            self.name,
            Path(sys.executable),
            dataclasses.replace(job, measure=None),
            env=_environment(),
            program=("-m", "edgekit.runners.qnn_child", str(folder / "onnxruntime_qnn"), self.arch),
        )
        return dataclasses.replace(result, cpu=f"Hexagon v{self.arch}, simulated", cpu_features=())


def compile_for(htp: QnnHtp, model: Path, compiled: Path) -> None:
    """Compile a graph for a processor into one file, without running it.

    Args:
        htp: The generation; its kit has to be installed.
        model: The graph, whole in Q/DQ and of static shapes.
        compiled: The new file.

    Raises:
        RunnerFailedError: It does not compile, or a node would be left to the CPU.
    """
    run_child(
        htp.name,
        [
            *(sys.executable, "-m", "edgekit.runners.qnn_child"),
            *(open_kit(KIT) / "onnxruntime_qnn", htp.arch, model, compiled),
        ],
        timeout_s=_COMPILE_TIMEOUT_S,
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", **_environment()},
    )


HTPS: tuple[QnnHtp, ...] = (
    QnnHtp("qnn-htp-v68", "Hexagon v68: Snapdragon 888", "68"),
    QnnHtp("qnn-htp-v69", "Hexagon v69: Snapdragon 8 Gen 1", "69"),
    QnnHtp("qnn-htp-v73", "Hexagon v73: Snapdragon 8 Gen 2, X Elite", "73"),
    QnnHtp("qnn-htp-v75", "Hexagon v75: Snapdragon 8 Gen 3", "75"),
    QnnHtp("qnn-htp-v79", "Hexagon v79: Snapdragon 8 Elite", "79"),
)
"""Generations, oldest first. Source: Qualcomm AI Engine Direct SDK, supported Snapdragon devices."""
