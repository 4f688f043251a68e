"""`edgekit runners`, `export --on` and `validate --on`: proved where it will run, or never written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.runners.table import RUNNERS

EXPORT = ("-c", "data.npz", "--samples", "24", "--validation-samples", "8", "--runs", "0", "-o", "out")


@pytest.fixture
def model(place: Path, write_layer: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(place))
    return write_layer(place, width=32)


@pytest.fixture
def masked(x86_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets this test see the masked x86 tiers, and no other kit."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(x86_cache))


def test_the_list_says_which_are_ready_and_how_to_get_the_others(run: Any) -> None:
    listed = json.loads(run("runners", "--json").out)
    assert [entry["name"] for entry in listed] == [runner.name for runner in RUNNERS]
    by_name = {entry["name"]: entry for entry in listed}
    assert by_name["native"]["ready"]
    assert by_name["arm64-cortex-a76"]["hint"] == "edgekit runners install arm"
    told = run("runners").out
    assert "edgekit validate PACKAGE --on NAME" in told
    assert all(runner.name in told for runner in RUNNERS)


def test_installing_what_does_not_exist_is_refused(refused: Callable[..., str]) -> None:
    told = refused("runners", "install", "arm65", code=3)
    assert "unknown runner or kit 'arm65'" in told
    assert "Did you mean 'arm" in told


@pytest.mark.usefixtures("masked")
def test_a_package_whose_sums_are_cut_on_a_runner_is_never_written(run: Any, place: Path, model: str) -> None:
    """Weights of the full range are right with VNNI, and saturate on AVX2, which no score would show."""
    ran = run("export", model, "-t", "cpu-x86", *EXPORT, "--on", "x86-avx2")
    assert ran.code == 1
    assert "cpu-x86 on x86-avx2: Int8 sums that differ from the exact integers" in ran.err
    assert not (place / "out").exists()
    report = json.loads((place / "out.failed" / "report.json").read_text())
    rows = {row["runner"]: row for row in report["targets"][0]["verdict"]["executions"]}
    assert rows["native"]["passed"]
    assert not rows["x86-avx2"]["passed"]
    assert "x86-avx2" in (place / "out.failed" / "report.html").read_text()


@pytest.mark.usefixtures("masked")
def test_a_package_says_where_it_was_run_and_validate_does_it_again_without_torch(
    run: Any, run_without_torch: Any, place: Path, model: str
) -> None:
    ran = run("export", model, "-t", "cpu-x86-portable", *EXPORT)
    assert ran.code == 0, ran.err
    package = place / "out" / "cpu-x86-portable"
    proved = json.loads((package / "manifest.json").read_text())["verified"]
    assert proved["level"] == "native"
    rows = {row["runner"]: row for row in proved["executions"]}
    assert rows["x86-sse"]["level"] == rows["x86-avx2"]["level"] == "masked"
    assert rows["x86-sse"]["passed"]
    assert rows["x86-avx2"]["passed"]
    assert rows["ort-1.18.0"]["outcome"] == "missing"
    assert "seconds" not in rows["x86-sse"], "a manifest holds nothing that differs from run to run"
    again = run_without_torch("validate", package, "--on", "x86-avx2", "--runs", "0", "--json")
    assert again.code == 0, again.err
    assert [row["runner"] for row in json.loads(again.out)["executions"]] == ["native", "x86-avx2"]


def test_a_runner_that_is_not_installed_is_refused_before_any_work(
    refused: Callable[..., str], model: str
) -> None:
    told = refused("export", model, "-t", "arm64", *EXPORT, "--on", "arm64-cortex-a76", code=3)
    assert "arm64-cortex-a76: the kit 'arm' is not installed" in told
    assert "edgekit runners install arm" in told
