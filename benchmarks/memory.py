"""Peak memory of a whole `edgekit export`, the processes that it starts included, against the model's size.

Models: all-MiniLM-L6-v2, and an XLM-V (901629 tokens, 768 wide, 2 of its 12 layers) with random weights,
whose float graph is over protobuf's 2 GiB and keeps its weights in a file of external data.

Run from the checkout, with 8 GB of memory free: python -m benchmarks.memory [NAME ...]
Writes benchmarks/results/memory.json (rows of the models that were not named stay); then: make docs
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.zoo import Architecture, save
from edgekit.machine import read_machine, versions
from edgekit.store import dump_json, write_text
from tools.texts import standard_library_texts

OUTPUT = Path(__file__).parent / "results" / "memory.json"
TARGET = "cpu-x86"
SAMPLES, HELD_OUT = 32, 16
MINILM = "all-MiniLM-L6-v2"
XLM_V = Architecture(
    "XLM-V, 2 layers",
    "XLMRobertaModel",
    {
        "vocab_size": 901629,
        "hidden_size": 768,
        "num_hidden_layers": 2,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 514,
        "pad_token_id": 0,
    },
)
MODELS = (MINILM, XLM_V.name)
# The export's own promise, beside the size of the float model. Source: goals of the project.
_TIMES, _PLUS_BYTES = 1.5, 10**9
_EVERY_SECONDS = 0.02
_MAKE = "--make"
OPEN_GATES = ("cosine_mean=-1", "cosine_p05=-1", "clip_rate=1", "range_growth=1000")


@dataclass(frozen=True)
class Held:
    """Resident memory at one moment.

    Attributes:
        anonymous: Bytes that the processes made.
        file: Bytes of mapped files: libraries, and weights that are read where they lie, which the system can
            take back at any time.
    """

    anonymous: int = 0
    file: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.anonymous + self.file

    def __add__(self, other: Held) -> Held:
        return Held(self.anonymous + other.anonymous, self.file + other.file)

    def to_json(self) -> dict[str, int]:
        """Return the parts and their sum, as a peak."""
        return {"peak_bytes": self.total, "anonymous_bytes": self.anonymous, "mapped_bytes": self.file}


@dataclass
class Watch:
    """What a process and its children held, read from the kernel while they ran.

    Attributes:
        by_stage: Line of progress -> the most that all of them held together while it was the last one.
        seconds: Line of progress -> how long it was the last one.
    """

    by_stage: dict[str, Held] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def peak(self) -> Held:
        """The most of all stages."""
        return max(self.by_stage.values(), key=lambda held: held.total)


def watched(command: list[str]) -> tuple[int, str, Watch]:
    """Run a command whose standard error tells its progress; return exit code, output and what it held."""
    watch, stage, lines = Watch(), "start", []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def read() -> None:
        nonlocal stage
        for line in process.stderr or ():
            lines.append(line)
            if line.startswith("["):
                told = line.partition("] ")[2].strip()
                stage = " ".join(word for word in told.split() if not word.startswith("/"))

    reader = threading.Thread(target=read)
    reader.start()
    last = time.perf_counter()
    while process.poll() is None:
        held = held_by(process.pid)
        now = time.perf_counter()
        watch.by_stage[stage] = max(watch.by_stage.get(stage, Held()), held, key=lambda held: held.total)
        watch.seconds[stage] = watch.seconds.get(stage, 0.0) + now - last
        last = now
        time.sleep(_EVERY_SECONDS)
    reader.join()
    return process.returncode, "".join(lines), watch


def held_by(pid: int) -> Held:
    """Return the resident memory of a process and all that it started; pages shared count twice.

    A child that has not begun its own program yet shows its parent's pages, and is left out.

    Source: Linux proc(5), /proc/pid/status, RssAnon, RssFile, RssShmem, and /proc/pid/task/tid/children.
    """
    total, left = Held(), [(str(pid), b"")]
    while left:
        number, parent = left.pop()
        folder = Path("/proc") / number
        try:
            program = (folder / "cmdline").read_bytes()
            if program == parent:
                continue
            lines = (folder / "status").read_text(encoding="utf-8").splitlines()
            rss = {
                line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss")
            }
            total += Held(rss.get("RssAnon", 0), rss.get("RssFile", 0) + rss.get("RssShmem", 0))
            for task in (folder / "task").iterdir():
                children = (task / "children").read_text(encoding="utf-8").split()
                left += [(child, program) for child in children]
        except OSError:  # it ended meanwhile
            continue
    return total


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Export a model and return how much memory that took.

    Raises:
        SystemExit: The export failed; its messages are shown.
    """
    texts = tuple(standard_library_texts())
    if name == MINILM:
        from tools.demo import prepare

        model = str(prepare(folder)[0])
    else:
        # In a process of its own, so that these weights are not in this one's memory meanwhile.
        model = str(folder / "model")
        subprocess.run([sys.executable, "-m", "benchmarks.memory", _MAKE, model], check=True)
    (folder / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "edgekit", "export", model, "-t", TARGET, "-o", str(folder / "out")]
    command += ["-c", str(folder / "texts.txt"), "--samples", str(SAMPLES)]
    command += ["--validation-samples", str(HELD_OUT), "--task", "feature-extraction"]
    if name == MINILM:
        command += ["--runs", "15"]
    else:
        command += ["--runs", "0", "--max-length", "64"]
        # Random weights pass no gate of accuracy; those layers would be put back to float one by one.
        command += ["--no-mixed", *(part for gate in OPEN_GATES for part in ("--gate", gate))]
    started = time.perf_counter()
    code, said, watch = watched(command)
    seconds = time.perf_counter() - started
    print(said, file=sys.stderr)
    if code != 0:
        raise SystemExit(f"{name}: edgekit export ended with {code}")
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))["targets"][0]["verdict"]
    float_bytes = report["float_size"]["file_bytes"]
    return {
        "name": name,
        "float_bytes": float_bytes,
        "int8_bytes": report["quantized_size"]["file_bytes"],
        "samples": SAMPLES,
        "seconds": round(seconds, 1),
        **watch.peak.to_json(),
        "goal_bytes": int(_TIMES * float_bytes + _PLUS_BYTES),
        "stages": [
            {"stage": stage, **held.to_json(), "seconds": round(watch.seconds[stage], 1)}
            for stage, held in watch.by_stage.items()
        ],
    }


def main(names: list[str]) -> None:
    """Measure in folders that are thrown away, and keep the results."""
    if names[:1] == [_MAKE]:
        save(XLM_V, Path(names[1]), tuple(standard_library_texts()))
        return
    old = json.loads(OUTPUT.read_text(encoding="utf-8"))["rows"] if OUTPUT.is_file() else []
    rows = {row["name"]: row for row in old}
    for name in names or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = measure(name, Path(folder))
        print(dump_json(rows[name]))
    results = {
        "command": "python -m benchmarks.memory",
        "machine": read_machine().to_json(),
        "versions": versions(),
        "target": TARGET,
        "rows": [rows[name] for name in MODELS if name in rows],
    }
    write_text(OUTPUT, dump_json(results))
    print(f"wrote {OUTPUT}; now: make docs")


if __name__ == "__main__":
    main(sys.argv[1:])
