"""Headless Chromium: ONNX Runtime as WebAssembly in a cross-origin isolated page."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import psutil

from edgekit.errors import RunnerFailedError, RunnerMissingError
from edgekit.record import Fact, Level
from edgekit.runners.base import Job, Result
from edgekit.runners.javascript.in_node import wasm_memory_flags
from edgekit.runners.javascript.kits import WEB_KIT, module_folder, unsupported
from edgekit.runners.javascript.page_server import PageServer, serving
from edgekit.runners.job_folder import read_result, write_job
from edgekit.runners.kit import Kit, State, kit_state, open_kit
from edgekit.runners.process import tail
from edgekit.store import workspace

_HERE = Path(__file__).parent
_PAGE = ("page.html", "in_page.mjs", "job.mjs")
_RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_PROGRAMS = ("chromium", "chromium-headless-shell", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers have a /dev/shm of 64 MB
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-extensions",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-breakpad",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_LOOK_S = 0.2
_SHORT_FOLDER = "/tmp"
"""For the browser's socket, whose path may have 107 bytes. Source: Linux unix(7), sun_path."""
_END_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Program that becomes its arguments after it asked to be killed when its parent ends: a page waits for ever,
so a browser would outlive an edgekit that was killed. Source: prctl(2), PR_SET_PDEATHSIG."""


@dataclass(frozen=True)
class Chromium:
    """A job in a page of the Chromium or Chrome that is installed.

    A job's memory limit holds for the memory of the WebAssembly instance, as a browser's own limit does.

    Attributes:
        name: What `--on` takes.
        title: One line that says what it stands for.
        threads: Threads, whatever the job says; None takes the job's.
        level: It runs on this CPU, as it is.
        kit: The runtime.
    """

    name: str
    title: str
    threads: int | None = None
    level: Level = "native"
    kit: Kit | None = WEB_KIT

    def state(self) -> State:
        """Return whether a browser is on the PATH and the kit is installed."""
        reason = unsupported()
        if reason:
            return State(reason)
        if find_browser() is None:
            return State(
                "no Chromium or Chrome is on the PATH",
                "apt-get install chromium-headless-shell (Debian), or install Google Chrome",
            )
        return kit_state(WEB_KIT)

    def run(self, job: Job) -> Result:
        """Run a job.

        Raises:
            RunnerMissingError: The browser or the kit is not installed, or files of the kit are damaged.
            RunnerFailedError: The model does not load there, fails, the browser or its tab ends, or hangs.
        """
        browser = find_browser()
        if browser is None:
            state = self.state()
            raise RunnerMissingError(f"{self.name}: {state.missing}", f"Run: {state.hint}")
        runtime = module_folder(open_kit(WEB_KIT), "onnxruntime-web") / "dist"
        job = job if self.threads is None else replace(job, threads=self.threads)
        with workspace() as folder:
            place = folder / "job"
            place.mkdir()
            write_job(job, place)
            (place / "out").mkdir()
            pids: list[int] = []
            server = PageServer(
                sends={
                    **{name: _HERE / name for name in _PAGE},
                    **{f"runtime/{name}": runtime / name for name in _RUNTIME},
                    **{f"job/{name}": place / name for name in _files(place)},
                },
                takes={
                    f"job/{name}": place / name
                    for name in [
                        "result.json",
                        *(f"out/{index:04d}.ekt" for index in range(len(job.batches))),
                    ]
                },
                names=_files(place),
                peak_memory=lambda: _peak_of_renderers(pids),
            )
            with serving(server):
                command = [browser, *_flags(job, folder / "profile"), server.address("page.html")]
                self._browse(command, server, pids, folder, job.timeout_s)
            result = read_result(job, place, self.name)
            if server.workers != job.threads - 1:
                why = f"{job.threads} threads were asked for, the page started {server.workers} workers"
                raise RunnerFailedError(self.name, "failed", why)
            models = [path for path in place.iterdir() if path.name == "model.onnx" or path.suffix == ".data"]
            facts = {"workers": server.workers, **_download(runtime, models)}
            return replace(result, facts={**result.facts, **facts})

    def _browse(
        self, command: list[str], server: PageServer, pids: list[int], folder: Path, timeout_s: float
    ) -> None:
        """Open the page and wait for its answer; the browser is killed in every case."""
        log = folder / "browser.log"
        until = time.monotonic() + timeout_s
        with log.open("wb") as errors:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, "HOME": str(folder), "TMPDIR": _SHORT_FOLDER},
                cwd=folder,
                start_new_session=True,
            )
        pids.append(child.pid)
        try:
            while not server.ended.wait(_LOOK_S):
                if child.poll() is not None:
                    said = tail(log.read_text(encoding="utf-8", errors="replace"))
                    outcome: Literal["crashed", "failed"] = "crashed" if child.returncode < 0 else "failed"
                    ended = f"the browser ended ({child.returncode}) before the page answered"
                    raise RunnerFailedError(self.name, outcome, f"{ended}: {said}" if said else ended)
                if time.monotonic() > until:
                    why = f"no answer within {timeout_s:g} s; the browser was killed"
                    raise RunnerFailedError(self.name, "hung", why)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if server.failure:
            raise RunnerFailedError(self.name, "failed", tail(server.failure))
        if server.lost:
            raise RunnerFailedError(self.name, "crashed", "the page's process ended before it answered")


def find_browser() -> str | None:
    """Return the first of the known browsers on the PATH."""
    return next((found for name in _PROGRAMS if (found := shutil.which(name))), None)


def _flags(job: Job, profile: Path) -> list[str]:
    flags = [*_FLAGS, f"--user-data-dir={profile}"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium refuses to be root with its sandbox
    flags += [f"--js-flags={flag}" for flag in wasm_memory_flags(job.memory_limit_bytes)]
    return flags


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _peak_of_renderers(pids: list[int]) -> int | None:
    """Return the peak resident memory of the browser's largest page process; None where nobody tells.

    Source: proc(5), VmHWM of /proc/PID/status.
    """
    peaks = []
    with contextlib.suppress(psutil.Error, OSError, IndexError):
        for process in psutil.Process(pids[0]).children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):
                if "--type=renderer" in process.cmdline():
                    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
                    peaks += [int(line.split()[1]) * 1024 for line in status.splitlines() if "VmHWM" in line]
    return max(peaks, default=None)


def _download(runtime: Path, models: list[Path]) -> Mapping[str, Fact]:
    """Return what a visitor's browser fetches, as it is and as a server with gzip sends it."""
    runtime_bytes, runtime_gzip_bytes = _sizes(tuple(runtime / name for name in _RUNTIME))
    model_bytes, model_gzip_bytes = _sizes(tuple(models))
    return {
        "runtime_bytes": runtime_bytes,
        "runtime_gzip_bytes": runtime_gzip_bytes,
        "model_bytes": model_bytes,
        "model_gzip_bytes": model_gzip_bytes,
        "download_bytes": runtime_bytes + model_bytes,
        "download_gzip_bytes": runtime_gzip_bytes + model_gzip_bytes,
    }


@cache
def _sizes(files: tuple[Path, ...]) -> tuple[int, int]:
    """Return bytes of files, and of each of them compressed at gzip's default level."""
    contents = [file.read_bytes() for file in files]
    return sum(map(len, contents)), sum(len(zlib.compress(content, 6, wbits=31)) for content in contents)


CHROMIUM = Chromium("chromium", "ONNX Runtime as WebAssembly in a page of headless Chromium")
CHROMIUM_2_THREADS = Chromium(
    "chromium-2-threads", "the same page, cross-origin isolated, with two threads", threads=2
)
