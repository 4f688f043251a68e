"""The ORT format for mobile builds: `model.ort` and the operators that a reduced build needs.

Made by ONNX Runtime's own tool in a process of its own, since it configures logging and the environment.
Source: onnxruntime.tools.convert_onnx_models_to_ort, ONNX Runtime 1.31.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from edgekit.errors import GateError, MachineError
from edgekit.golden import Golden
from edgekit.record import Clock, StepRecord
from edgekit.runtime import import_onnxruntime, open_session, usable_cores
from edgekit.store import workspace
from edgekit.tasks import task_named
from edgekit.validate.parity import run_golden

MODEL_NAME = "model.ort"
OPERATORS_NAME = "model.required_operators.config"
_CHECKED_BATCHES = 4

# The converter orders tables by a hash that is seeded with an address, so its bytes differ from run to run
# unless addresses are fixed (ADDR_NO_RANDOMIZE). Where the system forbids that, only the order varies.
# Source: Linux personality(2); Abseil hash documentation, "hash functions are seeded per process".
_WITH_FIXED_ADDRESSES = """
import ctypes, os, sys
ctypes.CDLL(None).personality(0x0040000)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def check_ort_format(folder: Path, golden: Golden, budgets: Mapping[str, float]) -> StepRecord:
    """Run `model.ort` on recorded inputs, and read its required-operators config as a build would.

    Args:
        folder: Where both are.
        golden: Recorded inputs with the float model's outputs; its first batches are run.
        budgets: Thresholds by check name that come before the task's.

    Raises:
        ModelError: The runtime does not load or run `model.ort`.
        GateError: A measure of the task misses its budget, or the config cannot be read.
    """
    clock = Clock()
    some = Golden(golden.task, golden.batches[:_CHECKED_BATCHES])
    session = open_session(folder / MODEL_NAME, threads=usable_cores())
    compared = task_named(some.task).compare(some, run_golden(session, some, folder / MODEL_NAME))
    checks = [check.with_budget(budgets) for check in compared.checks]
    missed = next((check for check in checks if not check.passed), None)
    if missed is not None:
        raise GateError(
            f"{MODEL_NAME} is not as good as model.onnx: {missed.title} is {missed.measured:.4g}, required"
            f" {missed.comparison} {missed.budget:g}",
            "Set packaging.ort_format = false in the target to leave it out.",
        )
    operators = _read_operators(folder / OPERATORS_NAME)
    return clock.record(
        "package",
        "ort-format-check",
        f"ran {MODEL_NAME} on {some.samples} samples here; {operators} operators are in its config",
        measures={check.name: check.measured for check in checks},
    )


def _read_operators(path: Path) -> int:
    """Return how many operators a config names, as ONNX Runtime's own parser of such files reads it."""
    import_onnxruntime()
    from onnxruntime.tools.reduced_build_config_parser import parse_config

    try:
        required, _ = parse_config(str(path), False)
    except Exception as error:  # the parser raises RuntimeError and whatever its parts raise
        raise GateError(f"{path.name} cannot be read by ONNX Runtime's build: {error}") from None
    return sum(len(names) for domain in required.values() for names in domain.values())


def write_ort_format(model: Path, folder: Path, *, platform: str | None) -> StepRecord:
    """Write `model.ort` and its required-operators config beside each other.

    Args:
        model: The quantized `.onnx`.
        folder: Where to write.
        platform: `arm` or `amd64`: which kernels' types the optimizer may choose.

    Raises:
        MachineError: The converter fails; its last line is passed on.
    """
    clock = Clock()
    with workspace() as scratch:
        source, target = scratch / "in", scratch / "out"
        source.mkdir()
        target.mkdir()
        shutil.copy2(model, source / "model.onnx")
        command = [
            *("-m", "onnxruntime.tools.convert_onnx_models_to_ort", source.name),
            *("--output_dir", target.name, "--optimization_style", "Fixed"),
            *(("--target_platform", platform) if platform else ()),
        ]
        launcher = ("-c", _WITH_FIXED_ADDRESSES) if sys.platform == "linux" else ()
        environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
        result = subprocess.run(
            [sys.executable, *launcher, *command],
            cwd=scratch,
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        written = target / "model.ort"
        configs = sorted(target.glob("*.config"))
        if result.returncode != 0 or not written.is_file() or not configs:
            said = result.stderr.strip() or result.stdout.strip() or f"it ended with {result.returncode}"
            last = said.splitlines()[-1]
            raise MachineError(
                f"ONNX Runtime's converter could not write {MODEL_NAME}: {last}",
                "Set packaging.ort_format = false in the target to leave it out.",
            )
        shutil.copyfile(written, folder / MODEL_NAME)
        operators = configs[0].read_text(encoding="utf-8")
        kept = [line for line in operators.splitlines() if line and not line.startswith("#")]
        (folder / OPERATORS_NAME).write_text("\n".join(kept) + "\n", encoding="utf-8")
    return clock.record(
        "package",
        "ort-format",
        f"wrote {MODEL_NAME} for {platform or 'this platform'} and the operators that it needs;"
        " read it with a runtime no older than the one that wrote it",
        bytes_before=model.stat().st_size,
        bytes_after=(folder / MODEL_NAME).stat().st_size,
        operators=kept,
    )
