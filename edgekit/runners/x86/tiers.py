"""The x86 tiers: which generations of CPUs are played, and the runner that plays one."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.errors import RunnerFailedError, RunnerMissingError
from edgekit.machine import read_machine
from edgekit.record import Level
from edgekit.runners.base import Job, Result
from edgekit.runners.kit import Kit, State, kit_state, open_kit
from edgekit.runners.python_child import run_in_python
from edgekit.runners.x86.features import cpuid_mask, features_of, glibc_tunables, hidden
from edgekit.runners.x86.overlay import PRELOAD, masked_kit
from edgekit.store import workspace

_AVX = ("avx",)
_AVX2 = (*_AVX, "f16c", "fma", "avx2")
_AVX512 = (*_AVX2, "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl")
_AVX512_VNNI = (*_AVX512, "avx512_vnni")


@dataclass(frozen=True)
class MaskedX86:
    """ONNX Runtime on this CPU with all but some features off, in a Python process of its own.

    Attributes:
        name: What `--on` takes.
        title: One line that says which CPUs it stands for.
        keeps: Features above SSE4.2 that stay; this CPU needs them all.
    """

    name: str
    title: str
    keeps: tuple[str, ...]
    level: Level = "masked"

    @property
    def kit(self) -> Kit | None:
        """The patched runtime, which all tiers share; None where there is none to patch."""
        return masked_kit() if _is_linux_x86_64() else None

    def state(self) -> State:
        """Return whether this CPU has what the tier keeps, and the kit is there."""
        if not _is_linux_x86_64():
            return State(f"it needs Linux on x86-64, and this is {platform.system()} on {platform.machine()}")
        has = read_machine().features or ()
        lacking = [name for name in self.keeps if name not in has]
        if lacking:
            return State(f"this CPU has no {', no '.join(lacking)}")
        kit = self.kit
        return State("onnxruntime is not installed", "pip install edgekit") if kit is None else kit_state(kit)

    def run(self, job: Job) -> Result:
        """Run a job in a fresh process that sees the tier's features.

        `cpu_features` are what CPUID answers there, read through the same handler.
        """
        kit, state = self.kit, self.state()
        if not state.ready or kit is None:
            raise RunnerMissingError(
                f"{self.name}: {state.missing}", f"Run: {state.hint}" if state.hint else ""
            )
        folder, off = open_kit(kit), hidden(self.keeps)
        with workspace() as aside:
            report = aside / "cpuid.txt"
            env = {
                "PYTHONPATH": _joined(str(folder), os.environ.get("PYTHONPATH", "")),
                "LD_PRELOAD": _joined(str(folder / PRELOAD), os.environ.get("LD_PRELOAD", "")),
                "GLIBC_TUNABLES": _joined(glibc_tunables(off), os.environ.get("GLIBC_TUNABLES", "")),
                "EDGEKIT_CPUID_MASK": cpuid_mask(off),
                "EDGEKIT_CPUID_REPORT": str(report),
            }
            result = run_in_python(self.name, Path(sys.executable), job, env=env)
            asked, seen = _read(report, self.name)
        wrong = sorted(set(seen) & set(off)) or sorted(set(self.keeps) - set(seen))
        if asked == 0 or wrong:
            why = f"it saw {', '.join(wrong)}" if wrong else "the runtime never asked for the CPU's features"
            raise RunnerFailedError(self.name, "failed", f"masking did not work: {why}")
        facts = {**result.facts, "cpuid_answers": asked, "features_hidden": list(off)}
        return replace(result, cpu_features=seen, facts=facts)


def _read(report: Path, runner: str) -> tuple[int, tuple[str, ...]]:
    """Return how often the runtime asked, and the features that it was told."""
    try:
        first, *lines = report.read_text(encoding="utf-8").splitlines()
        leaves = {}
        for line in lines:
            key, *registers = line.split()
            leaf, subleaf = key.split(".")
            leaves[int(leaf, 16), int(subleaf, 16)] = tuple(int(value, 16) for value in registers)
        return int(first.removeprefix("asked ")), features_of(leaves)
    except (OSError, ValueError) as error:
        raise RunnerFailedError(runner, "failed", f"masking cannot be proved: {error}") from None


def _joined(first: str, rest: str) -> str:
    return f"{first}:{rest}" if rest else first


def _is_linux_x86_64() -> bool:
    return sys.platform == "linux" and platform.machine() == "x86_64"


TIERS: tuple[MaskedX86, ...] = (
    MaskedX86("x86-sse", "SSE4.2 and no AVX: small Atom, Celeron and Pentium CPUs", ()),
    MaskedX86("x86-avx", "AVX: Sandy Bridge, Ivy Bridge, Bulldozer", _AVX),
    MaskedX86("x86-avx2", "AVX2 and FMA: Haswell to Comet Lake, Zen 1 to Zen 3", _AVX2),
    MaskedX86("x86-avx-vnni", "AVX2 with VNNI: Alder Lake and newer Core CPUs", (*_AVX2, "avx_vnni")),
    MaskedX86("x86-avx512", "AVX-512 without VNNI: Skylake-SP", _AVX512),
    MaskedX86("x86-avx512-vnni", "AVX-512 with VNNI: Cascade Lake, Ice Lake, Zen 4", _AVX512_VNNI),
    MaskedX86("x86-amx", "AMX: Sapphire Rapids and newer", (*_AVX512_VNNI, "amx_tile", "amx_int8")),
)
"""Ascending; the runtime takes other kernels on each."""
