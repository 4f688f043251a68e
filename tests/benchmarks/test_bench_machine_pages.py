"""Rewrites, embeddings, zeros and memory on the page of benchmarks."""

from benchmarks.machine_pages import embeddings_section, memory_section, rewrites_section, sparsity_section

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


def test_tables_show_what_they_cost_and_where_they_run() -> None:
    speed = {"shape": "1x16", "p50_ms": 2.0, "speedup": 0.987, "interval": [0.98, 0.99]}
    form = {"tables": "int4", "file_bytes": 17_700_000, "compressed_bytes": 15_700_000}
    form |= {"peak_memory_bytes": 41_000_000, "cosine_mean": 0.99765, "cosine_p05": 0.9962}
    form |= {"rank_correlation": 0.99696, "speed_over_int8": [speed]}
    results = {
        **ABOUT,
        "command": "python -m benchmarks.embeddings",
        "held_out": 512,
        "rows": [form],
        "lookup": [{"tables": "int4", "speed_over_int8": [speed]}],
        "places": [
            {"place": "wasm-node", "tables": "int4", "cosine_to_this_cpu": 0.99999, "speed_over_int8": speed},
            {"place": "ort-1.18.0", "tables": "int4", "failed": "no such operator"},
        ],
    }
    shown = embeddings_section(results)
    row = "| int4 | 17.7 MB | 15.7 MB | 41 MB | 0.9977 | 0.9962 | 0.9970 | 0.99 (0.98–0.99) |"
    assert row in shown
    assert "int4 2.000 ms at 1x16" in shown
    assert "| `wasm-node` | int4 | 1.0000 | 1x16: 0.99 (0.98–0.99) |" in shown
    assert "| `ort-1.18.0` | int4 | does not load there |  |" in shown


def test_zeros_show_their_bytes_and_that_nothing_is_faster() -> None:
    speed = {"shape": "1x128", "p50_ms": 7.0, "speedup": 1.004, "interval": [0.99, 1.01]}
    row = {"form": "half, sparsegpt", "zero_codes": 0.4913, "file_bytes": 22_900_000}
    row |= {"deflated_bytes": 18_180_000, "cosine_mean": 0.9312, "cosine_p05": 0.87, "rank_correlation": 0.95}
    results = {**ABOUT, "command": "python -m benchmarks.sparsity", "held_out": 256}
    shown = sparsity_section({**results, "rows": [{**row, "speed_over_dense": [speed]}]})
    wanted = "| half, sparsegpt | 49% | 22.9 MB | 18.2 MB | 0.9312 | 0.8700 | 0.9500 | 1.00 (0.99–1.01) |"
    assert wanted in shown
