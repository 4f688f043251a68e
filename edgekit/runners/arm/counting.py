"""Count the instructions of one inference, by class, inside the emulator.

The plugin interface is in QEMU 7.2's dynamic build and in no later one of Debian's, and that QEMU knows fewer
cores. A core that it lacks is counted on a core with the same instructions, while /proc/cpuinfo, which the
runtime chooses its kernels by, names the core that is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.errors import RunnerFailedError
from edgekit.runners.arm.decode import by_class, multiply_adds, plugin_table
from edgekit.runners.arm.kit import runner_command
from edgekit.runners.base import Counts, Job, Measure
from edgekit.runners.job_folder import write_job
from edgekit.runners.process import run_child
from edgekit.store import workspace


@dataclass(frozen=True)
class Counted:
    """What was counted.

    Attributes:
        counts: Instructions by class, per point.
        multiply_adds: Point -> class -> multiply-adds that the job's model executed.
        float_multiply_adds: The same of the float model.
    """

    counts: tuple[Counts, ...]
    multiply_adds: Mapping[str, Mapping[str, int]]
    float_multiply_adds: Mapping[str, Mapping[str, int]]


def count_instructions(
    runner: str, kit: Path, cpu: str, midr: int, job: Job, measure: Measure, env: Mapping[str, str]
) -> Counted:
    """Count one inference of each model at each point, on one thread, after one that allocates.

    Args:
        runner: Name of the runner, for messages.
        kit: The kit's folder.
        cpu: The counting emulator's name for the CPU.
        midr: The main identification register that /proc/cpuinfo shows.
        job: Its model, session options and timeout.
        measure: Its float model and points.
        env: The guest's environment; part of what makes counts repeatable.

    Raises:
        RunnerFailedError: It fails or hangs, or something was not counted.
    """
    counting = kit / "counting"
    plugin = str(counting / "count.so").replace(",", ",,")
    emulator: list[str | Path] = [
        *(counting / "lib" / "ld-linux-x86-64.so.2", "--library-path", counting / "lib"),
        *(counting / "qemu-aarch64", "-cpu", cpu, "-L", "root"),
        *("-plugin", f"{plugin},classes=classes.txt,out=counts.txt"),
    ]
    with workspace() as folder:
        write_job(replace(job, batches=(), threads=1, measure=measure), folder)
        _fill_root(midr, folder / "root")
        (folder / "classes.txt").write_text(plugin_table(), encoding="ascii")
        command = [*runner_command(kit, "arm64", emulator), ".", "count"]
        run_child(runner, command, timeout_s=job.timeout_s, env=env, cwd=folder)
        found = _read((folder / "counts.txt").read_text(encoding="ascii"))
    models = 1 if measure.float_model is None else 2
    if len(found) != models * len(measure.points):
        raise RunnerFailedError(runner, "failed", f"{len(found)} counts, not {models * len(measure.points)}")
    by_point = {
        point: (found.get(2 * index), found[2 * index + 1]) for index, point in enumerate(measure.points)
    }
    return Counted(
        tuple(
            Counts(point, by_class(*baseline) if baseline else {}, by_class(*shipped))
            for point, (baseline, shipped) in by_point.items()
        ),
        {point: multiply_adds(shipped[1]) for point, (_, shipped) in by_point.items()},
        {point: multiply_adds(baseline[1]) for point, (baseline, _) in by_point.items() if baseline},
    )


def _read(text: str) -> dict[int, tuple[int, list[int]]]:
    """Return mark (twice the point, plus 1 for the shipped model) -> (all, those of each pattern)."""
    lines = [[int(word) for word in line.split()] for line in text.splitlines()]
    return {number: (total, executed) for number, total, *executed in lines}


def _fill_root(midr: int, root: Path) -> None:
    """Write the files that the runtime finds out about the CPU by; QEMU 7.2 would show this machine's.

    Its features come from the auxiliary vector, which the emulator fills.
    Source: Linux, arch/arm64/kernel/cpuinfo.c; pytorch/cpuinfo, src/arm/linux; DDI 0487, MIDR_EL1.
    """
    system = root / "sys" / "devices" / "system" / "cpu"
    system.mkdir(parents=True)
    for name in ("possible", "present", "online"):
        (system / name).write_text("0\n", encoding="ascii")
    (root / "proc").mkdir()
    lines = (
        "processor\t: 0",
        "Features\t: fp asimd",
        f"CPU implementer\t: 0x{midr >> 24:02x}",
        "CPU architecture: 8",
        f"CPU variant\t: 0x{midr >> 20 & 0xF:x}",
        f"CPU part\t: 0x{midr >> 4 & 0xFFF:03x}",
        f"CPU revision\t: {midr & 0xF}",
    )
    (root / "proc" / "cpuinfo").write_text("\n".join(lines) + "\n", encoding="ascii")
