"""Files and folders are never half-written: not by an error, a full disk or Ctrl-C."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import OutputExistsError, StorageError
from edgekit.store import (
    deflated_bytes,
    dump_json,
    refuse_existing,
    sha256_file,
    sha256_json,
    storage_errors,
    workspace,
    write_text,
    writing,
    writing_folder,
)

INTERRUPTIONS = [ValueError("bug"), KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def _package(folder: Path, content: str = "old") -> Path:
    folder.mkdir()
    (folder / "model.onnx").write_text(content)
    return folder


def test_a_file_appears_whole_and_leaves_nothing_beside_it(tmp_path) -> None:
    write_text(tmp_path / "deep" / "a.txt", "grüße")
    assert (tmp_path / "deep" / "a.txt").read_text(encoding="utf-8") == "grüße"
    assert _names(tmp_path) == ["deep", "deep/a.txt"]


def test_a_file_can_be_read_by_everyone_like_any_other(tmp_path) -> None:
    write_text(tmp_path / "a.txt", "x")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("interruption", INTERRUPTIONS, ids=repr)
def test_a_file_stays_as_it_was_when_writing_breaks_off(tmp_path, interruption) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises((type(interruption), StorageError)), writing(tmp_path / "a.txt") as aside:  # noqa: PT012
        aside.write_text("half of the ne")
        raise interruption
    assert (tmp_path / "a.txt").read_text() == "old"
    assert _names(tmp_path) == ["a.txt"]


def test_a_file_keeps_its_suffix_while_it_is_written_because_writers_look_at_it(tmp_path) -> None:
    with writing(tmp_path / "golden.npz") as aside:
        assert aside.suffix == ".npz"
        assert aside.parent == tmp_path


def test_a_full_disk_leaves_the_earlier_file_and_says_what_to_do(tmp_path) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")
    # The limit on file sizes makes a real write fail half-way, as a full disk does.
    program = """
import resource, signal, sys
from pathlib import Path
from edgekit.errors import StorageError
from edgekit.store import writing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with writing(Path(sys.argv[1])) as aside:
        aside.write_bytes(bytes(1_000_000))
except StorageError as error:
    print(error.exit_code, error.message, "|", error.hint)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.bin")], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("3 cannot write ")
    assert "Free space" in result.stdout
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert _names(tmp_path) == ["a.bin"]


def test_a_folder_appears_whole_and_leaves_nothing_beside_it(tmp_path) -> None:
    with writing_folder(tmp_path / "out" / "pkg", force=False) as aside:
        (aside / "sub").mkdir()
        (aside / "sub" / "a").write_text("x")
        assert not (tmp_path / "out" / "pkg").exists()
    assert _names(tmp_path) == ["out", "out/pkg", "out/pkg/sub", "out/pkg/sub/a"]
    assert (tmp_path / "out" / "pkg").stat().st_mode & 0o777 == 0o755


def test_a_folder_that_holds_something_is_refused_without_force(tmp_path) -> None:
    _package(tmp_path / "pkg")
    with pytest.raises(OutputExistsError) as caught, writing_folder(tmp_path / "pkg", force=False):
        pytest.fail("the block must not run")
    assert "--force" in caught.value.hint
    assert _names(tmp_path) == ["pkg", "pkg/model.onnx"]


def test_force_replaces_the_folder_and_keeps_nothing_of_the_old_one(tmp_path) -> None:
    _package(tmp_path / "pkg")
    with writing_folder(tmp_path / "pkg", force=True) as aside:
        (aside / "new").write_text("new")
        assert (tmp_path / "pkg" / "model.onnx").read_text() == "old"
    assert _names(tmp_path) == ["pkg", "pkg/new"]


def test_an_empty_folder_is_filled_without_force(tmp_path) -> None:
    (tmp_path / "pkg").mkdir()
    with writing_folder(tmp_path / "pkg", force=False) as aside:
        (aside / "new").write_text("new")
    assert _names(tmp_path) == ["pkg", "pkg/new"]


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_something_that_is_no_folder_is_refused_even_with_force(tmp_path, kind, force) -> None:
    if kind == "file":
        (tmp_path / "pkg").write_text("x")
    else:
        _package(tmp_path / "real")
        (tmp_path / "pkg").symlink_to(tmp_path / "real")
    before = _names(tmp_path)
    with (
        pytest.raises(OutputExistsError, match="is not a folder"),
        writing_folder(tmp_path / "pkg", force=force),
    ):
        pytest.fail("the block must not run")
    assert _names(tmp_path) == before


@pytest.mark.parametrize("interruption", INTERRUPTIONS, ids=repr)
def test_a_folder_stays_as_it_was_when_writing_breaks_off(tmp_path, interruption) -> None:
    _package(tmp_path / "pkg")
    with (  # noqa: PT012
        pytest.raises((type(interruption), StorageError)),
        writing_folder(tmp_path / "pkg", force=True) as aside,
    ):
        (aside / "new").write_text("half")
        raise interruption
    assert _names(tmp_path) == ["pkg", "pkg/model.onnx"]
    assert (tmp_path / "pkg" / "model.onnx").read_text() == "old"


@pytest.mark.parametrize("failing_rename", [0, 1])
def test_a_folder_comes_back_when_the_last_rename_breaks_off(tmp_path, monkeypatch, failing_rename) -> None:
    _package(tmp_path / "pkg")
    rename, calls = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing_rename + 1:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt), writing_folder(tmp_path / "pkg", force=True) as aside:
        (aside / "new").write_text("new")
    assert _names(tmp_path) == ["pkg", "pkg/model.onnx"]
    assert (tmp_path / "pkg" / "model.onnx").read_text() == "old"


def test_a_place_below_a_file_is_a_storage_error(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    for act in (
        lambda path: write_text(path, "x"),
        lambda path: writing_folder(path, force=True).__enter__(),
    ):
        with pytest.raises(StorageError, match="cannot write"):
            act(tmp_path / "file" / "pkg")


def test_a_folder_in_the_place_of_the_file_is_a_storage_error(tmp_path) -> None:
    _package(tmp_path / "a.txt")
    with pytest.raises(StorageError, match="cannot write"):
        write_text(tmp_path / "a.txt", "x")
    assert _names(tmp_path) == ["a.txt", "a.txt/model.onnx"]


def test_a_name_that_is_too_long_is_a_storage_error(tmp_path) -> None:
    with pytest.raises(StorageError, match="name too long"):
        write_text(tmp_path / ("a" * 300), "x")


def test_an_error_that_is_not_about_storage_stays_what_it_is(tmp_path) -> None:
    with pytest.raises(FileNotFoundError), storage_errors(tmp_path):
        (tmp_path / "gone").read_bytes()


def test_refusing_needs_nothing_that_is_there(tmp_path) -> None:
    refuse_existing(tmp_path / "gone", force=False)
    refuse_existing(tmp_path, force=False)
    refuse_existing(_package(tmp_path / "pkg"), force=True)


@pytest.mark.parametrize("interruption", [None, *INTERRUPTIONS], ids=repr)
def test_a_workspace_is_gone_afterwards(tmp_path, interruption) -> None:
    try:
        with workspace(tmp_path) as folder:
            (folder / "x").write_text("x")
            assert folder.parent == tmp_path
            if interruption is not None:
                raise interruption
    except (ValueError, KeyboardInterrupt, StorageError):
        assert interruption is not None
    assert _names(tmp_path) == []


def test_a_full_disk_inside_a_workspace_is_a_storage_error(tmp_path) -> None:
    with pytest.raises(StorageError), workspace(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_hash_is_the_sha256_of_its_bytes(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 1000).hexdigest()


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_a_json_hash_does_not_depend_on_the_order_of_keys(value) -> None:
    assert sha256_json(value) == sha256_json(dict(reversed(value.items())))


def test_json_text_reads_back_and_refuses_what_json_cannot_say() -> None:
    assert json.loads(dump_json({"a": [1, "ü"]})) == {"a": [1, "ü"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_json({"a": float("nan")})


def test_the_deflated_size_is_what_a_zip_member_weighs(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 1_000_000 + bytes(range(256)) * 9)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.write(tmp_path / "a")
    weighed = archive.infolist()[0].compress_size
    assert abs(deflated_bytes(tmp_path / "a") - weighed) <= 6  # zlib adds a header and a checksum
