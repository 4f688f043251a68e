"""Compile a job's graph for a Hexagon processor, and run what was compiled in Qualcomm's simulation of it.

    python -m edgekit.runners.qnn_child KIT_FOLDER HTP_ARCH JOB_FOLDER
    python -m edgekit.runners.qnn_child KIT_FOLDER HTP_ARCH MODEL COMPILED

No node may be left to the CPU: a session that would need it for one is refused by the runtime.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.runners.child import run_job, session_options, told_in_one_line

PROVIDER = "QNNExecutionProvider"


Opener = Callable[..., Any]


def opener(kit: Path, htp_arch: str) -> Opener:
    """Return a function that opens a model on the processor and nowhere else.

    Args:
        kit: Where the libraries of the onnxruntime-qnn wheel are.
        htp_arch: Generation of the processor, e.g. `75`.
    """
    import onnxruntime as ort

    ort.register_execution_provider_library(PROVIDER, str(kit / "libonnxruntime_providers_qnn.so"))
    devices = [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]

    def opened(model: Path | bytes, options: Any, **entries: str) -> Any:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        for key, value in entries.items():
            options.add_session_config_entry(f"ep.{key}", value)
        backend = {"backend_path": str(kit / "libQnnHtp.so"), "htp_arch": htp_arch}
        options.add_provider_for_devices(devices, backend)
        return ort.InferenceSession(model if isinstance(model, bytes) else str(model), options)

    return opened


def compile_model(opened: Opener, model: Path | bytes, options: Any, compiled: Path) -> None:
    """Compile a model into one file: an EPContext node that holds the processor's own program."""
    opened(model, options, context_enable="1", context_file_path=str(compiled), context_embed_mode="1")


def main(kit: Path, htp_arch: str, folder: Path) -> None:
    """Run a job folder on a simulated processor.

    Args:
        kit: Where the libraries of the onnxruntime-qnn wheel are.
        htp_arch: Generation of the processor, e.g. `75`.
        folder: The job.
    """
    opened = opener(kit, htp_arch)
    facts: dict[str, Any] = {}

    def open_session(path: Path, job: dict[str, Any]) -> Any:
        compiled, begin = path.with_name(f"{path.stem}_ctx.onnx"), time.perf_counter()
        compile_model(opened, path, session_options(job), compiled)
        facts["compile_seconds"] = time.perf_counter() - begin
        facts["compiled_bytes"] = compiled.stat().st_size
        return opened(compiled, session_options(job))

    run_job(folder, open_session)
    path = folder / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    result |= {"load_ms": None, "peak_memory_bytes": None}  # the simulation's, not the phone's
    result["facts"] |= facts
    path.write_text(json.dumps(result), encoding="utf-8")


def ahead_of_time(kit: Path, htp_arch: str, model: Path, compiled: Path) -> None:
    """Compile a model for a processor into a file and run nothing.

    The model is handed over as bytes: of a file, its path would go into the result.
    """
    import onnxruntime as ort

    compile_model(opener(kit, htp_arch), model.read_bytes(), ort.SessionOptions(), compiled)


if __name__ == "__main__":
    _kit, _arch, *_paths = sys.argv[1:]
    if len(_paths) == 1:
        told_in_one_line(lambda: main(Path(_kit), _arch, Path(_paths[0])))
    else:
        told_in_one_line(lambda: ahead_of_time(Path(_kit), _arch, Path(_paths[0]), Path(_paths[1])))
