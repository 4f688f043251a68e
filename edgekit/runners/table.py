"""All runners, in the order to show them, and how a name on the command line becomes one."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.errors import ProfileError, RunnerMissingError, nearest
from edgekit.profile import TargetProfile
from edgekit.runners.adb import Adb
from edgekit.runners.arm.tiers import ARM_TIERS
from edgekit.runners.base import Runner
from edgekit.runners.javascript.chromium import CHROMIUM, CHROMIUM_2_THREADS
from edgekit.runners.javascript.in_node import NODE, WASM_NODE
from edgekit.runners.kit import Kit
from edgekit.runners.native import Native
from edgekit.runners.qnn import HTPS
from edgekit.runners.releases import RELEASES
from edgekit.runners.ssh import parse_ssh
from edgekit.runners.x86.tiers import TIERS as X86_TIERS

RUNNERS: tuple[Runner, ...] = (
    Native(),
    *X86_TIERS,
    *ARM_TIERS,
    WASM_NODE,
    CHROMIUM,
    CHROMIUM_2_THREADS,
    NODE,
    *RELEASES,
    *HTPS,
    Adb(),
)
"""Every runner that has a fixed name."""

TARGET = "target"
"""What `--on` takes for the runners that the target itself names."""


def runner_named(name: str) -> Runner:
    """Return the runner that a `--on` value names: one of `RUNNERS`, or a board.

    Raises:
        RunnerMissingError: There is none of that name.
    """
    if name.startswith("ssh://"):
        return parse_ssh(name)
    if name.startswith("adb://"):
        return Adb(name)
    for runner in RUNNERS:
        if runner.name == name:
            return runner
    raise RunnerMissingError(f"unknown runner '{name}'", nearest(name, [r.name for r in RUNNERS]))


def runners_named(names: Sequence[str], profile: TargetProfile) -> tuple[Runner, ...]:
    """Return the runners that `--on` values name, each once; `all` is every one that is ready and suits.

    Args:
        names: What the user wrote.
        profile: The target of what is to be run.

    Raises:
        RunnerMissingError: One is unknown, or is named itself and not ready.
    """
    chosen: dict[str, Runner] = {}
    for name in names:
        if name == "all":
            fit = (runner for runner in RUNNERS if suits(runner, profile) and runner.state().ready)
            chosen |= {runner.name: runner for runner in fit}
            continue
        runner = runner_named(name)
        state = runner.state()
        if not state.ready:
            raise RunnerMissingError(f"{name}: {state.missing}", f"Run: {state.hint}" if state.hint else "")
        chosen[runner.name] = runner
    return tuple(chosen.values())


def refuse_unknown_runners(profile: TargetProfile, asked: Sequence[str]) -> None:
    """Refuse, before any work, a runner that does not exist, or that is asked for and not ready.

    Raises:
        ProfileError: The target names a runner that does not exist.
        RunnerMissingError: The request does, or names one that is not ready.
    """
    for name in profile.verify.on:
        try:
            runner_named(name)
        except RunnerMissingError as error:
            raise ProfileError(f"target '{profile.name}': verify.on: {error.message}", error.hint) from None
    runners_named(without_target(asked), profile)


def without_target(asked: Sequence[str]) -> tuple[str, ...]:
    """Return the names without `target`."""
    return tuple(name for name in asked if name != TARGET)


def suits(runner: Runner, profile: TargetProfile) -> bool:
    """Return whether a target's files are meant to load there at all; any CPU counts, right or wrong.

    Not meant to: a release older than the target's floor, a processor that takes only graphs made for it.
    """
    if runner.level == "simulated":
        return profile.quantization.scope == "whole-graph"
    release = runner.name.removeprefix("ort-")
    if release == runner.name:
        return True
    return _version(release) >= _version(profile.onnx.min_runtime)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def with_native(runners: Sequence[Runner]) -> tuple[Runner, ...]:
    """Return the runners with the one that the others are compared with in front."""
    return (Native(), *(runner for runner in runners if runner.name != "native"))


def kits() -> tuple[Kit, ...]:
    """Return every kit, each once, in the order of the runners."""
    found = {runner.kit.name: runner.kit for runner in RUNNERS if runner.kit is not None}
    return tuple(found.values())
