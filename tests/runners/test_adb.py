"""An Android phone over adb, played by a program that does adb's work on this machine under the emulator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import RunnerFailedError, RunnerMissingError
from edgekit.runners import Job, Runner
from edgekit.runners.adb import Adb
from edgekit.runners.arm.kit import KIT
from edgekit.runners.native import Native

PHONE = """\
#!/bin/sh
# adb -s SERIAL shell|push|pull ...: paths on the phone lie below @ROOT@.
[ "$1" = "-s" ] && { [ "$2" = "@SERIAL@" ] || { echo "device '$2' not found" >&2; exit 1; }; shift 2; }
inside() { echo "$1" | sed 's#/data/local/tmp#@ROOT@/data/local/tmp#g'; }
case "$1" in
  push) cp -r "$2" "$(inside "$3")" ;;
  pull) cp -r "$(inside "$2")" "$3" ;;
  shell)
    case "$2" in
      "uname -m") echo @MACHINE@ ;;
      getprop*) echo "Stand-in phone" ;;
      *)
        command="$(inside "$2" | sed 's#\\./lib/ld-linux#@QEMU@ -cpu cortex-a76 ./lib/ld-linux#')"
        told="$(sh -c "$command")"; code=$?
        echo "$told" | sed 's#@ROOT@##'; exit $code ;;
    esac ;;
esac
"""


@pytest.fixture
def phone(tmp_path: Path, ready: Callable[[Runner], Runner]) -> Callable[..., Adb]:
    def make(machine: str = "aarch64", serial: str = "ABC") -> Adb:
        program = tmp_path / "adb"
        text = PHONE.replace("@ROOT@", str(tmp_path / "phone")).replace("@SERIAL@", "ABC")
        text = text.replace("@MACHINE@", machine).replace("@QEMU@", str(KIT.folder / "emulator/qemu-aarch64"))
        program.write_text(text)
        program.chmod(0o755)
        (tmp_path / "phone/data/local/tmp").mkdir(parents=True, exist_ok=True)
        runner = Adb(name=f"adb://{serial}", program=str(program))
        ready(runner)
        return runner

    return make


def _left_behind(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "phone/data/local/tmp").iterdir())


def test_a_job_runs_on_the_phone_and_leaves_nothing_there(
    phone: Callable[..., Adb], tiny_jobs: Callable[..., dict[str, Job]], tmp_path: Path
) -> None:
    job = tiny_jobs()["int8"]
    found, expected = phone().run(job), Native().run(job)
    for ours, theirs in zip(found.outputs, expected.outputs, strict=True):
        assert np.allclose(ours["y"], theirs["y"], atol=1e-5)
    assert found.cpu.startswith("Stand-in phone")
    assert "asimddp" in found.cpu_features
    assert not _left_behind(tmp_path)


def test_a_model_that_fails_there_says_why_and_leaves_nothing(
    phone: Callable[..., Adb], tiny_jobs: Callable[..., dict[str, Job]], tmp_path: Path
) -> None:
    job = tiny_jobs()["int8"]
    job.model.write_bytes(b"nonsense")
    with pytest.raises(RunnerFailedError, match="rotobuf"):
        phone().run(job)
    assert not _left_behind(tmp_path)


def test_a_phone_that_is_not_there_is_named(
    phone: Callable[..., Adb], tiny_jobs: Callable[..., dict[str, Job]]
) -> None:
    with pytest.raises(RunnerMissingError, match="no phone answers: device 'XYZ' not found"):
        phone(serial="XYZ").run(tiny_jobs()["int8"])


def test_a_32_bit_phone_is_refused(
    phone: Callable[..., Adb], tiny_jobs: Callable[..., dict[str, Job]]
) -> None:
    with pytest.raises(RunnerMissingError, match="the phone is armv7l, not 64-bit ARM"):
        phone(machine="armv7l").run(tiny_jobs()["int8"])


def test_without_adb_it_says_how_to_get_it() -> None:
    state = dataclasses.replace(Adb(), program="adb-none-such").state()
    assert "'adb' is not installed" in state.missing
    assert "apt-get install adb" in state.hint
