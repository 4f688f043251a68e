"""Run a job in a Python process: any interpreter that has numpy and onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekit.runners import child
from edgekit.runners.base import Job, Result
from edgekit.runners.job_folder import read_result, write_job
from edgekit.runners.process import run_child
from edgekit.store import workspace


def run_in_python(
    runner: str,
    python: Path,
    job: Job,
    *,
    env: Mapping[str, str] | None = None,
    program: Sequence[str] = (child.__file__,),
) -> Result:
    """Run a job with an interpreter.

    Args:
        runner: Name of the runner, for messages.
        python: The interpreter.
        job: What to run.
        env: Variables to set beside this process's.
        program: What the interpreter runs; the job's folder comes after it.

    Raises:
        RunnerFailedError: The model does not load, fails, crashes or hangs there.
    """
    with workspace() as folder:
        write_job(job, folder)
        run_child(
            runner,
            [python, *program, folder],
            timeout_s=job.timeout_s,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", **(env or {})},
            memory_limit_bytes=job.memory_limit_bytes,
        )
        return read_result(job, folder, runner)
