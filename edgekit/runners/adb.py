"""An Android phone over adb: the C runner with a C library of its own; Android has neither Python nor glibc.

Everything goes to one folder in `/data/local/tmp`, which is removed at the end. The address is `adb`, or
`adb://SERIAL` where more than one phone is connected.
"""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from edgekit.errors import RunnerFailedError, RunnerMissingError
from edgekit.record import Fact, Level
from edgekit.runners.arm.kit import KIT
from edgekit.runners.base import Job, Result
from edgekit.runners.job_folder import read_result, write_job
from edgekit.runners.kit import Kit, State, kit_state, open_kit
from edgekit.runners.process import tail
from edgekit.store import workspace

_PLACE = "/data/local/tmp"
_SHORT_S = 60.0
_COPY_S = 600.0
_FACTS: Mapping[str, str] = {
    "temperature_c": "cat /sys/class/thermal/thermal_zone*/temp 2>/dev/null | sort -n | tail -1",
    "governor": "cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null",
}
"""What shapes a measurement and may change during it -> how a shell reads it.

Source: Linux thermal sysfs-api.rst (millidegrees), cpufreq.rst.
"""


@dataclass(frozen=True)
class Adb:
    """A phone that answers to adb.

    Attributes:
        name: The address as the user wrote it.
        program: The adb program.
    """

    name: str = "adb"
    program: str = "adb"
    title: str = "the connected Android phone"
    level: Level = "board"
    kit: Kit | None = KIT

    def state(self) -> State:
        """Return whether there is an adb program and the ARM kit; the phone is asked when a job comes."""
        if shutil.which(self.program) is None:
            return State("the program 'adb' is not installed", "apt-get install adb, and connect a phone")
        return kit_state(KIT)

    def run(self, job: Job) -> Result:
        """Run a job on the phone.

        Raises:
            RunnerMissingError: No phone answers, it is not a 64-bit ARM one, or the kit is missing.
            RunnerFailedError: The model fails, crashes or hangs there.
        """
        if job.memory_limit_bytes is not None:
            raise RunnerFailedError(self.name, "failed", "a memory limit cannot be set over adb")
        system = open_kit(KIT) / "arm64"
        machine = self._shell("uname -m", unreachable=True).strip()
        if machine != "aarch64":
            raise RunnerMissingError(f"{self.name}: the phone is {machine}, not 64-bit ARM")
        with workspace() as here, self._folder() as there:
            folder = here / "job"
            folder.mkdir()
            write_job(job, folder)
            for source in (folder, system / "lib", system / "runner"):
                self._adb("push", str(source), f"{there}/", timeout_s=_COPY_S)
            (loader,) = (path.name for path in (system / "lib").glob("ld-linux-*"))
            (library,) = (path.name for path in (system / "lib").glob("libonnxruntime.so.1.*.*"))
            before = self._facts("before")
            self._shell(
                f"cd {there} && chmod 755 lib/{loader} runner &&"
                f" timeout {job.timeout_s:.0f} ./lib/{loader} --library-path lib ./runner lib/{library} job",
                timeout_s=job.timeout_s + _SHORT_S,
            )
            facts = before | self._facts("after")
            for name in ("out", "result.json"):
                self._adb("pull", f"{there}/job/{name}", str(folder), timeout_s=_COPY_S)
            result = read_result(job, folder, self.name)
        phone = self._shell("getprop ro.product.model").strip()
        cpu = f"{phone}, {result.cpu}" if phone else result.cpu
        return dataclasses.replace(result, cpu=cpu, facts={**result.facts, **facts})

    @contextmanager
    def _folder(self) -> Iterator[str]:
        """Yield a private folder on the phone; it is removed at the end, also after an error."""
        there = self._shell(f"mktemp -d -p {_PLACE} edgekit.XXXXXX").strip()
        try:
            yield shlex.quote(there)
        finally:
            self._shell(f"rm -rf {shlex.quote(there)}")

    def _facts(self, when: str) -> dict[str, Fact]:
        found: dict[str, Fact] = {}
        for name, command in _FACTS.items():
            text = self._shell(f"{command}; true").strip()
            if text:
                found[f"{name}_{when}"] = int(text) / 1e3 if name == "temperature_c" else text
        return found

    def _shell(self, command: str, *, timeout_s: float = _SHORT_S, unreachable: bool = False) -> str:
        return self._adb("shell", command, timeout_s=timeout_s, unreachable=unreachable)

    def _adb(self, *arguments: str, timeout_s: float, unreachable: bool = False) -> str:
        """Run adb and return its output; `unreachable` says that a failure means that no phone answers."""
        serial = self.name.removeprefix("adb").removeprefix("://")
        command = [self.program, *(["-s", serial] if serial else []), *arguments]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RunnerFailedError(self.name, "hung", f"no answer within {timeout_s:g} s") from None
        if done.returncode == 0:
            return done.stdout
        told = tail(done.stderr or done.stdout)
        if unreachable:
            raise RunnerMissingError(
                f"{self.name}: no phone answers: {told}",
                "Connect it, allow USB debugging on it, and look at: adb devices",
            )
        if done.returncode == 124:  # Source: timeout(1), EXIT STATUS
            raise RunnerFailedError(
                self.name, "hung", f"no answer within {timeout_s - _SHORT_S:g} s; it was killed"
            )
        signalled = done.returncode > 128
        raise RunnerFailedError(
            self.name,
            "crashed" if signalled else "failed",
            told or f"it ended with exit code {done.returncode}",
        )
