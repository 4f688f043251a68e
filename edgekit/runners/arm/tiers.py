"""The emulated cores: which one stands for what, and how a job is run on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgekit.errors import RunnerFailedError
from edgekit.record import Clock, Fact, Level
from edgekit.runners.arm.counting import count_instructions
from edgekit.runners.arm.decode import int8_share
from edgekit.runners.arm.estimate import PI_3, PI_4, PI_5, Board, estimate, weight_bytes
from edgekit.runners.arm.kit import KIT, host_problem, runner_command
from edgekit.runners.base import Counts, Job, Measure, Result
from edgekit.runners.job_folder import read_result, write_job
from edgekit.runners.kit import Kit, State, kit_state, open_kit
from edgekit.runners.process import run_child
from edgekit.store import workspace

_GUEST_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "ORT_DISABLE_TELEMETRY": "1"}
_EMULATOR_BYTES = 144 << 20
"""Writable memory that the emulator takes for itself before the program begins, most of it the 128 MiB buffer
of translated code (measured for 10.0.2, both systems: the program starts with this, not with 140 MiB)."""
_TELLING = frozenset({"asimddp", "i8mm", "sve", "sme"})


@dataclass(frozen=True)
class EmulatedArm:
    """One ARM core under qemu-user, with the runtime's own library for that architecture.

    Attributes:
        cpu: The emulator's name for it.
        midr: Main identification register that the program must see; None on 32-bit ARM, which hides it.
        features: Which of dot product, matrix product, SVE and SME it must show, and no others.
        counted_on: The counting emulator's name for a CPU with these instructions; empty where nothing is
            counted.
        board: A board with this core that estimated times are for; None where no figures are published.
        system: Which of the kit's systems it runs.
    """

    name: str
    title: str
    cpu: str
    midr: int | None = None
    features: frozenset[str] = frozenset()
    counted_on: str = ""
    board: Board | None = None
    system: Literal["arm64", "armv7"] = "arm64"
    level: Level = "emulated"
    kit: Kit | None = KIT

    def state(self) -> State:
        """Return whether the kit is there and this machine can run it."""
        problem = host_problem()
        return State(problem, "use --on ssh://user@board") if problem else kit_state(KIT)

    def run(self, job: Job) -> Result:
        """Run a job; times and memory are left out, since they would be the emulator's.

        With a `measure`, instructions are counted instead, in a run of its own on one thread.

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
            try:
                run_child(
                    self.name,
                    [*_limit(job.memory_limit_bytes, self.system, folder), *command, "."],
                    timeout_s=job.timeout_s,
                    env=_GUEST_ENV,
                    cwd=folder,
                )
            except RunnerFailedError as error:
                # Debian's 32-bit library complains of each operator when it is opened; the cause comes last
                why = error.why.rpartition(" | ")[2] if self.system == "armv7" else error.why
                raise RunnerFailedError(self.name, error.outcome, why, error.hint) from None
            result = read_result(job, folder, self.name)
        self._held_against(result)
        facts: dict[str, Fact] = {**result.facts, "emulator": f"qemu-user 10.0.2, -cpu {self.cpu}"}
        if result.peak_memory_bytes is not None:
            facts["peak_memory_with_emulator_bytes"] = result.peak_memory_bytes
        result = replace(result, load_ms=None, peak_memory_bytes=None, times=(), facts=facts)
        return self._counted(kit, job, job.measure, result) if job.measure is not None else result

    def _counted(self, kit: Path, job: Job, measure: Measure, result: Result) -> Result:
        """Return the result with counts, and what they prove, in its facts."""
        if self.midr is None or not self.counted_on:
            facts = {**result.facts, "not_counted": "the decoder knows 64-bit ARM only"}
            return replace(result, facts=facts)
        clock = Clock()
        counted = count_instructions(self.name, kit, self.counted_on, self.midr, job, measure, _GUEST_ENV)
        facts = {
            **result.facts,
            "counted_on": f"qemu-user 7.2, -cpu {self.counted_on}, one thread",
            "counting_seconds": round(clock.seconds, 1),
            "multiply_adds": {point: dict(sums) for point, sums in counted.multiply_adds.items()},
            "float_multiply_adds": {point: dict(sums) for point, sums in counted.float_multiply_adds.items()},
            "share_of_int8_multiply_adds_in_sdot_or_smmla": {
                point: share
                for point, sums in counted.multiply_adds.items()
                if (share := int8_share(sums)) is not None
            },
        }
        if self.board is not None:
            facts |= _estimates(self.board, job.model, measure.float_model, counted.counts)
        return replace(result, counts=counted.counts, facts=facts)

    def _held_against(self, result: Result) -> None:
        """Refuse a result of another CPU than this runner's name says."""
        hint = "Report this as a bug, with what `edgekit doctor` says."
        if self.midr is not None and result.cpu != (expected := f"MIDR 0x{self.midr:08x}"):
            why = f"the program saw '{result.cpu}', not {expected}"
            raise RunnerFailedError(self.name, "failed", why, hint)
        if (found := _TELLING & set(result.cpu_features)) != self.features:
            why = f"the program saw {_listed(found)}, not {_listed(self.features)}"
            raise RunnerFailedError(self.name, "failed", why, hint)


def _estimates(
    board: Board, shipped: Path, baseline: Path | None, counts: tuple[Counts, ...]
) -> dict[str, Fact]:
    """Return estimated times as facts; every key says that they are."""
    facts: dict[str, Fact] = {
        "estimated_for": board.title,
        "estimated_by": "instructions by class against the core's pipes, weights against peak bandwidth",
    }
    read = weight_bytes(shipped)
    times = {entry.point: estimate(board, entry.shipped_counts, read) for entry in counts}
    facts["estimated_ms"] = {point: round(time.ms, 3) for point, time in times.items()}
    facts["estimated_bound_by"] = {point: time.bound_by for point, time in times.items()}
    if baseline is not None:
        read = weight_bytes(baseline)
        floats = {entry.point: estimate(board, entry.float_counts, read) for entry in counts}
        facts["estimated_float_ms"] = {point: round(time.ms, 3) for point, time in floats.items()}
        facts["estimated_float_bound_by"] = {point: time.bound_by for point, time in floats.items()}
        facts["estimated_speedup"] = {p: round(floats[p].ms / time.ms, 2) for p, time in times.items()}
    return facts


def _listed(features: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(features)) or "no int8 features"


def _limit(memory_bytes: int | None, system: str, job_folder: Path) -> list[str | Path]:
    """Return what to put before the command so that the guest gets no more memory than that, or tell the job.

    The emulator ignores limits that the guest sets. 64-bit: RLIMIT_DATA for both, since the emulator's own
    part is known. 32-bit: the emulator reserves the guest's whole address space, and what is mapped over a
    reservation is not held against any limit, so the guest itself fills its address space but for the rest.
    Source: Linux, setrlimit(2) and mm/mmap.c (`may_expand_vm`, less the pages replaced); QEMU 10.0
    linux-user/syscall.c, TARGET_NR_setrlimit.
    """
    if memory_bytes is None:
        return []
    if system == "armv7":
        with (job_folder / "job.txt").open("a", encoding="utf-8") as file:
            file.write(f"address_space_kib {memory_bytes // 1024}\n")
        return []
    kib = (memory_bytes + _EMULATOR_BYTES) // 1024
    return ["/bin/sh", "-c", 'ulimit -d "$0" && exec "$@"', str(kib)]


_DOT = frozenset({"asimddp"})
_MATRIX = frozenset({"asimddp", "i8mm"})
_SVE = _MATRIX | {"sve"}

_V9_COUNTED_ON = "max,sve128=on,sve256=off,sve384=off,sve512=off,sme=off"

ARM_TIERS: tuple[EmulatedArm, ...] = (
    EmulatedArm(
        "arm64-cortex-a53",
        "2012, in order, no dot product (Raspberry Pi 3)",
        cpu="cortex-a53",
        midr=0x410FD034,
        counted_on="cortex-a53",
        board=PI_3,
    ),
    EmulatedArm(
        "arm64-cortex-a55",
        "2017, in order, SDOT (little core of most phones)",
        cpu="cortex-a55",
        midr=0x412FD050,
        features=_DOT,
        counted_on="cortex-a76",
    ),
    EmulatedArm(
        "arm64-cortex-a72",
        "2015, no dot product (Raspberry Pi 4)",
        cpu="cortex-a72",
        midr=0x410FD083,
        counted_on="cortex-a72",
        board=PI_4,
    ),
    EmulatedArm(
        "arm64-cortex-a76",
        "2018, SDOT (Raspberry Pi 5, phones)",
        cpu="cortex-a76",
        midr=0x414FD0B1,
        features=_DOT,
        counted_on="cortex-a76",
        board=PI_5,
    ),
    EmulatedArm(
        "arm64-neoverse-n1",
        "2019, SDOT (servers, e.g. AWS Graviton2)",
        cpu="neoverse-n1",
        midr=0x414FD0C1,
        features=_DOT,
        counted_on="neoverse-n1",
    ),
    EmulatedArm(
        "arm64-cortex-a710",
        "2021, SMMLA and SVE2 (phones)",
        cpu="cortex-a710",
        midr=0x412FD471,
        features=_SVE,
        counted_on=_V9_COUNTED_ON,
    ),
    EmulatedArm(
        "arm64-neoverse-n2",
        "2020, SMMLA and SVE2 (servers, e.g. Azure Cobalt)",
        cpu="neoverse-n2",
        midr=0x410FD493,
        features=_SVE,
        counted_on=_V9_COUNTED_ON,
    ),
    EmulatedArm(
        "arm64-i8mm",
        "SMMLA without SVE: all that the int8 kernels ask for, no core in particular",
        cpu="max,sve=off,sme=off",
        midr=0x000F0510,
        features=_MATRIX,
        counted_on="max,sve=off,sme=off",
    ),
    EmulatedArm(
        "armv7-cortex-a7", "32-bit ARM with NEON, ONNX Runtime 1.21", cpu="cortex-a7", system="armv7"
    ),
)
