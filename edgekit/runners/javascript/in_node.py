"""Node.js: ONNX Runtime as WebAssembly, and its native binding."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.record import Level
from edgekit.runners.base import Job, Result
from edgekit.runners.javascript import kits
from edgekit.runners.job_folder import read_result, write_job
from edgekit.runners.kit import Kit, State, kit_state, open_kit
from edgekit.runners.process import run_child
from edgekit.store import workspace

_SCRIPT = Path(__file__).with_name("in_node.mjs")
_MODULES = {"wasm": "onnxruntime-web/dist/ort.node.min.mjs", "native": "onnxruntime-node/dist/index.js"}
WASM_PAGE_BYTES = 65536
"""Unit that a WebAssembly memory grows by. Source: WebAssembly core specification, memory instances."""


@dataclass(frozen=True)
class InNode:
    """A job in Node.js, in a process of its own.

    For WebAssembly a job's memory limit holds for the memory of the WebAssembly instance, which is all that
    the runtime has: V8 reserves addresses by the tens of gigabytes and does not start with fewer.

    Attributes:
        name: What `--on` takes.
        title: One line that says what it stands for.
        kit: The runtime, and Node.js itself.
        build: Which of the two runtimes it is.
        level: Both run on this CPU, as it is.
    """

    name: str
    title: str
    kit: Kit
    build: Literal["wasm", "native"]
    level: Level = "native"

    def state(self) -> State:
        """Return whether the kit is installed."""
        reason = kits.unsupported()
        return State(reason) if reason else kit_state(self.kit)

    def run(self, job: Job) -> Result:
        """Run a job.

        Raises:
            RunnerMissingError: The kit is not installed, or its files are damaged.
            RunnerFailedError: The model does not load there, fails, crashes, is killed, or hangs.
        """
        kit_folder = open_kit(self.kit)
        limit = job.memory_limit_bytes
        in_wasm = self.build == "wasm"
        flags = wasm_memory_flags(limit) if in_wasm else ()
        with workspace() as folder:
            write_job(job, folder)
            module = kit_folder / "node_modules" / _MODULES[self.build]
            run_child(
                self.name,
                [kits.node_program(kit_folder), *flags, _SCRIPT, self.build, module, folder],
                timeout_s=job.timeout_s,
                env=_environment(),
                memory_limit_bytes=None if in_wasm else limit,
            )
            return read_result(job, folder, self.name)


def wasm_memory_flags(limit_bytes: int | None) -> tuple[str, ...]:
    """Return the options of V8 that limit the memory of a WebAssembly instance."""
    return () if limit_bytes is None else (f"--wasm-max-mem-pages={limit_bytes // WASM_PAGE_BYTES}",)


def _environment() -> dict[str, str]:
    """Return this process's environment without what would change Node: NODE_OPTIONS, NODE_PATH and so on."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("NODE_", "npm_"))}
    return {**kept, "ORT_DISABLE_TELEMETRY": "1"}


WASM_NODE = InNode(
    "wasm-node", "ONNX Runtime as WebAssembly (onnxruntime-web), in Node.js", kits.WEB_KIT, "wasm"
)
NODE = InNode("node", "ONNX Runtime's native binding for Node.js", kits.NODE_KIT, "native")
