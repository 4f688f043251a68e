"""Every promised architecture through load, export, rewrites, calibration and int8, with what became of it.

The models have random weights (`benchmarks/zoo.py`), so the signal-to-noise ratio shows that nothing is
broken, not how accurate a trained model would be.

Run from the checkout: python -m benchmarks.architectures
Writes benchmarks/results/architectures.json; `make docs` then writes docs/architectures.md from it.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.zoo import ARCHITECTURES, LONG, Architecture, samples, save
from edgekit import graph as g
from edgekit.errors import EdgekitError
from edgekit.golden import Golden
from edgekit.machine import versions
from edgekit.model import ModelRef, OnnxModel
from edgekit.optimize import optimize
from edgekit.optimize.probe_shapes import probe_shapes
from edgekit.profile import load_profile
from edgekit.quantize import Calibration, calibrate, quantize
from edgekit.recipe import QuantizeOptions
from edgekit.record import Skip, StepRecord
from edgekit.runtime import open_session
from edgekit.source import load
from edgekit.store import dump_json, write_text
from edgekit.tasks.batches import SingleBatches, golden_batches
from edgekit.to_onnx import export_model, record_golden
from edgekit.tuning import Ratio, thread_times
from edgekit.validate.explanation.kernels import Wiring, explained
from edgekit.validate.explanation.record import ExplainedNode
from edgekit.validate.explanation.trace import trace
from edgekit.validate.parity import check_float, run_golden
from tools.texts import standard_library_texts

OUTPUT = Path(__file__).parent / "results" / "architectures.json"
TARGETS = ("cpu-x86", "arm64")
CALIBRATION, HELD_OUT = 32, 12
_TIMED_SAMPLES, _TURNS = 16, 25
_INT8_ON_X86 = {"session.qdqisint8allowed": "1"}
"""Lets ONNX Runtime here take int8 activations as ARM builds do; otherwise it makes uint8 ones of them."""


@dataclass(frozen=True)
class Product:
    """A MatMul, Gemm or Conv with a constant weight in a float graph.

    Attributes:
        name: Its node.
        multiply_adds: For the first of two probed input sizes; 0 where shapes are not known.
        int8: Whether the quantized graph has its weight in int8 and its activation in 8 bits.
        why: Why not, as the records say; empty where nothing says it.
    """

    name: str
    multiply_adds: int
    int8: bool
    why: str = ""


@dataclass(frozen=True)
class Outcome:
    """What one target made of an architecture.

    Attributes:
        products: Those with constant weights.
        sqnr_db: Power of the float outputs over the power of the error, over all outputs.
        shapes: Batch shapes that ran.
        left_float: Nodes of ONNX Runtime's optimized graph that compute in float: (op, reason) -> how many.
        left_over: Q and DQ that no int8 kernel needs, in the same form.
        float_bytes: Size of the float file.
        int8_bytes: Size of the quantized file.
    """

    products: tuple[Product, ...]
    sqnr_db: float
    shapes: tuple[tuple[int, ...], ...]
    left_float: dict[tuple[str, str], int] = field(default_factory=dict)
    left_over: dict[tuple[str, str], int] = field(default_factory=dict)
    float_bytes: int = 0
    int8_bytes: int = 0

    @property
    def coverage(self) -> float:
        """Share of the multiply-adds with constant weights that int8 products do."""
        total = sum(product.multiply_adds for product in self.products)
        return sum(p.multiply_adds for p in self.products if p.int8) / total if total else math.nan


@dataclass(frozen=True)
class Prepared:
    """An architecture's float graph, as exported and rewritten, with the golden's file and statistics."""

    exported: OnnxModel
    model: OnnxModel
    golden: Path
    calibration: Calibration


def rewrites_of(history: Sequence[StepRecord]) -> dict[str, int]:
    """Return how often each rewrite of the float graph applied."""
    facts = next(record for record in history if record.stage == "optimize").facts
    done = facts["rewrites"]
    assert isinstance(done, dict)
    fixed = {"folded norms": facts["batch_norms_folded"], "pools": facts["means_to_pools"]}
    return {name: int(count) for name, count in (fixed | done).items() if isinstance(count, int)}


@cache
def texts() -> tuple[str, ...]:
    """Return the texts that text models are fed."""
    return tuple(standard_library_texts(CALIBRATION + HELD_OUT))


def prepare(architecture: Architecture, folder: Path) -> Prepared:
    """Load, export, compare with PyTorch, rewrite, compare again and calibrate.

    Raises:
        EdgekitError: The model cannot be taken; the message says why.
    """
    spec = save(architecture, folder / "model", texts())
    found = samples(architecture, texts(), CALIBRATION + HELD_OUT)
    model, profile = load(ModelRef(spec), architecture.task, scratch=folder), load_profile(TARGETS[0])
    golden = record_golden(model, golden_batches(model.preprocessor, found[CALIBRATION:]))
    golden.save(folder / "golden.npz")
    exported = export_model(model, folder, opset=profile.onnx.opset, ir_version=profile.onnx.ir_version)
    exported = exported.with_step(check_float(exported, golden)[1])
    floats = optimize(exported, folder / "rewritten.onnx", profile.optimize.rewrites)
    floats = floats.with_step(check_float(floats, golden)[1])
    calibration = calibrate(floats, SingleBatches(model.preprocessor, found[:CALIBRATION]))
    return Prepared(exported, floats, folder / "golden.npz", calibration)


def outcome(start: Prepared, target: str, folder: Path) -> Outcome:
    """Quantize a float graph for a target, run it on the golden, and look at what became of each product."""
    profile, golden = load_profile(target), Golden.load(start.golden)
    path = folder / f"{target}.onnx"
    model = quantize(start.model, start.calibration, profile, QuantizeOptions(), path)
    options = _INT8_ON_X86 if profile.quantization.activation_type == "int8" else {}
    session = open_session(model.only.path, session_options=options)
    outputs = run_golden(session, golden, model.only.path)
    nodes = _optimized(model, start.golden, options)
    return Outcome(
        products=products(start.model, model),
        sqnr_db=sqnr_db(golden, outputs),
        shapes=tuple(sorted({tuple(next(iter(b.inputs.values())).shape) for b in golden.batches})),
        left_float=_grouped(n for n in nodes if n.role in ("float product", "float op")),
        left_over=_grouped(n for n in nodes if n.needed is False),
        float_bytes=start.model.file_bytes,
        int8_bytes=model.file_bytes,
    )


def products(before: OnnxModel, after: OnnxModel) -> tuple[Product, ...]:
    """Match each product with a constant weight in a float graph with what the quantized graph made of it."""
    shapes = probe_shapes(before.only.path, before.only.signature)
    quantized = {node.name: node for node in g.load(after.only.path).graph}
    skips = [skip for record in after.history if record.stage == "quantize" for skip in record.skipped]
    found = []
    for node in g.nodes(g.load(before.only.path).graph, "MatMul", "Gemm", "Conv"):
        constants = [g.constant(value) for value in node.inputs[:2]]
        weight = next((array for array in constants if array is not None), None)
        if weight is None:
            continue
        made = shapes.get(node.outputs[0].name or "")
        count = math.prod(made[0]) * _terms(node, weight) if made else 0
        int8 = _reads_codes(quantized.get(node.name))
        found.append(Product(node.name or "", count, int8, "" if int8 else _reason(node, skips)))
    return tuple(found)


def _terms(node: Any, weight: np.ndarray) -> int:
    """Return how many multiply-adds make one number of a product's output."""
    if node.op_type == "Conv":
        return math.prod(weight.shape[1:])
    if g.constant(node.inputs[1]) is None:
        return int(weight.shape[-1])
    flip = "transB" in node.attributes and node.attributes["transB"].as_int() == 1
    return int(weight.shape[-1 if flip else -2] if weight.ndim > 1 else weight.shape[0])


def _reads_codes(node: Any) -> bool:
    """Return whether a product reads an 8-bit activation and an int8 weight."""
    if node is None:
        return False
    makers = [value.producer() for value in node.inputs[:2]]
    if not all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers):
        return False
    codes = g.constant(makers[1].inputs[0])
    return codes is not None and codes.dtype == np.int8


def _reason(node: Any, skips: Sequence[Skip]) -> str:
    return next((skip.why for skip in skips if skip.what == f"{node.op_type} {node.name}"), "")


def sqnr_db(golden: Golden, outputs: Sequence[dict[str, np.ndarray]]) -> float:
    """Return the signal-to-noise ratio of outputs against the golden's, in decibels."""
    signal = noise = 0.0
    for batch, found in zip(golden.batches, outputs, strict=True):
        for name, reference in batch.outputs.items():
            signal += float(np.square(reference.astype(np.float64)).sum())
            noise += float(np.square(reference.astype(np.float64) - found[name]).sum())
    return 10 * math.log10(signal / noise) if noise else math.inf


def _optimized(model: OnnxModel, golden: Path, options: dict[str, str]) -> tuple[ExplainedNode, ...]:
    """Return the nodes of the graph that ONNX Runtime makes of a quantized one."""
    skips = [skip for record in model.history if record.stage == "quantize" for skip in record.skipped]
    graph, points = trace(
        model.only.path,
        Golden.load(golden),
        ((2, 8),),
        max_length=None,
        threads=1,
        session_options=options,
        timed=False,
    )
    wiring = Wiring.of(graph)
    (point,) = points.values()
    return tuple(explained(kernel, wiring, skips) for kernel in point.kernels)


def _grouped(nodes: Iterable[ExplainedNode]) -> dict[tuple[str, str], int]:
    return dict(sorted(Counter((node.op, node.why) for node in nodes).items()))


def row(architecture: Architecture) -> dict[str, Any]:
    """Return one row of the table; a refusal is a row with its reason."""
    out: dict[str, Any] = {"name": architecture.name, "model": architecture.model}
    with tempfile.TemporaryDirectory() as folder:
        try:
            start = prepare(architecture, Path(folder))
            out["rewrites"] = rewrites_of(start.model.history)
            out["targets"] = {target: _json(outcome(start, target, Path(folder))) for target in TARGETS}
            out["speed"] = measured_speed(architecture, Path(folder) / "wide")
        except EdgekitError as error:
            out["refused"] = error.message
    return out


def measured_speed(architecture: Architecture, folder: Path) -> list[dict[str, Any]]:
    """Return the speed-up of int8 over the float graph as exported, with layers as wide as in real models.

    Widths decide whether int8 pays, so the small model of the other columns would say nothing.
    """
    wide = replace(
        architecture, config=architecture.config | architecture.wide, image_size=architecture.timed
    )
    folder.mkdir()
    spec = save(wide, folder / "model", texts())
    found = samples(wide, texts(), _TIMED_SAMPLES)
    profile = load_profile(TARGETS[0])
    model = load(ModelRef(spec), wide.task, scratch=folder)
    golden = record_golden(model, golden_batches(model.preprocessor, found))
    exported = export_model(model, folder, opset=profile.onnx.opset, ir_version=profile.onnx.ir_version)
    floats = optimize(exported, folder / "rewritten.onnx", profile.optimize.rewrites)
    calibration = calibrate(floats, SingleBatches(model.preprocessor, found))
    options = QuantizeOptions(rounding="nearest")  # as fast as any other, and made sooner
    quantized = quantize(floats, calibration, profile, options, folder / "int8.onnx")
    files = {"float": exported.only.path, "int8": quantized.only.path}
    points = ((1, LONG),) if wide.takes == "text" else ((1, 1),)
    timed = thread_times(files, golden, points, profile.runtime.session_options, runs=_TURNS, max_length=LONG)
    return [
        {
            "shape": shape,
            "float_ms": round(float(np.median(times["float"])), 2),
            **asdict(Ratio.of(times["float"], times["int8"])),
        }
        for shape, times in timed.items()
    ]


def _json(found: Outcome) -> dict[str, Any]:
    def listed(groups: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
        return [{"op": op, "why": why, "count": count} for (op, why), count in groups.items()]

    return {
        "products": len(found.products),
        "int8_products": sum(product.int8 for product in found.products),
        "coverage": round(found.coverage, 4),
        "sqnr_db": round(found.sqnr_db, 1),
        "shapes": [list(shape) for shape in found.shapes],
        "float_bytes": found.float_bytes,
        "int8_bytes": found.int8_bytes,
        "skipped_products": [asdict(product) for product in found.products if not product.int8],
        "left_float": listed(found.left_float),
        "left_over": listed(found.left_over),
    }


def main(names: Sequence[str]) -> int:
    """Measure all architectures, or the named ones without writing the file; return the exit code."""
    chosen = [a for a in ARCHITECTURES if not names or a.name in names]
    rows = []
    for architecture in chosen:
        rows.append(row(architecture))
        print(dump_json(rows[-1]) if names else architecture.name, flush=True)
    if not names:
        document = {"command": "python -m benchmarks.architectures", "versions": versions(), "rows": rows}
        write_text(OUTPUT, dump_json(document))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
