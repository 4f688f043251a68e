"""The table of student shapes in `docs/distillation.md`, from `results/student_shapes.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.compression_page import table

ABOUT = """
### Shapes

What a change of shape gains once the student is in int8 (`{target}`), over the same student without it: the
first layers of {teacher}, CPU times of one thread, all students of a depth in turns on a busy machine, so
that only the ratios mean something; median and 95 % interval. *Cosine* is that of the embeddings to the
unchanged student's before any training: what training has to win back. {cpu}, ONNX Runtime {onnxruntime}.
Again: `{command}`.
"""

RELU = """
With ReLU the runtime runs {relu[Gelu]} `Gelu`, {relu[Relu]} `Relu`, {relu[Mul]} `Mul` and
{relu[QuantizeLinear]} `QuantizeLinear` nodes where the teacher's shape takes {gelu[Gelu]}, {gelu[Relu]},
{gelu[Mul]} and {gelu[QuantizeLinear]}: the first product of a feed-forward block gives the codes that the
second one reads. *Between float values* is the control: the first product gives float, and `QuantizeLinear`
does the work of ReLU. On this CPU that is as fast or a little faster, for ONNX Runtime turns int32 sums into
codes in 128-bit registers and quantizes floats in wider ones: what is gained here is the activation and the
smoothing behind it, not the 8-bit output.
"""


ARM = """
On an emulated ARM core (`{core}`, target `{target}`, {layers} layers, {shape}) one inference takes {gelu:.1f}
million instructions in the teacher's shape, {relu:.1f} with ReLU, and {between:.1f} with ReLU between float
values. Again: `{command}`.
"""


def shapes_section(results: Mapping[str, Any]) -> str:
    """Return the table with what it means."""
    about = ABOUT.format(
        cpu=results["machine"]["cpu"],
        onnxruntime=results["versions"]["onnxruntime"],
        **{key: results[key] for key in ("target", "teacher", "command")},
    )
    rows = results["rows"]
    points = [point["shape"] for point in rows[0]["speed"]]
    head = ("layers", "student", *points, "parameters", "file", "cosine")
    lines = [
        (
            str(row["layers"]),
            row["student"],
            *(_ratio(point) for point in row["speed"]),
            f"{row['parameters']:,}",
            f"{row['file_bytes'] / 1e6:.1f} MB",
            f"{row['cosine_untrained']:.3f}",
        )
        for row in rows
    ]
    ops = {row["student"]: row["ops_that_run"] for row in reversed(rows)}
    relu = RELU.format(relu=ops["ReLU"], gelu=rows[0]["ops_that_run"])
    return f"{about}\n{table(head, lines)}{relu}{_on_arm(results)}"


def _on_arm(results: Mapping[str, Any]) -> str:
    """Return the instructions on ARM, where they were counted."""
    if "arm" not in results:
        return ""
    arm = results["arm"]
    forms = ("as the teacher's", "ReLU", "ReLU between float values")
    gelu, relu, between = (arm["instructions"][form]["total"] / 1e6 for form in forms)
    facts = {key: arm[key] for key in ("core", "target", "layers", "shape", "command")}
    return ARM.format(**facts, gelu=gelu, relu=relu, between=between)


def _ratio(point: Mapping[str, Any]) -> str:
    """Return the speed over the unchanged student's, which itself is 1."""
    low, high = point["interval"]
    return "1" if low == high == 1 else f"{point['speedup']:.2f}x ({low:.2f}–{high:.2f})"
