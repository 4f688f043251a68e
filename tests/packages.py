"""Packages of one matrix product, written without an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekit.golden import Golden, GoldenBatch
from edgekit.machine import read_machine, versions
from edgekit.model import Signature, TensorSpec
from edgekit.package.manifest import NAME, file_digests
from edgekit.profile import profile_from_table
from edgekit.record import Check, Footprint, LatencyPoint, StepRecord, Verdict
from edgekit.report.document import TargetReport
from edgekit.store import dump_json

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, {width}] x) => (float[batch, 4] output) {{ output = MatMul (x, w) }}
"""


def make_package(
    folder: Path,
    *,
    width: int = 8,
    error: float = 0.0,
    isa: str | None = None,
    task: str = "generic",
    target: str = "here",
    steps: Sequence[StepRecord] = (),
    speedups: Sequence[float] = (2.0,),
    float_bytes: int = 1000,
    sqnr_db: float = 40.0,
    seed: int = 0,
    report: bool = True,
) -> Path:
    """Write a package and return its folder.

    Args:
        folder: To be made.
        width: Columns of the input; the weight has four rows for each.
        error: Added to the weight.
        isa: Instruction set of its target; None takes this machine's.
        task: Name of its task.
        target: Name of its target.
        steps: Records between loading and packaging.
        speedups: Reported speed-ups, one per shape.
        float_bytes: Reported size of its float graph.
        sqnr_db: Reported quality.
        seed: Of inputs and weight; another one is another model.
        report: Whether it holds a report.
    """
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    weight = random.normal(size=(width, 4)).astype(np.float32)
    x = random.normal(size=(6, width)).astype(np.float32)
    proto = onnx.parser.parse_model(TEXT.format(width=width))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight + np.float32(error), "w"))
    onnx.save(proto, folder / "model.onnx")
    Golden(task, (GoldenBatch({"x": x}, {"output": x @ weight}),)).save(folder / "golden.npz")
    profile = profile_from_table(
        target,
        {
            "title": "For tests",
            "status": "Only in tests.",
            "hardware": {"isa": isa or read_machine().isa},
            "onnx": {"opset": 20, "ir_version": 10, "min_runtime": "1.18"},
            "quantization": {"activation_type": "uint8", "weight_type": "int8"},
            "runtime": {"points": [[1, 1], [4, 1]]},
        },
    )
    signature = Signature(
        (TensorSpec("x", "float32", ("batch", width)),), (TensorSpec("output", "float32", ("batch", 4)),)
    )
    size = (folder / "model.onnx").stat().st_size
    verdict = Verdict(
        target,
        (Check("sqnr_db", "Signal over noise", sqnr_db, "dB", ">=", 10.0),),
        tuple(_point(str(index + 1), value) for index, value in enumerate(speedups)),
        "in turns" if speedups else "not measured here: the target is elsewhere",
        Footprint(float_bytes, float_bytes),
        Footprint(size, size, 1.0, 5_000_000),
    )
    history = (
        StepRecord("load", "torch", "Loaded a net.", seconds=1.5),
        *steps,
        StepRecord("package", "folder", "wrote the package", seconds=0.5),
    )
    model = {"name": "net", "task": task, "source_sha256": f"{seed:064x}"}
    if report:
        document = TargetReport(
            "net", task, f"{seed:064x}", profile, signature, read_machine(), versions(), verdict, history, ""
        )
        (folder / "report.json").write_text(dump_json(document.to_json()))
    manifest: Mapping[str, Any] = {
        "schema_version": 1,
        "model": model,
        "target": target,
        "profile": profile.model_dump(mode="json"),
        "graphs": {"model": "model.onnx"},
        "signature": signature.to_json(),
        "float": {"file_bytes": float_bytes, "compressed_bytes": float_bytes},
        "history": [record.to_json(measured=False) for record in history],
        "files": file_digests(folder),
    }
    (folder / NAME).write_text(dump_json(manifest))
    return folder


def _point(shape: str, speedup: float) -> LatencyPoint:
    return LatencyPoint(
        shape, 1, 20, 8.0, 9.0, 8 / speedup, 9 / speedup, speedup, speedup * 0.98, speedup * 1.02, 0.95
    )
