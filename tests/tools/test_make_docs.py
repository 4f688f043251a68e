"""The page about targets says what the profiles say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from edgekit.profile import available, load_profile

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def make_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "tools" / "make_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_in_the_repository_is_up_to_date(make_docs, capsys) -> None:
    assert make_docs.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_or_missing_page_fails_the_check_and_writing_mends_it(make_docs, tmp_path, capsys) -> None:
    page = tmp_path / "targets.md"
    for stale in (None, "old"):
        if stale is not None:
            page.write_text(stale)
        assert make_docs.main(["--check", "--page", str(page)]) == 1
        assert "out of date" in capsys.readouterr().err
        assert make_docs.main(["--page", str(page)]) == 0
        assert make_docs.main(["--check", "--page", str(page)]) == 0


def test_the_page_holds_every_target_and_every_source(make_docs) -> None:
    profiles = [load_profile(name) for name in available()]
    page = make_docs.targets_page(profiles)
    for profile in profiles:
        assert f"## {profile.name}\n" in page
        assert profile.status in page
        assert all(f"`{key}`" in page and why in page for key, why in profile.sources.items())


def test_a_changed_value_changes_the_page(make_docs) -> None:
    profile = load_profile("arm64")
    changed = profile.model_copy(update={"onnx": profile.onnx.model_copy(update={"opset": 21})})
    assert make_docs.targets_page([profile]) != make_docs.targets_page([changed])
