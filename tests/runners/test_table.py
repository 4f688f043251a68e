"""Names on the command line and the runners that they mean."""

from __future__ import annotations

import pytest

from edgekit.errors import RunnerMissingError
from edgekit.profile import load_profile
from edgekit.runners.kit import Kit
from edgekit.runners.table import RUNNERS, kits, runner_named, runners_named, suits, with_native

PORTABLE = load_profile("cpu-x86-portable")


def test_every_runner_has_a_name_of_its_own_and_a_title() -> None:
    names = [runner.name for runner in RUNNERS]
    assert len(names) == len(set(names)) >= 30
    assert all(runner.title for runner in RUNNERS)


def test_every_part_of_every_kit_is_pinned() -> None:
    found: list[Kit] = [kit for kit in kits() if kit.parts]
    assert len(found) >= 10
    for kit in found:
        for part in kit.parts:
            assert len(part.sha256) == 64
            assert part.bytes > 0
            assert all(url.startswith(("https://", "http://deb.debian.org/")) for url in part.urls)


def test_a_misspelled_runner_is_named_with_the_nearest() -> None:
    with pytest.raises(RunnerMissingError, match="unknown runner 'x86-avx3'") as caught:
        runner_named("x86-avx3")
    assert "Did you mean 'x86-avx" in caught.value.hint


@pytest.mark.parametrize(("name", "level"), [("ssh://pi@board:22", "board"), ("adb://SERIAL", "board")])
def test_an_address_is_a_runner(name: str, level: str) -> None:
    runner = runner_named(name)
    assert (runner.name, runner.level) == (name, level)


def test_each_is_taken_once_and_native_comes_first() -> None:
    chosen = runners_named(("native", "native"), PORTABLE)
    assert [runner.name for runner in with_native(chosen)] == ["native"]


def test_a_runner_that_is_not_ready_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    with pytest.raises(
        RunnerMissingError, match=r"ort-1.24.4: the kit 'ort-1.24.4' is not installed"
    ) as caught:
        runners_named(("ort-1.24.4",), PORTABLE)
    assert caught.value.hint == "Run: edgekit runners install ort-1.24.4"


def test_all_leaves_out_what_the_target_is_not_meant_for() -> None:
    newer = PORTABLE.model_copy(update={"onnx": PORTABLE.onnx.model_copy(update={"min_runtime": "1.23"})})
    assert suits(runner_named("ort-1.18.0"), PORTABLE)
    assert not suits(runner_named("ort-1.22.1"), newer)
    assert suits(runner_named("ort-1.23.2"), newer)
    assert not suits(runner_named("qnn-htp-v75"), PORTABLE)
    assert suits(runner_named("arm64-cortex-a53"), PORTABLE)
