"""One step of one competitor in a process of its own: python -m benchmarks.child STEP NAME JOB RESULT.

STEP is `export` (the competitor's own float graph, where it wants one; not timed) or `make`. The result is
JSON.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.job import Job, file_bytes

PACKAGES = (
    "onnxruntime",
    "onnx",
    "torch",
    "transformers",
    "optimum",
    "optimum-onnx",
    "sentence-transformers",
    "nncf",
    "openvino",
    "olive-ai",
    "numpy",
)


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process: VmHWM, as getrusage carries the parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def versions() -> dict[str, str]:
    """Return the versions of what is installed here and matters."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main(step: str, name: str, job_path: str, result_path: str) -> int:
    """Run the step and write the result."""
    job = Job.load(Path(job_path))
    module = importlib.import_module(f"benchmarks.competitors.{name}")
    if step == "export":
        if hasattr(module, "export"):
            module.export(job)
        return 0
    wall, cpu = time.perf_counter(), time.process_time()
    artifact = module.make(job)
    result = artifact.to_json() | {
        "quantize_seconds": round(time.perf_counter() - wall, 2),
        "quantize_cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_memory_bytes": peak_memory_bytes(),
        "file_bytes": file_bytes(artifact.path),
        "versions": versions(),
    }
    Path(result_path).write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
