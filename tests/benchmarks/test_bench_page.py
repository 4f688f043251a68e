"""The page says what the results say, the failures too."""

from __future__ import annotations

import copy

import pytest

from benchmarks.page import page

FIGURES = {"p50_ms": 20.0, "speedup": 1.0, "speedup_low": 1.0, "speedup_high": 1.0, "turns": 40}
ROW = {
    "name": "float32",
    "title": "fp32, plain export",
    "file_bytes": 91_000_000,
    "quality": {"rank_correlation": 1.0, "cosine_mean": 1.0, "cosine_p05": 1.0, "recall_at_1": 0.6},
    "quantize_seconds": 0.1,
    "quantize_cpu_seconds": 0.1,
    "peak_memory_bytes": 30_000_000,
    "includes_export": False,
    "pooling_outside": False,
    "options": {},
    "note": "",
    "versions": {"onnxruntime": "1.31.1"},
}
INT8 = ROW | {
    "name": "tool",
    "title": "Some tool",
    "file_bytes": 23_100_000,
    "quality": {"rank_correlation": 0.9876, "cosine_mean": 0.99, "cosine_p05": 0.98, "recall_at_1": 0.5975},
    "quantize_seconds": 12.4,
    "quantize_cpu_seconds": 20.6,
    "peak_memory_bytes": 600_000_000,
    "pooling_outside": True,
    "note": "a | b",
}
FAST = {"p50_ms": 8.0, "speedup": 2.5, "speedup_low": 2.4, "speedup_high": 2.6, "turns": 40}


@pytest.fixture
def results():
    """The float row, one that was made and one that was not."""
    point = {
        "load": 1.25,
        "macs_per_second": {"int8": 4e11, "float": 1e11},
        "bound_ms": {"int8": 4.0, "float": 16.0},
        "figures": {"float32": FIGURES, "tool": FAST},
    }
    return {
        "machine": {"cpu": "Some CPU", "features": ["avx2", "avx512_vnni"], "cores": 2},
        "versions": {"onnxruntime": "1.31.1"},
        "calibration_texts": 256,
        "held_out_pairs": 400,
        "competitors": [
            ROW,
            INT8,
            {"name": "other", "title": "Other tool", "failed": "not installed: no wheel"},
        ],
        "latency": [copy.deepcopy(point) | {"shape": "1x128", "threads": threads} for threads in (1, 2)],
    }


def test_every_figure_of_a_tool_is_on_the_page(results) -> None:
    text = page(results)
    assert "| Some tool | 23.1 MB | 0.9876 | 0.9900 | 0.9800 | 0.598 |" in text
    assert text.count("| Some tool | 2.50x (2.40–2.60) |") == 2  # with one thread and with two
    assert "| Some tool | 12 s | 21 s | 600 MB |" in text
    assert "| Some tool | 8.0 ms | 2.0x | 0.5x |" in text
    assert "Some CPU (avx512_vnni), 2 cores" in text
    assert "1x128 with 1: 1.2" in text


def test_a_tool_that_failed_is_named_with_the_reason_and_has_no_figures(results) -> None:
    text = page(results)
    assert "- Other tool: no figures: not installed: no wheel." in text
    assert "| Other tool" not in text


def test_what_is_unlike_the_others_is_said(results) -> None:
    results["competitors"][1]["includes_export"] = True
    results["competitors"][1]["options"] = {"INFERENCE_PRECISION_HINT": "bf16"}
    text = page(results)
    assert "| Some tool | 12 s, export included |" in text
    note = next(line for line in text.splitlines() if line.startswith("- Some tool"))
    assert "token vectors" in note
    assert "INFERENCE_PRECISION_HINT=bf16" in note
    assert "onnxruntime 1.31.1" in note


def test_an_artifact_that_was_not_timed_says_so(results) -> None:
    for point in results["latency"]:
        del point["figures"]["tool"]
    assert page(results).count("| Some tool | not measured |") == 2


def test_the_fp32_row_costs_nothing_to_quantize(results) -> None:
    cost = page(results).partition("## What quantizing costs")[2].partition("##")[0]
    assert "Some tool" in cost
    assert "fp32" not in cost.partition("| ---")[2]
