"""`edgekit export` with statistics that are kept, taken and refused, and the audit of the calibration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.preflight import known_gates
from edgekit.quantize.audit import GATES

MODULE = """
import numpy as np
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    example = {"input": np.zeros((2, 8), np.float32)}
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), example
"""


@pytest.fixture
def mlp(place: Path) -> tuple[object, ...]:
    (place / "mlp_of_statistics.py").write_text(MODULE)
    samples = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    np.savez(place / "data.npz", input=samples)
    common = ("export", "mlp_of_statistics:make", "-t", "cpu-x86", "-c", "data.npz", "--runs", 0)
    return (*common, "--samples", 200, "--gate", "sqnr_db=10")


def package(folder: Path) -> tuple[bytes, object]:
    """Return the graph and its history; the report beside them tells times, which differ."""
    manifest = json.loads((folder / "cpu-x86/manifest.json").read_text())
    return (folder / "cpu-x86/model.onnx").read_bytes(), manifest["history"]


def test_kept_statistics_make_the_same_package_without_running_the_model(run, mlp, place):
    assert run(*mlp, "-o", "first", "--save-statistics", "s.npz").code == 0
    kept = (place / "s.npz").read_bytes()
    second = run(*mlp, "-o", "second", "--statistics", "s.npz")
    assert second.code == 0
    assert "calibrate: reading s.npz" in second.err
    assert run(*mlp, "-o", "third").code == 0
    assert package(place / "second") == package(place / "first") == package(place / "third")
    assert (place / "s.npz").read_bytes() == kept


def test_statistics_of_other_data_are_refused(run, mlp, place):
    assert run(*mlp, "-o", "first", "--save-statistics", "s.npz").code == 0
    for flag in ("--statistics", "--save-statistics"):
        ran = run(*mlp, "-o", "second", "--seed", 1, flag, "s.npz")
        assert ran.code == 2
        assert "s.npz was made with other calibration data" in ran.err
        assert not (place / "second").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--statistics", "none.npz"), "statistics file not found: none.npz"),
        (("--statistics", "a.npz", "--save-statistics", "b.npz"), "are both given"),
        (("--save-statistics", "out/s.npz"), "lies in the output"),
        (("--save-statistics", "."), "is a folder"),
        (("--save-statistics", "s.npz", "--method", "none"), "has no meaning where nothing is quantized"),
        (("--max-memory", "0"), "is not a number of MB above 0"),
        (("--max-memory", "0.01"), "calibration needs at least"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_refused_in_one_line(run, mlp, place, flags, said):
    ran = run(*mlp, "-o", "out", *flags)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert not (place / "out").exists()


def test_a_memory_budget_changes_nothing_but_the_memory(run, mlp, place):
    assert run(*mlp, "-o", "free").code == 0
    assert run(*mlp, "-o", "bound", "--max-memory", 500).code == 0
    assert package(place / "free") == package(place / "bound")


def test_the_report_tells_of_the_audit_where_it_tells_of_the_data(run, mlp, place):
    assert run(*mlp, "-o", "out").code == 0
    (report,) = json.loads((place / "out/report.json").read_text())["targets"]
    ranges = report["data"]["ranges"]
    assert (ranges["samples_asked"], ranges["samples_used"]) == (200, 200)
    assert len(ranges["range_growth_by_tenth"]) == 10
    assert ranges["tensors_quantized"] == len(ranges["clip_rate_worst"]) == 2
    states = {check["name"]: check["state"] for check in report["verdict"]["checks"]}
    assert states["clip_rate"] == states["range_growth"] == "pass"
    page = (place / "out/report.html").read_text()
    assert "clip rate worst" in page
    assert "range growth by tenth" in page


def test_calibration_data_of_another_kind_than_the_held_out_stops_the_run(run, mlp, place):
    wide = np.random.default_rng(1).normal(size=(64, 8)) * 20
    np.savez(place / "wide.npz", input=wide.astype(np.float32))
    ran = run(*mlp, "-o", "out", "--validation", "wide.npz", "--gate", "sqnr_db=-100")
    assert ran.code == 1
    assert "clip_rate is" in ran.err
    assert "worst: '" in ran.err
    assert "give more calibration samples" in ran.err
    assert not (place / "out").exists()


def test_the_gates_of_the_audit_can_be_set():
    assert {gate.name for gate in GATES} <= set(known_gates("generic"))
