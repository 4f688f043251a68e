"""edgekit beside its competitors on all-MiniLM-L6-v2: quality, size, speed, and what quantizing costs.

    bash benchmarks/environments.sh          # once: an environment for each
    python -m benchmarks.harness             # make, judge and time all; writes results/competitors.json
    make docs                                # docs/benchmarks.md from it

Artifacts stay in build/benchmarks/artifacts; `--keep` makes what is missing, `--remake NAME` that one too.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import quality, roofline
from benchmarks.job import MAX_TOKENS, Artifact, Job, inputs_of, load_tokens, save_tokens
from benchmarks.texts import benchmark_texts
from benchmarks.timing import interleave
from edgekit.machine import read_machine, versions
from edgekit.runtime import open_session
from edgekit.store import dump_json, write_text
from edgekit.validate.latency import bootstrap_ratio
from tools.demo import checked_model

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "benchmarks"
OUTPUT = ROOT / "benchmarks" / "results" / "competitors.json"
COMPETITORS = (
    "float32",
    "edgekit_static",
    "onnxruntime_dynamic",
    "onnxruntime_dynamic_fused",
    "onnxruntime_static_stock",
    "onnxruntime_static_per_channel",
    "transformers_exporters",
    "optimum_onnx_dynamic",
    "optimum_onnx_static",
    "nncf_onnx",
    "nncf_openvino_int8",
    "openvino_bf16",
    "sentence_transformers_dynamic",
    "olive_static",
)
REFERENCE = COMPETITORS[0]
SHAPES = ((1, 16), (1, 128), (8, 64))
THREADS = (1, 2)
TURNS = 120
SECONDS_PER_POINT = 60.0
MAKE_SECONDS = 900
QUIET = {
    "CI": "true",  # Olive sends a first event before it reads its own switch, but not where this is set
    "ORT_DISABLE_TELEMETRY": "1",
    "NNCF_CI": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "OLIVE_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": str(ROOT),
}
"""No child tells anybody anything or asks the network for anything."""
_ERROR = re.compile(r"[\w.]*(Error|Exception|Fail|Exit)\b")
"""How the last line of a traceback begins; some messages have lines of advice after it."""


def prepare() -> tuple[Job, Path]:
    """Write tokens of the texts, and return the job that all share with the file of the held-out tokens."""
    from tokenizers import Tokenizer

    model = BUILD / "all-MiniLM-L6-v2"
    shutil.copytree(checked_model(), model, dirs_exist_ok=True)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    texts = benchmark_texts()
    for name, some in (
        ("calibration", texts.calibration),
        ("held_out", (*texts.queries, *texts.answers)),
    ):
        save_tokens([found.ids for found in tokenizer.encode_batch(list(some))], BUILD / f"{name}.npz")
    job = Job(model, BUILD / "float32.onnx", BUILD / "calibration.npz", BUILD / "artifacts")
    return job, BUILD / "held_out.npz"


def make(name: str, shared: Job) -> dict[str, Any]:
    """Run one competitor in processes of its own; return its result, or why there is none."""
    folder = shared.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    python = python_of(importlib.import_module(f"benchmarks.competitors.{name}").ENVIRONMENT)
    if isinstance(python, str):
        return _kept(folder, {"failed": python})
    job, result = folder / "job.json", folder / "result.json"
    Job(shared.model, shared.float_onnx, shared.calibration, folder).save(job)
    for step in ("export", "make"):
        reason = child([str(python), "-m", "benchmarks.child", step, name, str(job), str(result)], folder)
        if reason:
            return _kept(folder, {"failed": f"{step}: {reason}"})
    return dict(json.loads(result.read_text(encoding="utf-8")))


def python_of(environment: str | None) -> Path | str:
    """Return the interpreter of an environment, or why there is none."""
    if environment is None:
        return Path(sys.executable)
    failed = BUILD / "venvs" / f"{environment}.failed"
    if failed.is_file():
        return "not installed: " + " ".join(failed.read_text(encoding="utf-8").split())
    python = BUILD / "venvs" / environment / "bin" / "python"
    return python if python.is_file() else "not installed: run bash benchmarks/environments.sh"


def child(command: list[str], folder: Path) -> str:
    """Run a command with its output in `folder/log.txt`; return its last words if it fails, else nothing."""
    environment = {**os.environ, **QUIET, "HOME": str(BUILD / "home")}
    declined = BUILD / "home" / "intel" / "openvino_telemetry"
    declined.parent.mkdir(parents=True, exist_ok=True)
    declined.write_text("0")
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        try:
            code = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                timeout=MAKE_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return f"took longer than {MAKE_SECONDS} s"
    return last_words((folder / "log.txt").read_text(encoding="utf-8")) if code else ""


def last_words(log: str) -> str:
    """Return the last line that names an error, or else the last line, in at most 300 characters."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    named = [line for line in lines if _ERROR.match(line)]
    return (named or lines or ["no message"])[-1][:300]


def judge(results: dict[str, dict[str, Any]], held_out: Path) -> dict[str, np.ndarray]:
    """Put size and quality into each result, and return the embeddings of those that ONNX Runtime runs."""
    tokens = list(load_tokens(held_out))
    embeddings = {}
    for name, artifact in artifacts(results, "onnxruntime").items():
        try:
            session = open_session(artifact.path, threads=2, session_options=artifact.options)
            names = [value.name for value in session.get_outputs()]
            embeddings[name] = quality.embed(_runner(session), names, tokens)
        except Exception as error:  # whatever a competitor's file does is a result
            results[name]["failed"] = f"run: {last_words(str(error))}"
            continue
        results[name]["pooling_outside"] = "sentence_embedding" not in names
        results[name]["quality"] = quality.compare(embeddings[REFERENCE], embeddings[name])
    return embeddings


def artifacts(results: Mapping[str, Mapping[str, Any]], runtime: str) -> dict[str, Artifact]:
    """Return the artifacts that were made for a runtime, in the order of the table."""
    keys = ("path", "runtime", "note", "options", "includes_export")
    found = {n: r for n, r in results.items() if "failed" not in r and r.get("runtime") == runtime}
    return {name: Artifact.from_json({key: r[key] for key in keys}) for name, r in found.items()}


def time_onnxruntime(
    made: Mapping[str, Artifact], ids: np.ndarray, turns: int, seconds: float
) -> list[dict[str, Any]]:
    """Time all of them in turns in this process, with products of matrices among them for the roofline."""
    points = []
    for threads in THREADS:
        runs = {
            name: whole(open_session(a.path, threads=threads, session_options=a.options))
            for name, a in made.items()
        }
        products = _products(threads)
        for batch, length in SHAPES:
            inputs = inputs_of(np.resize(ids, (batch, length)))
            calls = {name: (lambda run=run, inputs=inputs: run(inputs)) for name, run in runs.items()}
            load = os.getloadavg()[0]
            times = interleave({**calls, **products}, turns=turns, seconds=seconds)
            taken = times[clock(threads)]
            rates = {
                kind: max(
                    roofline.rate(shape, float(np.median(taken[_label(kind, shape)])))
                    for shape in roofline.SHAPES
                )
                for kind in ("int8", "float")
            }
            points.append(
                {
                    "shape": f"{batch}x{length}",
                    "threads": threads,
                    "load": round(load, 2),
                    "macs_per_second": rates,
                    "clock": clock(threads),
                    "figures": figures(times, list(calls), threads),
                }
            )
            _say(f"timed {batch}x{length}, {threads} thread(s)")
    return points


def clock(threads: int) -> str:
    """Return which time counts: of one thread its CPU time, which neighbours on the machine lengthen less."""
    return "cpu" if threads == 1 else "wall"


def figures(
    times: Mapping[str, Mapping[str, list[float]]], names: Iterable[str], threads: int
) -> dict[str, dict[str, float]]:
    """Return each artifact's median time and its speed-up over the plain fp32 export, pair by pair.

    Args:
        times: What `interleave` gave.
        names: Of the artifacts; the reference is one of them.
        threads: Says which clock counts.
    """
    found = {}
    for name in names:
        taken = times[clock(threads)]
        speedup, low, high = bootstrap_ratio(np.array(taken[REFERENCE]), np.array(taken[name]))
        found[name] = {
            "p50_ms": float(np.median(taken[name])),
            "wall_p50_ms": float(np.median(times["wall"][name])),
            "speedup": speedup,
            "speedup_low": low,
            "speedup_high": high,
            "wall_speedup": float(np.median(np.divide(times["wall"][REFERENCE], times["wall"][name]))),
            "turns": len(taken[name]),
        }
    return found


def add_openvino(
    results: dict[str, dict[str, Any]],
    points: list[dict[str, Any]],
    shared: Job,
    held_out: Path,
    reference: np.ndarray,
    ids: np.ndarray,
    turns: int,
    seconds: float,
) -> None:
    """Judge and time OpenVINO's artifacts in their environment, against the fp32 export in one process."""
    made = artifacts(results, "openvino")
    python = python_of("nncf")
    if not made or isinstance(python, str):
        return
    folder = BUILD / "openvino"
    folder.mkdir(exist_ok=True)
    (folder / "log.txt").write_text("")
    request = {
        "artifacts": {n: a.to_json() | {"embeddings": str(folder / f"{n}.npz")} for n, a in made.items()},
        "float_onnx": str(shared.float_onnx),
        "held_out": str(held_out),
        "threads": THREADS,
        "shapes": SHAPES,
        "ids": ids.tolist(),
        "turns": turns,
        "seconds": seconds / 2,
    }
    (folder / "request.json").write_text(json.dumps(request))
    reason = child([str(python), "-m", "benchmarks.openvino_child", str(folder / "request.json")], folder)
    if reason:
        for name in made:
            results[name]["failed"] = f"run: {reason}"
        return
    answer = json.loads(last_line(folder / "log.txt"))
    for name in made:
        with np.load(folder / f"{name}.npz") as data:
            rows = [
                quality.pooled({answer["outputs"][name][0]: data[str(i)]}) for i in range(len(data.files))
            ]
        results[name]["quality"] = quality.compare(reference, np.concatenate(rows))
        results[name]["pooling_outside"] = "sentence_embedding" not in answer["outputs"][name]
    for timed in answer["times"]:
        found = figures(timed["ms"], timed["ms"]["wall"], timed["threads"])
        point = next(p for p in points if (p["shape"], p["threads"]) == (timed["shape"], timed["threads"]))
        point["figures"] |= {name: found[name] for name in made}
        point["openvino_process_fp32_ms"] = found[REFERENCE]["p50_ms"]


def last_line(path: Path) -> str:
    """Return the last line of a file."""
    return path.read_text(encoding="utf-8").rstrip().rpartition("\n")[2]


def add_bounds(points: Iterable[dict[str, Any]]) -> None:
    """Put the roofline into each point: the time of the matrix products alone at the rates measured there."""
    for point in points:
        batch, length = map(int, point["shape"].split("x"))
        work, rates = roofline.encoder_work(batch, length), point["macs_per_second"]
        point["bound_ms"] = {
            "int8": work.bound_ms(rates["int8"], rates["float"]),
            "float": work.bound_ms(rates["float"], rates["float"]),
        }


def _products(threads: int) -> dict[str, Any]:
    calls = {}
    for shape in roofline.SHAPES:
        for kind in ("int8", "float"):
            label, integer = _label(kind, shape), kind == "int8"
            path = BUILD / f"{label}.onnx"
            roofline.write_product(path, shape, integer=integer)
            feed = {"x": roofline.product_input(shape, integer=integer)}
            session = open_session(path, threads=threads)
            calls[label] = lambda session=session, feed=feed: session.run(None, feed)
    return calls


def _label(kind: str, shape: tuple[int, int, int]) -> str:
    return f"product-{kind}-{'x'.join(map(str, shape))}"


def whole(session: Any) -> Any:
    """Return a function that runs a session all the way to sentences: inputs → its outputs, or their mean.

    Of a graph that ends in tokens, the averaging and normalizing belong to the time.
    """
    run, names = _runner(session), [value.name for value in session.get_outputs()]
    if "sentence_embedding" in names:
        return run
    return lambda inputs: quality.pooled(dict(zip(names, run(inputs), strict=True)))


def _runner(session: Any) -> Any:
    names = [value.name for value in session.get_inputs()]
    return lambda inputs: session.run(None, {name: inputs[name] for name in names})


def _kept(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return result


def _say(message: str) -> None:
    print(message, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Make, judge, time, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="make only the artifacts that are missing")
    parser.add_argument(
        "--remake", action="append", default=[], choices=COMPETITORS, help="with --keep: this one too"
    )
    parser.add_argument("--make-only", action="store_true", help="neither judge nor time")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument(
        "--seconds", type=float, default=SECONDS_PER_POINT, help="per shape, at most (default 60)"
    )
    options = parser.parse_args(arguments)
    BUILD.mkdir(parents=True, exist_ok=True)
    shared, held_out = prepare()
    results: dict[str, dict[str, Any]] = {}
    for name in COMPETITORS:
        kept = shared.folder / name / "result.json"
        if options.keep and name not in options.remake and kept.is_file():
            results[name] = json.loads(kept.read_text(encoding="utf-8"))
        else:
            results[name] = make(name, shared)
        _say(f"{name}: {results[name].get('failed') or str(results[name]['quantize_seconds']) + ' s'}")
    if options.make_only:
        return
    embeddings = judge(results, held_out)
    longest = max(load_tokens(held_out), key=lambda text: text["input_ids"].shape[1])["input_ids"][0]
    points = time_onnxruntime(artifacts(results, "onnxruntime"), longest, options.turns, options.seconds)
    add_openvino(
        results, points, shared, held_out, embeddings[REFERENCE], longest, options.turns, options.seconds
    )
    add_bounds(points)
    texts = benchmark_texts()
    document = {
        "command": "bash benchmarks/environments.sh && python -m benchmarks.harness",
        "machine": read_machine().to_json(),
        "versions": versions(),
        "calibration_texts": len(texts.calibration),
        "held_out_pairs": len(texts.queries),
        "competitors": [_row(name, results[name]) for name in COMPETITORS],
        "latency": points,
    }
    write_text(OUTPUT, dump_json(document))
    _say(f"wrote {OUTPUT.relative_to(ROOT)}; now: make docs")


def _row(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a competitor's row without the paths of this machine."""
    title = importlib.import_module(f"benchmarks.competitors.{name}").TITLE
    shown = {key: value for key, value in result.items() if key != "path"}
    for key in ("failed", "note"):
        if key in shown:
            shown[key] = shown[key].replace(f"{ROOT}/", "")
    return {"name": name, "title": title, **shown}


if __name__ == "__main__":
    main()
