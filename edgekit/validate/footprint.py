"""What a model file costs: bytes, compressed bytes, load time, memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from edgekit.errors import ModelError
from edgekit.record import Footprint
from edgekit.runtime import open_session
from edgekit.store import deflated_bytes

_LOADS = 5
_EDGEKIT = str(Path(__file__).parents[2])
"""Where this very edgekit is found, also when the process that asks has another working directory."""


def measure_footprint(
    model: Path, golden: Path, *, threads: int, session_options: Mapping[str, str], measured: bool = True
) -> Footprint:
    """Return size, compressed size, load time and memory of a model.

    Args:
        model: The file.
        golden: The golden file, whose first batch is run once for the memory figure.
        threads: Intra-op threads.
        session_options: Session configuration entries.
        measured: False leaves out time and memory: the target's CPU is not this one.
    """
    files = [path for path in (model, model.with_name(model.name + ".data")) if path.exists()]
    file_bytes = sum(path.stat().st_size for path in files)
    compressed = sum(deflated_bytes(path) for path in files)
    if not measured:
        return Footprint(file_bytes, compressed)
    seconds = []
    for _ in range(_LOADS):
        begin = time.perf_counter()
        open_session(model, threads=threads, session_options=session_options)
        seconds.append(time.perf_counter() - begin)
    memory = session_memory_bytes(model, golden, threads=threads, session_options=session_options)
    return Footprint(file_bytes, compressed, statistics.median(seconds) * 1e3, memory)


def session_memory_bytes(
    model: Path, golden: Path, *, threads: int, session_options: Mapping[str, str]
) -> int:
    """Return the peak memory that a session and one run add to a process of their own, in bytes.

    Raises:
        ModelError: The process fails; its last line is passed on.
    """
    request = {
        "model": str(model),
        "golden": str(golden),
        "threads": threads,
        "session_options": dict(session_options),
    }
    result = subprocess.run(
        [sys.executable, "-m", "edgekit.validate.memory_probe", json.dumps(request)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([_EDGEKIT, os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        last = (result.stderr.strip() or f"exit {result.returncode}").splitlines()[-1]
        raise ModelError(f"measuring the memory of {model.name} failed: {last}")
    return int(result.stdout.split()[-1])
