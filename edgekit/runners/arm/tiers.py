"""The emulated cores: which one stands for what, and how a job is run on it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgekit.errors import RunnerFailedError
from edgekit.record import Fact, Level
from edgekit.runners.arm.kit import KIT, host_problem, runner_command
from edgekit.runners.base import Job, Result
from edgekit.runners.job_folder import read_result, write_job
from edgekit.runners.kit import Kit, State, kit_state, open_kit
from edgekit.runners.process import run_child
from edgekit.store import workspace

_GUEST_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
_EMULATOR_BYTES = 144 << 20
"""Writable memory that the emulator takes for itself before the program begins, most of it the 128 MiB buffer
of translated code (measured for 10.0.2, both systems: the program starts with this, not with 140 MiB)."""
_TELLING = frozenset({"asimddp", "i8mm", "sve", "sme"})
_MIDR = re.compile(r"MIDR 0x(?P<implementer>..).(?P<architecture>.)(?P<part>...).")


@dataclass(frozen=True)
class EmulatedArm:
    """One ARM core under qemu-user, with the runtime's own library for that architecture.

    Attributes:
        cpu: The emulator's name for it.
        part: Part number that the core itself must show; None where there is no such core in silicon.
        features: Which of dot product, matrix product, SVE and SME it must show, and no others.
        system: Which of the kit's systems it runs.
    """

    name: str
    title: str
    cpu: str
    part: int | None = None
    features: frozenset[str] = frozenset()
    system: Literal["arm64", "armv7"] = "arm64"
    level: Level = "emulated"
    kit: Kit | None = KIT

    def state(self) -> State:
        """Return whether the kit is there and this machine can run it."""
        problem = host_problem()
        return State(problem, "use --on ssh://user@board") if problem else kit_state(KIT)

    def run(self, job: Job) -> Result:
        """Run a job; times and memory are left out, since they would be the emulator's.

        Raises:
            RunnerMissingError: The kit is not installed, or damaged.
            RunnerFailedError: The model does not load there, fails, crashes, hangs, or needs more memory than
                the job allows; or the emulated CPU is not the one that this runner stands for.
        """
        kit = open_kit(KIT)
        emulator = "qemu-aarch64" if self.system == "arm64" else "qemu-arm"
        command = runner_command(kit, self.system, [kit / "emulator" / emulator, "-cpu", self.cpu])
        with workspace() as folder:
            write_job(replace(job, measure=None), folder)
            run_child(
                self.name,
                [*_limited(job.memory_limit_bytes), *command, "."],
                timeout_s=job.timeout_s,
                env=_GUEST_ENV,
                cwd=folder,
            )
            result = read_result(job, folder, self.name)
        self._held_against(result)
        facts: dict[str, Fact] = {**result.facts, "emulator": f"qemu-user 10.0.2, -cpu {self.cpu}"}
        if result.peak_memory_bytes is not None:
            facts["peak_memory_with_emulator_bytes"] = result.peak_memory_bytes
        return replace(result, load_ms=None, peak_memory_bytes=None, times=(), facts=facts)

    def _held_against(self, result: Result) -> None:
        """Refuse a result of another CPU than this runner's name says."""
        seen = _MIDR.fullmatch(result.cpu)
        if self.part is not None and (seen is None or int(seen["part"], 16) != self.part):
            why = f"the program saw '{result.cpu}', not part 0x{self.part:03x}"
            raise RunnerFailedError(self.name, "failed", why, "Report this as a bug, with `edgekit doctor`.")
        if (found := _TELLING & set(result.cpu_features)) != self.features:
            why = f"the program saw {_listed(found)}, not {_listed(self.features)}"
            raise RunnerFailedError(self.name, "failed", why, "Report this as a bug, with `edgekit doctor`.")


def _listed(features: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(features)) or "no int8 features"


def _limited(memory_bytes: int | None) -> list[str | Path]:
    """Return what to put before a command so that the guest gets no more writable memory.

    RLIMIT_DATA and not RLIMIT_AS: the emulator of a 32-bit CPU reserves that CPU's whole address space, and
    the guest's own limits are ignored by the emulator.
    Source: Linux setrlimit(2), since 4.7 with private writable mappings; QEMU linux-user, setrlimit.
    """
    if memory_bytes is None:
        return []
    kib = (memory_bytes + _EMULATOR_BYTES) // 1024
    return ["/bin/sh", "-c", 'ulimit -d "$0" && exec "$@"', str(kib)]


_DOT = frozenset({"asimddp"})
_MATRIX = frozenset({"asimddp", "i8mm"})
_SVE = _MATRIX | {"sve"}

ARM_TIERS: tuple[EmulatedArm, ...] = (
    EmulatedArm("arm64-cortex-a53", "2012, in order, no dot product (Raspberry Pi 3)", "cortex-a53", 0xD03),
    EmulatedArm(
        "arm64-cortex-a55", "2017, in order, SDOT (little core of most phones)", "cortex-a55", 0xD05, _DOT
    ),
    EmulatedArm("arm64-cortex-a72", "2015, no dot product (Raspberry Pi 4)", "cortex-a72", 0xD08),
    EmulatedArm("arm64-cortex-a76", "2018, SDOT (Raspberry Pi 5, phones)", "cortex-a76", 0xD0B, _DOT),
    EmulatedArm("arm64-neoverse-n1", "2019, SDOT (servers, e.g. AWS Graviton2)", "neoverse-n1", 0xD0C, _DOT),
    EmulatedArm("arm64-cortex-a710", "2021, SMMLA and SVE2 (phones)", "cortex-a710", 0xD47, _SVE),
    EmulatedArm(
        "arm64-neoverse-n2", "2020, SMMLA and SVE2 (servers, e.g. Azure Cobalt)", "neoverse-n2", 0xD49, _SVE
    ),
    EmulatedArm(
        "arm64-i8mm",
        "SMMLA without SVE: all that the int8 kernels ask for, no core in particular",
        "max,sve=off,sme=off",
        None,
        _MATRIX,
    ),
    EmulatedArm("armv7-cortex-a7", "32-bit ARM with NEON, ONNX Runtime 1.21", "cortex-a7", system="armv7"),
)
