"""A real board over SSH: the job travels there, runs with the board's own Python, and leaves nothing behind.

Uses the `ssh` program with the user's own configuration, keys and known hosts; it never asks a question and
never trusts a host that is not known. The address is `ssh://[user@]host[:port]`; with `?install` at its end,
a board without onnxruntime gets it in a private folder for the run.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edgekit.errors import RunnerFailedError, RunnerMissingError
from edgekit.record import Level
from edgekit.runners import child
from edgekit.runners.base import Job, Result
from edgekit.runners.job_folder import read_result, write_job
from edgekit.runners.kit import Kit, State
from edgekit.runners.process import tail
from edgekit.store import workspace

_CONNECT_S = 15
_INSTALL_S = 900.0
_SSH_FAILED = 255
"""Exit code of ssh itself; every other one is the remote command's. Source: ssh(1), EXIT STATUS."""

_QUIET = "ORT_DISABLE_TELEMETRY=1"
_CHECK = "import sys, numpy, onnxruntime; assert sys.version_info >= (3, 10), sys.version"


@dataclass(frozen=True)
class Ssh:
    """A board that answers to SSH.

    Attributes:
        name: The address as the user wrote it.
        options: More arguments for `ssh`, e.g. `("-F", "config")`.
        python: The board's interpreter.
    """

    name: str
    options: tuple[str, ...] = ()
    python: str = "python3"
    level: Level = "board"
    kit: Kit | None = None

    @property
    def title(self) -> str:
        """One line that says what it stands for."""
        return f"the machine at {self.name}, with its own Python"

    def state(self) -> State:
        """Return whether there is an ssh program; the board is asked when a job comes."""
        if shutil.which("ssh") is None:
            return State("the program 'ssh' is not installed", "apt-get install openssh-client")
        return State()

    def run(self, job: Job) -> Result:
        """Run a job on the board.

        Raises:
            RunnerMissingError: The board does not answer, is not known, refuses the key, or lacks Python,
                numpy or onnxruntime.
            RunnerFailedError: The model fails, crashes or hangs there.
        """
        if job.memory_limit_bytes is not None:
            raise RunnerFailedError(self.name, "failed", "a memory limit cannot be set over SSH")
        with workspace() as here, self._folder() as there:
            folder = here / "job"
            folder.mkdir()
            write_job(job, folder)
            shutil.copyfile(child.__file__, here / "child.py")
            path = self._python_path(there)
            self._send(here, there)
            command = f"cd {there} && {_QUIET} {path}timeout {job.timeout_s:.0f} {self.python} child.py job"
            done = self._ssh(command, timeout_s=job.timeout_s + _CONNECT_S)
            if done.returncode == 124:  # Source: timeout(1), EXIT STATUS
                why = f"no answer within {job.timeout_s:g} s; it was killed"
                raise RunnerFailedError(self.name, "hung", why)
            if done.returncode > 128:
                why = f"it was ended by signal {done.returncode - 128}"
                raise RunnerFailedError(self.name, "crashed", why)
            if done.returncode:
                raise RunnerFailedError(self.name, "failed", tail(done.stderr.decode(errors="replace")))
            self._bring_back(there, folder)
            return read_result(job, folder, self.name)

    @contextmanager
    def _folder(self) -> Iterator[str]:
        """Yield a private folder on the board; it is removed at the end, also after an error."""
        made = self._ssh("mktemp -d")
        if made.returncode:
            raise RunnerMissingError(*self._no_answer(made.stderr.decode(errors="replace")))
        there = made.stdout.decode().strip()
        try:
            yield shlex.quote(there)
        finally:
            self._ssh(f"rm -rf {shlex.quote(there)}")

    def _python_path(self, there: str) -> str:
        """Return what to put before the interpreter so that it finds onnxruntime; installs it if asked."""
        if self._ssh(f"{_QUIET} {self.python} -c {shlex.quote(_CHECK)}").returncode == 0:
            return ""
        if self._ssh(f"command -v {self.python}").returncode:
            raise RunnerMissingError(
                f"{self.name}: there is no {self.python} on the board", "Install Python 3.10 or newer there."
            )
        if "install" not in urlsplit(self.name).query:
            raise RunnerMissingError(
                f"{self.name}: the board's {self.python} lacks onnxruntime or numpy, or is older than 3.10",
                f"Install them there, or let edgekit do it for the run: --on '{self.name}?install'",
            )
        pip = f"{self.python} -m pip install --quiet --target {there}/site onnxruntime numpy"
        installed = self._ssh(pip, timeout_s=_INSTALL_S)
        if installed.returncode:
            told = tail(installed.stderr.decode(errors="replace"))
            raise RunnerMissingError(f"{self.name}: onnxruntime cannot be installed there: {told}")
        return f"PYTHONPATH={there}/site "

    def _send(self, here: Path, there: str) -> None:
        with subprocess.Popen(
            [*self._command(), f"tar -x -C {there}"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        ) as far:
            assert far.stdin is not None
            assert far.stderr is not None
            try:
                with tarfile.open(fileobj=far.stdin, mode="w|", dereference=True) as archive:
                    archive.add(here, arcname=".")
                far.stdin.close()
            except BrokenPipeError:
                pass  # the reason is what the far side says
            told = far.stderr.read().decode(errors="replace")
        if far.returncode:
            raise RunnerFailedError(self.name, "failed", f"the job cannot be sent: {tail(told)}")

    def _bring_back(self, there: str, folder: Path) -> None:
        with subprocess.Popen(
            [*self._command(), f"tar -c -C {there}/job out result.json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as far:
            assert far.stdout is not None
            try:
                with tarfile.open(fileobj=far.stdout, mode="r|") as archive:
                    archive.extractall(folder, filter="data")
            except tarfile.TarError as error:
                raise RunnerFailedError(self.name, "failed", f"the result cannot be read: {error}") from None

    def _ssh(self, command: str, *, timeout_s: float = 60.0) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                [*self._command(), command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            why = f"no answer within {timeout_s:g} s"
            raise RunnerFailedError(self.name, "hung", why) from None

    def _command(self) -> list[str]:
        address = urlsplit(self.name)
        fixed = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
        port = ["-p", str(address.port)] if address.port else []
        user = ["-l", address.username] if address.username else []
        wait = ["-o", f"ConnectTimeout={_CONNECT_S}"]
        return ["ssh", *self.options, *fixed, *wait, *port, *user, "--", address.hostname or ""]

    def _no_answer(self, told: str) -> tuple[str, str]:
        """Return message and hint for a board that cannot be reached, by what ssh says."""
        address = urlsplit(self.name)
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in told:
            return (
                f"{self.name}: the host has another key than the one that is known",
                f"If the board was set up anew: ssh-keygen -R {address.hostname}, and connect once by hand.",
            )
        if "Host key verification failed" in told:
            hint = f"Connect to it once by hand and compare its key: ssh {address.hostname}"
            return f"{self.name}: the host is not known (its key is not in known_hosts)", hint
        if "Permission denied" in told:
            hint = f"Put your public key there: ssh-copy-id {address.hostname}"
            return f"{self.name}: the board refuses the login: {tail(told)}", hint
        return f"{self.name}: the board does not answer: {tail(told)}", "Check the address and the network."


def parse_ssh(name: str) -> Ssh:
    """Return the runner of an `ssh://` address.

    Raises:
        RunnerMissingError: The address has no host, or a port that is none.
    """
    address = urlsplit(name)
    try:
        complete = bool(address.hostname) and address.port != 0
    except ValueError:
        complete = False
    if not complete or address.path not in ("", "/") or address.query not in ("", "install"):
        raise RunnerMissingError(f"'{name}' is not an address of a board", "Write ssh://user@host:port")
    return Ssh(name)
