"""The generated pages say what the profiles, the commands and the benchmark's results say."""

from __future__ import annotations

import shutil
import subprocess
import sys

import click
import pytest

from edgekit.profile import available, load_profile
from tools import make_docs

RESULTS = {
    "machine": {"cpu": "Some CPU", "features": ["avx2"], "cores": 2},
    "versions": {"onnxruntime": "1.31.1", "torch": "2.13.0", "transformers": "5.23.0"},
    "held_out": 256,
    "float_bytes": 90_300_000,
    "help_seconds": {"median": 0.123},
    "targets": [
        {
            "name": "cpu-x86",
            "file_bytes": 23_100_000,
            "checks": {"cosine_mean": 0.99861, "cosine_p05": 0.9975, "rank_correlation": 0.998},
            "latency": [{"shape": "1x16", "speedup": 1.854, "speedup_low": 1.55, "speedup_high": 2.04}],
        },
        {
            "name": "arm64",
            "file_bytes": 23_100_000,
            "checks": {"cosine_mean": 0.9986, "cosine_p05": 0.9975, "rank_correlation": 0.998},
            "latency": [],
        },
    ],
}
README = "# title\n\n<!-- figures: from here -->\nold\n<!-- end of figures -->\n\nrest\n"


@pytest.fixture
def root(tmp_path):
    """A checkout's root with nothing but the two pages that are not generated whole."""
    shutil.copy(make_docs.ROOT / "README.md", tmp_path)
    (tmp_path / "docs").mkdir()
    for name in ("runners.md", "compression.md", "distillation.md"):
        shutil.copy(make_docs.ROOT / "docs" / name, tmp_path / "docs")
    return tmp_path


def test_the_pages_in_the_repository_are_up_to_date() -> None:
    # In a process of its own: click keeps a command's help option as the first call of it made it.
    check = [sys.executable, "-m", "tools.make_docs", "--check"]
    done = subprocess.run(check, cwd=make_docs.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_stale_and_missing_pages_fail_the_check_and_writing_mends_them(root, capsys) -> None:
    for spoil in (lambda: None, lambda: (root / "docs" / "cli.md").write_text("old")):
        spoil()
        assert make_docs.main(["--check"], root) == 1
        assert "docs/cli.md is out of date" in capsys.readouterr().err
        assert make_docs.main([], root) == 0
        assert make_docs.main(["--check"], root) == 0


def test_a_figure_changed_by_hand_fails_the_check(root, capsys) -> None:
    readme = root / "README.md"
    changed = readme.read_text().replace("| `cpu-x86` |", "| `cpu-x86`, much faster |")
    assert changed != readme.read_text()
    make_docs.main([], root)
    readme.write_text(changed)
    assert make_docs.main(["--check"], root) == 1
    assert "README.md is out of date" in capsys.readouterr().err


def test_the_page_of_targets_holds_every_target_and_every_source() -> None:
    profiles = [load_profile(name) for name in available()]
    page = make_docs.targets_page(profiles)
    for profile in profiles:
        assert f"## {profile.name}\n" in page
        assert profile.status in page
        assert all(f"`{key}`" in page and why in page for key, why in profile.sources.items())


def test_a_changed_value_changes_the_page_of_targets() -> None:
    profile = load_profile("arm64")
    changed = profile.model_copy(update={"onnx": profile.onnx.model_copy(update={"opset": 21})})
    assert make_docs.targets_page([profile]) != make_docs.targets_page([changed])


def test_the_page_of_commands_goes_down_into_groups() -> None:
    @click.group()
    def outer() -> None:
        """The outer one."""

    @outer.group()
    def middle() -> None:
        """The middle one."""

    @middle.command()
    @click.option("--deep", help="Deep inside.")
    def inner(deep: str) -> None:
        """The inner one."""

    page = make_docs.commands_page(outer)
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## edgekit",
        "## edgekit middle",
        "## edgekit middle inner",
    ]
    assert "Deep inside." in page


def test_the_figures_are_the_results_and_the_rest_of_the_readme_stays() -> None:
    text = make_docs.with_figures(README, RESULTS)
    assert text.startswith("# title\n\n<!-- figures: from here -->\n")
    assert text.endswith("<!-- end of figures -->\n\nrest\n")
    assert "old" not in text
    assert "| `cpu-x86` | 23.1 MB | 0.9986 | 0.9975 | 0.9980 | 1.85x (1.55–2.04) |" in text
    assert "| `arm64` | 23.1 MB | 0.9986 | 0.9975 | 0.9980 | not measured here |" in text
    assert "Some CPU, 2 cores" in text


def test_writing_the_figures_twice_is_writing_them_once() -> None:
    once = make_docs.with_figures(README, RESULTS)
    assert make_docs.with_figures(once, RESULTS) == once
