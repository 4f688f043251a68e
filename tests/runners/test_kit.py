"""Kits: what was pinned is what is installed, and a changed file is noticed before it runs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgekit.errors import MachineError, RunnerMissingError
from edgekit.runners.kit import Kit, Part, cache_folder, install_kit, kit_state, open_kit, remove_kit


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "part.bin"
    source.write_bytes(b"pinned content")
    return source


def _build(downloads: Path, folder: Path) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "part.bin").write_bytes((downloads / "part.bin").read_bytes())


def _kit(source: Path, sha256: str | None = None) -> Kit:
    digest = sha256 or hashlib.sha256(source.read_bytes()).hexdigest()
    return Kit("tiny", "one small file", (Part("part.bin", (source.as_uri(),), digest, 14),), _build)


def test_a_kit_is_missing_then_ready_then_gone(source: Path) -> None:
    kit = _kit(source)
    assert kit_state(kit).hint == "edgekit runners install tiny"
    assert install_kit(kit)
    assert kit_state(kit).ready
    assert (open_kit(kit) / "lib" / "part.bin").read_bytes() == b"pinned content"
    assert not install_kit(kit), "a whole kit is not made twice"
    assert remove_kit(kit)
    assert not kit_state(kit).ready


def test_a_download_that_is_not_the_pinned_file_is_refused_and_nothing_is_left(source: Path) -> None:
    kit = _kit(source, sha256="0" * 64)
    with pytest.raises(MachineError, match=r"cannot fetch part\.bin: .*pinned is 000000000000"):
        install_kit(kit)
    assert not kit.folder.exists()


def test_the_second_address_is_tried_when_the_first_does_not_answer(source: Path) -> None:
    kit = _kit(source)
    part = Part("part.bin", ("file:///no/such/file", *kit.parts[0].urls), kit.parts[0].sha256, 14)
    assert install_kit(Kit("tiny", "one small file", (part,), _build))


@pytest.mark.parametrize("fault", ["changed", "removed", "grown", "record"])
def test_a_damaged_kit_is_refused_with_the_command_that_mends_it(source: Path, fault: str) -> None:
    kit = _kit(source)
    install_kit(kit)
    file = kit.folder / "lib" / "part.bin"
    if fault == "changed":
        file.write_bytes(b"another conten")
    elif fault == "removed":
        file.unlink()
    elif fault == "grown":
        file.write_bytes(b"pinned content and more")
    else:
        (kit.folder / "kit.json").write_text("{")
    with pytest.raises(RunnerMissingError, match="damaged") as caught:
        open_kit(kit)
    assert "edgekit runners install tiny --force" in caught.value.hint
    assert install_kit(kit), "installing makes it whole, also without --force"
    assert open_kit(kit)


def test_an_earlier_kit_stays_when_a_new_one_cannot_be_made(source: Path) -> None:
    kit = _kit(source)
    install_kit(kit)
    source.unlink()
    with pytest.raises(MachineError):
        install_kit(kit, force=True)
    assert open_kit(kit)


def test_the_folder_changes_with_the_pins(source: Path) -> None:
    assert _kit(source).folder != _kit(source, sha256="1" * 64).folder


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEKIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "edgekit"
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
