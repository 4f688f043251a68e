"""Rewrites and memory on the page of benchmarks."""

from benchmarks.machine_pages import memory_section, rewrites_section

RATIO = {"gain": 1.0214, "low": 1.01, "high": 1.03}
ABOUT = {"machine": {"cpu": "Chip"}, "versions": {"onnxruntime": "1.2"}, "load_before": 0.5, "target": "here"}


def test_a_rewrite_that_applies_is_a_row_with_its_interval() -> None:
    gains = [
        {"rewrite": "rows", "sites": 24, "shapes": {"1x16": RATIO}, "overall": RATIO, "pays": True},
        {"rewrite": "odd", "sites": 2, "shapes": {"1x16": RATIO}, "overall": RATIO, "pays": False},
        {"rewrite": "absent", "sites": 0, "shapes": {}, "overall": None, "pays": None},
    ]
    results = {
        **ABOUT,
        "command": "python -m benchmarks.rewrites",
        "plan": ["rows"],
        "rows": [{"name": "Net", "gains": gains}],
        "qattention": {"shapes": {"1x16": RATIO}},
    }
    shown = rewrites_section(results)
    ratio = "1.021 (1.010–1.030)"
    assert f"| Net | `rows` | 24 | {ratio} | {ratio} | yes |" in shown
    assert f"| Net | `odd` | 2 | {ratio} | {ratio} | no |" in shown
    assert "absent" not in shown
    assert f"{ratio} at 1x16" in shown


def test_memory_shows_the_peak_of_each_stage_beside_the_goal() -> None:
    stages = [
        {"stage": "load: reading", "peak_bytes": 1_000_000, "seconds": 1.0},
        {"stage": "load: loading", "peak_bytes": 3_000_000, "seconds": 1.0},
        {"stage": "export: exporting", "peak_bytes": 7_000_000, "seconds": 1.0},
    ]
    row = {"name": "Net", "float_bytes": 2_000_000, "int8_bytes": 500_000, "peak_bytes": 7_000_000}
    row |= {"goal_bytes": 1_003_000_000, "samples": 32, "stages": stages}
    shown = memory_section({**ABOUT, "command": "python -m benchmarks.memory", "rows": [row]})
    assert "| Net | 2 MB | 0 MB | 7 MB | 1003 MB | load 3, export 7 |" in shown
