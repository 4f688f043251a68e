"""Embedding tables of all-MiniLM-L6-v2 in float, 8 and 4 bits: size, closeness, speed, and where they run.

Run from the checkout: python -m benchmarks.embeddings
Writes benchmarks/results/embeddings.json. The graph is quantized for `cpu-x86` and only its tables differ.
Times are CPU times of one thread, all forms in turns, so the machine may be busy. Of the runners, those that
are installed (`edgekit runners`) run both 4-bit forms, quantized for `cpu-x86-portable`; what they give is
held against this CPU's.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks.calibration import prepare
from benchmarks.rounding import closeness, embedded, texts_apart
from edgekit import graph as g
from edgekit.errors import RunnerFailedError
from edgekit.golden import Golden, GoldenBatch
from edgekit.machine import read_machine, versions
from edgekit.model import Graph, OnnxModel
from edgekit.profile import TargetProfile, load_profile
from edgekit.quantize import Calibration, calibrate, quantize
from edgekit.quantize.tables import store_tables
from edgekit.recipe import QuantizeOptions
from edgekit.runners.base import Job, Measure
from edgekit.runners.table import RUNNERS
from edgekit.store import deflated_bytes, dump_json, write_text
from edgekit.tasks.batches import SingleBatches
from edgekit.tasks.measures import cosines
from edgekit.tasks.text import TEXT_INPUTS, TextPreprocessor
from edgekit.validate.candidates import Timings
from edgekit.validate.footprint import session_memory_bytes
from edgekit.validate.latency import bootstrap_ratio
from edgekit.validate.side_by_side import Contestant, time_side_by_side

OUTPUT = Path(__file__).parent / "results" / "embeddings.json"
TARGET, PORTABLE = "cpu-x86", "cpu-x86-portable"
CALIBRATION_TEXTS = 256
HELD_OUT_TEXTS = 512
MAX_TOKENS = 256
RUNS = 60
FORMS = ("float", "int8", "int4", "int4 by GatherBlockQuantized")
PLACES = ("x86-sse", "x86-avx2", "arm64-cortex-a55", "armv7-cortex-a7", "wasm-node")
RELEASES = ("ort-1.18.0", "ort-1.19.2", "ort-1.20.1", "ort-1.22.1", "ort-1.23.2", "ort-1.30.0")


def measure(folder: Path) -> dict[str, Any]:
    """Quantize with tables of every form in `folder`, and return what is measured of each."""
    prepare(folder)
    path = folder / "float.onnx"
    model = OnnxModel((Graph("model", path, g.signature(g.load(path))),), 20, 10)
    preprocessor = TextPreprocessor.from_file(
        folder / "tokenizer.json", max_length=MAX_TOKENS, input_names=TEXT_INPUTS, pad_token_id=0
    )
    calibration, rest = texts_apart(folder / "texts.txt", CALIBRATION_TEXTS)
    statistics = calibrate(model, SingleBatches(preprocessor, calibration))
    files = {form: with_tables(model, statistics, TARGET, form, folder) for form in FORMS}
    portable = {form: with_tables(model, statistics, PORTABLE, form, folder) for form in FORMS[1:]}
    held_out = list(SingleBatches(preprocessor, rest[:HELD_OUT_TEXTS]))
    wanted = embedded(path, held_out)
    golden = Golden("sentence-embedding", (GoldenBatch(held_out[0], {"output": wanted[:1]}),))
    golden.save(folder / "golden.npz")
    points = load_profile(TARGET).runtime.points
    contestants = [Contestant(form, made, golden, MAX_TOKENS) for form, made in files.items()]
    timings, _ = time_side_by_side(contestants, points, runs=RUNS, threads=1, clock=time.thread_time)
    rows = []
    for form, made in files.items():
        size = session_memory_bytes(made, folder / "golden.npz", threads=1, session_options={})
        rows.append(
            {
                "tables": form,
                "file_bytes": made.stat().st_size,
                "compressed_bytes": deflated_bytes(made),
                "peak_memory_bytes": size,
                **closeness(wanted, embedded(made, held_out)),
                "speed_over_int8": speeds(timings, form, "int8"),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return {
        "command": "python -m benchmarks.embeddings",
        "machine": read_machine().to_json(),
        "versions": versions(),
        "target": TARGET,
        "calibration": len(calibration),
        "held_out": len(held_out),
        "threads": 1,
        "rows": rows,
        "lookup": lookups(path, folder),
        "places": places(portable, held_out[:4]),
    }


def with_tables(model: OnnxModel, statistics: Calibration, target: str, form: str, folder: Path) -> Path:
    """Return the file of the model for a target, with its tables in a form."""
    profile = load_profile(target)
    changed = {"embeddings": "float"} if form == "float" else {}
    if "Gather" in form:
        changed = {"int4_tables": "gather-block-quantized"}
    options = QuantizeOptions(embeddings="int4" if form.startswith("int4") else None)
    path = folder / f"{target}-{FORMS.index(form)}.onnx"
    return quantize(model, statistics, _changed(profile, changed), options, path).only.path


def _changed(profile: TargetProfile, rules: Mapping[str, str]) -> TargetProfile:
    return profile.model_copy(update={"quantization": profile.quantization.model_copy(update=dict(rules))})


def lookups(path: Path, folder: Path) -> list[dict[str, Any]]:
    """Return the time that reading rows takes by itself, in every form but float, against the 8-bit one."""
    table = max(
        (
            array
            for value in g.load(path).graph.initializers.values()
            if (array := g.constant(value)) is not None
        ),
        key=lambda array: array.size if array.ndim == 2 and array.dtype == np.float32 else 0,
    )
    files = {form: lookup(table, form, folder / f"lookup-{FORMS.index(form)}.onnx") for form in FORMS[1:]}
    ids = np.random.default_rng(0).integers(0, len(table), (8, MAX_TOKENS))
    golden = Golden("generic", (GoldenBatch({"ids": ids}, {"rows": np.zeros((8, 1), np.float32)}),))
    contestants = [Contestant(form, made, golden) for form, made in files.items()]
    shapes = ((1, 16), (1, 128), (8, 64))
    timings, _ = time_side_by_side(contestants, shapes, runs=400, threads=1, clock=time.thread_time)
    return [{"tables": form, "speed_over_int8": speeds(timings, form, "int8")} for form in files]


def lookup(table: np.ndarray, form: str, path: Path) -> Path:
    """Write a graph that does nothing but read rows of a table."""
    ids = ir.Value(name="ids", shape=ir.Shape(["batch", "sequence"]), type=ir.TensorType(ir.DataType.INT64))
    graph = ir.Graph([ids], [], nodes=[], opset_imports={"": 20}, name="lookup")
    node = ir.node("Gather", [g.add_constant(graph, "table", table), ids], name="lookup")
    rows = node.outputs[0]
    rows.name, rows.type = "rows", ir.TensorType(ir.DataType.FLOAT)
    rows.shape = ir.Shape(["batch", "sequence", table.shape[1]])
    graph.append(node)
    graph.outputs.append(rows)
    store_tables(graph, [node], int4=form.startswith("int4"), operator="Gather" in form)
    model = ir.Model(graph, ir_version=10)
    g.remove_unused(model)
    g.save(model, path)
    return path


def speeds(timings: Timings, form: str, base: str) -> list[dict[str, Any]]:
    """Return the time and the speed-up with its interval at each shape."""
    return [
        {
            "shape": speed.shape,
            "p50_ms": speed.p50_ms,
            "speedup": speed.speedup,
            "interval": [speed.speedup_low, speed.speedup_high],
        }
        for speed in timings.speeds(form, base)
    ]


def places(files: Mapping[str, Path], batches: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Return what the 4-bit forms give on the runners that are ready, against this CPU."""
    native = RUNNERS[0]
    text = {name: np.resize(value, (1, 128)) for name, value in batches[0].items()}
    rows: list[dict[str, Any]] = []
    for runner in RUNNERS:
        if runner.name not in (*PLACES, *RELEASES) or not runner.state().ready:
            continue
        for form in FORMS[2:]:
            timed = Measure(files["int8"], {"1x128": text}, runs=20) if runner.name == "wasm-node" else None
            job = Job(files[form], tuple(batches), ("sentence_embedding",), measure=timed)
            row: dict[str, Any] = {"place": runner.name, "tables": form}
            try:
                result = runner.run(job)
            except RunnerFailedError as error:
                row["failed"] = error.why.splitlines()[0][:160]
            else:
                here = native.run(Job(files[form], tuple(batches), ("sentence_embedding",)))
                row["cosine_to_this_cpu"] = min(
                    float(cosines(a["sentence_embedding"], b["sentence_embedding"]).min())
                    for a, b in zip(result.outputs, here.outputs, strict=True)
                )
                for times in result.times:
                    ratio = bootstrap_ratio(np.array(times.float_ms), np.array(times.shipped_ms))
                    row["speed_over_int8"] = {
                        "shape": times.point,
                        "speedup": ratio[0],
                        "interval": ratio[1:],
                    }
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    """Measure in a folder that is thrown away, and keep the results."""
    with tempfile.TemporaryDirectory() as name:
        results = measure(Path(name))
    write_text(OUTPUT, dump_json(results))
    print(f"wrote {OUTPUT}")


if __name__ == "__main__":
    main()
