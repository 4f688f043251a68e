"""OpenVINO's artifacts, in the environment that has it: python -m benchmarks.openvino_child REQUEST.

Writes the embeddings of each, and times them in turns with the plain fp32 export in ONNX Runtime, which lives
in the same environment. The request and what is printed at the end are JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino

from benchmarks.job import inputs_of, load_tokens
from benchmarks.timing import interleave


def compiled(path: str, options: Mapping[str, str], threads: int) -> Any:
    """Compile a model for the CPU with so many threads."""
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", **options}
    return openvino.Core().compile_model(path, "CPU", settings)


def runner(model: Any) -> Any:
    """Return a function: inputs → outputs, by one inference request that is kept."""
    names = [port.any_name for port in model.inputs]
    request = model.create_infer_request()

    def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        found = request.infer({name: inputs[name] for name in names}, share_inputs=True)
        return [np.array(found[port]) for port in model.outputs]

    return run


def reference(path: str, threads: int) -> Any:
    """Return a function that runs the plain export in ONNX Runtime, as the harness opens it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda inputs: session.run(None, {name: inputs[name] for name in names})


def main(request_path: str) -> None:
    """Do what the request asks for and print the result."""
    request = json.loads(Path(request_path).read_text())
    artifacts, result = request["artifacts"], {"outputs": {}, "times": [], "versions": {}}
    tokens = list(load_tokens(Path(request["held_out"])))
    for name, artifact in artifacts.items():
        model = compiled(artifact["path"], artifact["options"], 2)
        run = runner(model)
        result["outputs"][name] = [next(iter(port.names), "output") for port in model.outputs]
        np.savez(artifact["embeddings"], **{str(i): run(text)[0] for i, text in enumerate(tokens)})
    for threads in request["threads"]:
        runs = {"float32": reference(request["float_onnx"], threads)}
        runs |= {n: runner(compiled(a["path"], a["options"], threads)) for n, a in artifacts.items()}
        for batch, length in request["shapes"]:
            inputs = inputs_of(np.resize(np.array(request["ids"], np.int64), (batch, length)))
            calls = {name: (lambda run=run, inputs=inputs: run(inputs)) for name, run in runs.items()}
            times = interleave(calls, turns=request["turns"], seconds=request["seconds"])
            result["times"].append({"threads": threads, "shape": f"{batch}x{length}", "ms": times})
    result["versions"] = {"openvino": openvino.__version__, "onnxruntime": onnxruntime.__version__}
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
