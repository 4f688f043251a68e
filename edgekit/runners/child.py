"""The Python program that runs a job folder: native, on masked CPUs, under other runtimes, and on boards.

It stands alone (Python 3.10, numpy and onnxruntime, no edgekit), because it is also copied to places that
have nothing else::

    python child.py JOB_FOLDER

Reads `job.txt`, writes `out/NNNN.ekt` and, when all went well, `result.json`. Tensor files (`.ekt`) are
little-endian: `EKT1`, u32 count, then per tensor u32 length of the name, u32 type (as in ONNX), u32 rank,
u32 zero, i64 dimensions, u64 bytes, the name and the data, each of these two padded to 8 bytes.
"""

from __future__ import annotations

import json
import os
import platform
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = b"EKT1"
FEWEST_RUNS = 10
TYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    9: np.dtype("?"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
}
"""Numbers of `onnx.TensorProto.DataType` -> numpy types."""


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write named arrays to a tensor file."""
    codes = {dtype: code for code, dtype in TYPES.items()}
    with Path(path).open("wb") as file:
        file.write(MAGIC + struct.pack("<I", len(tensors)))
        for name, value in tensors.items():
            data, label = np.ascontiguousarray(value).reshape(value.shape), name.encode()
            code = codes[data.dtype.newbyteorder("<") if data.dtype.itemsize > 1 else data.dtype]
            file.write(struct.pack("<4I", len(label), code, data.ndim, 0))
            file.write(struct.pack(f"<{data.ndim}qQ", *data.shape, data.nbytes))
            file.write(label + b"\0" * (-len(label) % 8))
            file.write(data.tobytes() + b"\0" * (-data.nbytes % 8))


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a tensor file by name.

    Raises:
        ValueError: The file is not complete, or not a tensor file.
    """
    raw = Path(path).read_bytes()
    try:
        return _parse(raw)
    except (struct.error, UnicodeDecodeError, KeyError, ValueError) as error:
        raise ValueError(f"{Path(path).name} is not a whole tensor file: {error}") from None


def _parse(raw: bytes) -> dict[str, np.ndarray]:
    if raw[:4] != MAGIC:
        raise ValueError("it does not begin with EKT1")
    (count,), at = struct.unpack_from("<I", raw, 4), 8
    tensors = {}
    for _ in range(count):
        label, code, rank, _ = struct.unpack_from("<4I", raw, at)
        *shape, size = struct.unpack_from(f"<{rank}qQ", raw, at + 16)
        at += 24 + 8 * rank
        name = raw[at : at + label].decode()
        at += label + -label % 8
        if at + size > len(raw):
            raise ValueError("it ends too early")
        tensors[name] = np.frombuffer(raw[at : at + size], TYPES[code]).reshape(shape).copy()
        at += size + -size % 8
    return tensors


def read_job(folder: Path) -> dict[str, Any]:
    """Return the lines of `job.txt`: key -> value, or list of values for keys that may come again."""
    job: dict[str, Any] = {"option": [], "output": [], "batch": [], "point": []}
    for line in (folder / "job.txt").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(" ")
        if key in ("output", "batch"):
            job[key].append(value)
        elif key in ("option", "point"):
            job[key].append(tuple(value.split(" ", 1)))
        else:
            job[key] = value
    return job


def cpu_seen() -> tuple[str, list[str]]:
    """Return the CPU's name and features as the operating system lists them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor(), []
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or fields.get("Model") or fields.get("CPU part") or platform.machine()
    return name, sorted((fields.get("flags") or fields.get("Features") or "").split())


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process so far; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def board_state() -> dict[str, Any]:
    """Return what shapes a measurement and may change during it, where the system tells.

    Source: Linux Documentation/admin-guide/pm/cpufreq.rst, thermal sysfs-api.rst; x86 thermal_throttle.
    """
    cpu = Path("/sys/devices/system/cpu")
    state: dict[str, Any] = {}
    governors = {text for path in cpu.glob("cpu[0-9]*/cpufreq/scaling_governor") if (text := _read(path))}
    if governors:
        state["governor"] = ", ".join(sorted(governors))
    kilohertz = [text for path in cpu.glob("cpu[0-9]*/cpufreq/scaling_cur_freq") if (text := _read(path))]
    if kilohertz:
        state["frequency_mhz"] = max(map(int, kilohertz)) / 1e3
    zones = [text for path in Path("/sys/class/thermal").glob("thermal_zone*/temp") if (text := _read(path))]
    if zones:
        state["temperature_c"] = max(map(int, zones)) / 1e3
    throttles = [_read(path) for path in cpu.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    if any(throttles):
        state["throttle_count"] = sum(int(count) for count in throttles if count)
    return state


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def session_options(job: dict[str, Any]) -> Any:
    """Return the options that a job asks for."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = int(job["threads"])
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    for key, value in [*job["option"], ("session.intra_op.allow_spinning", "0")]:
        options.add_session_config_entry(key, value)
    return options


def open_on_cpu(path: Path, job: dict[str, Any]) -> Any:
    """Return a session on the CPU."""
    import onnxruntime as ort

    return ort.InferenceSession(str(path), session_options(job), providers=["CPUExecutionProvider"])


def run_job(folder: Path, open_session: Callable[[Path, dict[str, Any]], Any] = open_on_cpu) -> None:
    """Run a job folder.

    Args:
        folder: Where `job.txt` is.
        open_session: How a graph of the job is opened.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as ort

    job = read_job(folder)
    facts = {f"{name}_before": value for name, value in board_state().items()}
    before = peak_memory_bytes()
    begin = time.perf_counter()
    shipped = open_session(folder / job["model"], job)
    load_ms = (time.perf_counter() - begin) * 1e3
    wanted = {value.name for value in shipped.get_inputs()}
    feeds = [
        {name: value for name, value in read_tensors(folder / path).items() if name in wanted}
        for path in job["batch"]
    ]
    (folder / "out").mkdir(exist_ok=True)
    first: list[list[bytes]] = []
    deterministic = True
    for repeat in range(int(job["repeats"])):
        for index, feed in enumerate(feeds):
            found = shipped.run(job["output"], feed)
            if repeat == 0:
                named = dict(zip(job["output"], found, strict=True))
                write_tensors(folder / "out" / f"{index:04d}.ekt", named)
                first.append([value.tobytes() for value in found])
            else:
                deterministic &= first[index] == [value.tobytes() for value in found]
    peak = peak_memory_bytes()
    baseline = open_session(folder / job["float"], job) if "float" in job else None
    times = [
        {"point": point, **time_point(baseline, shipped, read_tensors(folder / path), job)}
        for point, path in job["point"]
    ]
    cpu, features = cpu_seen()
    facts.update({f"{name}_after": value for name, value in board_state().items()})
    result = {
        "runtime_version": ort.__version__,
        "cpu": cpu,
        "cpu_features": features,
        "load_ms": load_ms,
        "peak_memory_bytes": peak - before if peak else None,
        "deterministic": deterministic,
        "times": times,
        "facts": facts,
    }
    aside = folder / "result.json.part"
    aside.write_text(json.dumps(result), encoding="utf-8")
    aside.replace(folder / "result.json")


def time_point(
    baseline: Any, shipped: Any, inputs: dict[str, np.ndarray], job: dict[str, Any]
) -> dict[str, Any]:
    """Return times of both sessions, in turns, milliseconds; whoever goes second changes from run to run."""
    sessions = [session for session in (baseline, shipped) if session is not None]
    feeds = [{value.name: inputs[value.name] for value in session.get_inputs()} for session in sessions]
    spent: list[list[float]] = [[] for _ in sessions]
    warm_up, runs, limit_s = int(job["warm_up"]), int(job["runs"]), float(job["seconds_per_point"])
    started = time.perf_counter()
    for turn in range(warm_up + runs):
        if len(spent[-1]) >= FEWEST_RUNS and time.perf_counter() - started > limit_s:
            break
        order = range(len(sessions)) if turn % 2 == 0 else reversed(range(len(sessions)))
        for which in order:
            begin = time.perf_counter()
            sessions[which].run(None, feeds[which])
            if turn >= warm_up:
                spent[which].append((time.perf_counter() - begin) * 1e3)
    return {"float_ms": spent[0] if baseline is not None else [], "shipped_ms": spent[-1]}


def told_in_one_line(run: Callable[[], None]) -> None:
    """Call `run`; where it raises, say what in one line and exit with 1, without a traceback."""
    try:
        run()
    except Exception as error:  # the runtime raises a family of its own, all derived from Exception
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    told_in_one_line(lambda: run_job(Path(sys.argv[1])))
