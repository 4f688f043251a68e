"""Compile a job's graph for a Hexagon processor, and run what was compiled in Qualcomm's simulation of it.

    python -m edgekit.runners.qnn_child KIT_FOLDER HTP_ARCH JOB_FOLDER

No node may be left to the CPU: a session that would need it for one is refused by the runtime.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from edgekit.runners.child import run_job, session_options, told_in_one_line

PROVIDER = "QNNExecutionProvider"


def main(kit: Path, htp_arch: str, folder: Path) -> None:
    """Run a job folder on a simulated processor.

    Args:
        kit: Where the libraries of the onnxruntime-qnn wheel are.
        htp_arch: Generation of the processor, e.g. `75`.
        folder: The job.
    """
    import onnxruntime as ort

    ort.register_execution_provider_library(PROVIDER, str(kit / "libonnxruntime_providers_qnn.so"))
    devices = [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]
    facts: dict[str, Any] = {}

    def open_session(path: Path, job: dict[str, Any]) -> Any:
        def opened(model: Path, **entries: str) -> Any:
            options = session_options(job)
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            for key, value in entries.items():
                options.add_session_config_entry(f"ep.{key}", value)
            backend = {"backend_path": str(kit / "libQnnHtp.so"), "htp_arch": htp_arch}
            options.add_provider_for_devices(devices, backend)
            return ort.InferenceSession(str(model), options)

        compiled, begin = path.with_name(f"{path.stem}_ctx.onnx"), time.perf_counter()
        opened(path, context_enable="1", context_file_path=str(compiled), context_embed_mode="1")
        facts["compile_seconds"] = time.perf_counter() - begin
        facts["compiled_bytes"] = compiled.stat().st_size
        return opened(compiled)

    run_job(folder, open_session)
    path = folder / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    result |= {"load_ms": None, "peak_memory_bytes": None}  # the simulation's, not the phone's
    result["facts"] |= facts
    path.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    told_in_one_line(lambda: main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
