"""The demo uses the weights that it says it uses."""

from __future__ import annotations

import hashlib
import os

import pytest

from tools.demo import WEIGHTS_SHA256, checked_model, prepare


def test_the_installed_weights_are_the_ones_that_are_known() -> None:
    assert (checked_model() / "model.safetensors").is_file()


def test_other_weights_end_the_demo(tmp_path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(SystemExit, match="is not all-MiniLM-L6-v2: its SHA-256 is"):
        checked_model(tmp_path)


def test_missing_weights_end_the_demo(tmp_path) -> None:
    with pytest.raises(SystemExit, match=r"model\.safetensors is missing"):
        checked_model(tmp_path)


def test_it_prepares_a_model_directory_and_texts(tmp_path) -> None:
    model, texts = prepare(tmp_path)
    assert (model / "modules.json").is_file()
    assert len(texts.read_text(encoding="utf-8").splitlines()) > 1000


def test_a_process_that_maps_the_model_keeps_it_when_it_is_prepared_again(tmp_path) -> None:
    model, _ = prepare(tmp_path)
    with (model / "model.safetensors").open("rb") as mapped:
        prepare(tmp_path)
        assert hashlib.sha256(mapped.read()).hexdigest() == WEIGHTS_SHA256
        assert (model / "model.safetensors").stat().st_ino != os.fstat(mapped.fileno()).st_ino
