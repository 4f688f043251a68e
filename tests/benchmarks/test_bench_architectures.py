"""The matrix of architectures: what is counted, and how the page shows it."""

import math

import numpy as np
import pytest

from benchmarks.architectures import Outcome, Product, row, sqnr_db
from benchmarks.architectures_page import page
from benchmarks.zoo import ARCHITECTURES, Architecture
from edgekit.golden import Golden, GoldenBatch

VERSIONS = {"onnxruntime": "1", "torch": "2", "transformers": "3"}


def test_coverage_is_the_share_of_multiply_adds_and_not_of_nodes() -> None:
    made = Outcome((Product("a", 900, int8=True), Product("b", 100, int8=False, why="tiny")), 20.0, ((1, 2),))
    assert made.coverage == 0.9


def test_the_signal_to_noise_ratio_is_of_power_over_all_batches() -> None:
    outputs = [{"y": np.full((1, 4), 10.0)}, {"y": np.full((3, 4), 10.0)}]
    batches = tuple(GoldenBatch({"x": np.zeros((len(out["y"]), 2))}, out, None) for out in outputs)
    golden = Golden("generic", batches)
    assert sqnr_db(golden, [{"y": out["y"] + 1} for out in outputs]) == pytest.approx(20)
    assert sqnr_db(golden, outputs) == math.inf


def test_names_are_unique() -> None:
    assert len({architecture.name for architecture in ARCHITECTURES}) == len(ARCHITECTURES)


def test_a_model_that_cannot_be_taken_is_a_row_with_its_reason() -> None:
    decoder = Architecture("T5", "T5ForConditionalGeneration", {"d_model": 8, "num_layers": 1}, task=None)
    made = row(decoder)
    assert "text2text-generation" in made["refused"]
    shown = page({"versions": VERSIONS, "rows": [made]})
    assert f"* T5: {made['refused']}" in shown
    assert "| T5 |" not in shown


def test_the_page_names_products_that_stay_float_with_their_reason() -> None:
    target = {
        "int8_products": 1,
        "products": 2,
        "coverage": 0.5,
        "sqnr_db": 30.04,
        "skipped_products": [{"name": "head/MatMul", "why": "the bias is not constant"}],
        "left_float": [{"op": "Softmax", "why": "no kernel", "count": 3}],
    }
    rewrites = {"rows": 0, "packed-projections": 0, "pools": 0, "divide-by-root": 4}
    speed = {"shape": "1x128", "float_ms": 12.34, "gain": 2.5, "low": 2.4, "high": 2.6}
    shown = page(
        {
            "versions": VERSIONS,
            "rows": [
                {
                    "name": "Net",
                    "model": "NetModel",
                    "rewrites": rewrites,
                    "speed": [speed],
                    "targets": {"cpu-x86": target, "arm64": target},
                }
            ],
        }
    )
    assert (
        "| Net | `NetModel` | 1 of 2 | 50 % | 30 dB | 30 dB | 2.50x (2.40–2.60) | 12.3 ms | norms 4 |"
        in shown
    )
    assert "* Net, `head/MatMul`: the bias is not constant" in shown
    assert "| Net |  | 3 Softmax |" in shown
