"""A board over SSH, played by an OpenSSH server on this machine's loopback."""

from __future__ import annotations

import dataclasses
import getpass
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.errors import RunnerFailedError, RunnerMissingError
from edgekit.runners import Job
from edgekit.runners.ssh import Ssh, parse_ssh

SSHD = shutil.which("sshd") or ("/usr/sbin/sshd" if Path("/usr/sbin/sshd").is_file() else None)


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """Start an SSH server on a free port; return the port and the folder of its keys."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("no OpenSSH server here: apt-get install openssh-server openssh-client")
    folder = tmp_path_factory.mktemp("sshd")
    folder.chmod(0o700)
    _keygen(folder / "host")
    _keygen(folder / "client")
    shutil.copyfile(folder / "client.pub", folder / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nPidFile {folder / 'pid'}\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\nStrictModes no\nPasswordAuthentication no\n"
        f"PubkeyAuthentication yes\nUsePAM no\nPermitRootLogin yes\nSetEnv TMPDIR={folder / 'tmp'}\n"
    )
    (folder / "tmp").mkdir()
    Path("/run/sshd").mkdir(exist_ok=True) if getpass.getuser() == "root" else None
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    key = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
    yield port, folder
    process.terminate()
    process.wait()


def _board(server: tuple[int, Path], known_hosts: str = "known_hosts", key: str = "client") -> Ssh:
    port, folder = server
    options = ("-F", "none", "-i", str(folder / key), "-o", f"UserKnownHostsFile={folder / known_hosts}")
    name = f"ssh://{getpass.getuser()}@127.0.0.1:{port}"
    return dataclasses.replace(parse_ssh(name), options=options, python=sys.executable)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    graph = helper.make_graph(
        [helper.make_node("Exp", ["x"], ["y"])],
        "exp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), path)
    return Job(path, ({"x": np.arange(6, dtype=np.float32).reshape(2, 3)},), ("y",), timeout_s=60)


def _left_behind(server: tuple[int, Path]) -> list[Path]:
    """Return what is in the folder where the board keeps temporary files."""
    return list((server[1] / "tmp").iterdir())


def test_a_job_runs_on_the_board_and_leaves_nothing_there(server: tuple[int, Path], job: Job) -> None:
    result = _board(server).run(job)
    assert np.allclose(result.outputs[0]["y"], np.exp(job.batches[0]["x"]), rtol=1e-6)
    assert result.deterministic
    assert result.runtime_version
    assert result.cpu
    assert not _left_behind(server)


def test_a_host_that_is_not_known_is_refused(server: tuple[int, Path], job: Job) -> None:
    with pytest.raises(RunnerMissingError, match="the host is not known"):
        _board(server, known_hosts="none_such").run(job)


def test_a_host_with_another_key_is_refused(server: tuple[int, Path], job: Job) -> None:
    port, folder = server
    other = (folder / "client.pub").read_text().split()
    (folder / "wrong_hosts").write_text(f"[127.0.0.1]:{port} {other[0]} {other[1]}\n")
    with pytest.raises(RunnerMissingError, match="another key than the one that is known"):
        _board(server, known_hosts="wrong_hosts").run(job)


def test_a_key_that_the_board_does_not_take_is_told(server: tuple[int, Path], job: Job) -> None:
    with pytest.raises(RunnerMissingError, match="refuses the login") as caught:
        _board(server, key="host").run(job)
    assert "ssh-copy-id" in caught.value.hint


def test_a_board_without_python_is_named(server: tuple[int, Path], job: Job) -> None:
    board = dataclasses.replace(_board(server), python="python-none-such")
    with pytest.raises(RunnerMissingError, match="there is no python-none-such on the board"):
        board.run(job)


def test_a_python_without_onnxruntime_says_what_to_do(
    server: tuple[int, Path], job: Job, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(RunnerMissingError, match="lacks onnxruntime or numpy") as caught:
        dataclasses.replace(_board(server), python=str(bare)).run(job)
    assert "?install" in caught.value.hint
    assert not _left_behind(server)


def test_a_model_that_fails_there_says_why_and_leaves_nothing(server: tuple[int, Path], job: Job) -> None:
    job.model.write_bytes(b"nonsense")
    with pytest.raises(RunnerFailedError, match=r"failed: .*rotobuf"):
        _board(server).run(job)
    assert not _left_behind(server)


def test_a_run_that_hangs_is_ended_there(server: tuple[int, Path], job: Job, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text(f'#!/bin/sh\ncase "$*" in *child.py*) sleep 120;; *) exec {sys.executable} "$@";; esac\n')
    slow.chmod(0o755)
    board = dataclasses.replace(_board(server), python=str(slow))
    with pytest.raises(RunnerFailedError) as caught:
        board.run(dataclasses.replace(job, timeout_s=2))
    assert caught.value.outcome == "hung"


def test_a_machine_that_is_not_there_does_not_answer(job: Job) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("no ssh program here: apt-get install openssh-client")
    with pytest.raises(RunnerMissingError, match="does not answer"):
        Ssh("ssh://127.0.0.1:1", options=("-F", "none")).run(job)


@pytest.mark.parametrize("address", ["ssh://", "ssh://host:port", "ssh://host/folder", "ssh://host?x=1"])
def test_an_address_that_makes_no_sense_is_refused(address: str) -> None:
    with pytest.raises(RunnerMissingError, match="not an address of a board"):
        parse_ssh(address)
