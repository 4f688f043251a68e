"""The one way to open an ONNX Runtime session.

ONNX Runtime 1.29 and newer send telemetry unless `ORT_DISABLE_TELEMETRY=1` is set before it is imported
(Source: onnxruntime pull request 27379), so nothing else in edgekit imports it first.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.errors import ModelError

_NO_SPINNING = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}
"""Two sessions that are timed in turns must not burn each other's cores while they wait."""


def import_onnxruntime() -> Any:
    """Return the onnxruntime module, telemetry off."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def import_quantization() -> Any:
    """Return onnxruntime's quantization package, telemetry off."""
    import_onnxruntime()
    from onnxruntime import quantization
    from onnxruntime.quantization.execution_providers import qnn  # noqa: F401  - not loaded by the package

    return quantization


def usable_cores() -> int:
    """Return how many logical CPUs this process may use, for runs that are not timed."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def let_go() -> None:
    """Give the memory that nothing refers to any more back to the system.

    Graphs and modules refer to themselves, so only the collector finds them; and glibc keeps what is freed
    between things that are still used, 100 MB of it in an export of all-MiniLM-L6-v2.
    Source: glibc manual, malloc_trim(3).
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)


def open_session(
    model: Path | bytes,
    *,
    threads: int = 1,
    optimize: bool = True,
    session_options: Mapping[str, str] | None = None,
    profile_prefix: Path | None = None,
    optimized_path: Path | None = None,
) -> Any:
    """Open a model on the CPU.

    Args:
        model: A file, or a serialized model.
        threads: Intra-op threads; they do not spin between runs.
        optimize: All graph optimizations, or none.
        session_options: Extra configuration entries, as a profile names them.
        profile_prefix: Record a profile to files that begin so.
        optimized_path: Also write the graph as the runtime optimized it.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        ModelError: The runtime refuses the file; its message is passed on.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong comes as an exception, not as coloured lines
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    for key, value in {**_NO_SPINNING, **(session_options or {})}.items():
        options.add_session_config_entry(key, value)
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    source = model if isinstance(model, bytes) else str(model)
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises a family of its own, all derived from Exception
        name = "the model" if isinstance(model, bytes) else str(model)
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot open {name}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
