"""The students of different shapes, and the table that docs/distillation.md shows of them."""

from __future__ import annotations

import json

import pytest

from benchmarks import student_shapes
from benchmarks.student_shapes_page import shapes_section
from edgekit.compress.anatomy import layers_of
from edgekit.compress.base import Data
from edgekit.compress.judge import Judge
from edgekit.data import Sample
from edgekit.model import ModelRef
from edgekit.source import load

TEXTS = [Sample("the old dog sat on the road"), Sample("a red cat ran"), Sample("we saw two birds")]


@pytest.fixture
def student(tiny_st_dir, tmp_path):
    return load(ModelRef(str(tiny_st_dir)), None, scratch=tmp_path)


def test_every_row_is_a_shape_beside_the_unchanged_one():
    for names in student_shapes.MEASURED.values():
        assert names[0] == student_shapes.UNCHANGED
        assert set(names) <= set(student_shapes.SHAPES)


def test_relu_leaves_neither_itself_nor_a_quantizer_and_float_between_leaves_the_quantizer(student, tmp_path):
    data = Data(tuple(TEXTS), Judge.of(student, TEXTS), tmp_path)
    ops = {}
    for number, name in enumerate((student_shapes.UNCHANGED, student_shapes.RELU)):
        folder = tmp_path / str(number)
        (folder / "export").mkdir(parents=True)
        shaped = student_shapes.shaped(name, student, data, folder)
        path = student_shapes.in_int8(shaped, TEXTS, folder)
        ops[name] = student_shapes.ops_that_run(path)
    ops["parted"] = student_shapes.ops_that_run(
        student_shapes.with_float_between(path, tmp_path / "parted.onnx")
    )
    layers = len(layers_of(student))
    gelu, relu, parted = ops.values()
    assert (gelu["Gelu"], relu["Gelu"], relu["Relu"], parted["Relu"]) == (layers, 0, 0, 0)
    assert relu["QuantizeLinear"] == gelu["QuantizeLinear"] - layers == parted["QuantizeLinear"] - layers
    assert relu["QGemm"] == gelu["QGemm"] == parted["QGemm"]


def test_the_table_says_how_much_faster_and_what_training_has_to_win_back():
    speed = [{"shape": "1x16", "p50_ms": 1.0, "speedup": 1.0, "interval": [1.0, 1.0]}]
    faster = [{"shape": "1x16", "p50_ms": 0.9, "speedup": 1.11, "interval": [1.09, 1.12]}]
    row = {"layers": 3, "parameters": 17_000_000, "file_bytes": 17_400_000}
    ops = {"Gelu": 3, "Relu": 0, "Mul": 13, "QuantizeLinear": 12}
    results = {
        "command": "python -m benchmarks.student_shapes",
        "machine": {"cpu": "a CPU"},
        "versions": {"onnxruntime": "1.31.1"},
        "target": "cpu-x86",
        "teacher": "MiniLM",
        "rows": [
            {
                **row,
                "student": "as the teacher's",
                "cosine_untrained": 1.0,
                "ops_that_run": ops,
                "speed": speed,
            },
            {
                **row,
                "student": "ReLU",
                "cosine_untrained": 0.5,
                "ops_that_run": {"Gelu": 0, "Relu": 0, "Mul": 10, "QuantizeLinear": 9},
                "speed": faster,
            },
        ],
    }
    page = shapes_section(json.loads(json.dumps(results)))
    assert "| 3 | as the teacher's | 1 | 17,000,000 | 17.4 MB | 1.000 |" in page
    assert "| 3 | ReLU | 1.11x (1.09–1.12) | 17,000,000 | 17.4 MB | 0.500 |" in page
    assert "9 `QuantizeLinear`" in " ".join(page.split())
    assert "ARM" not in page
    total = {"as the teacher's": 52.4e6, "ReLU": 44.6e6, "ReLU between float values": 47.0e6}
    results["arm"] = {
        "command": "python -m benchmarks.student_shapes --instructions",
        "core": "arm64-cortex-a76",
        "target": "arm64",
        "layers": 3,
        "shape": "1x64",
        "instructions": {name: {"total": count} for name, count in total.items()},
    }
    assert "takes 52.4 million instructions" in " ".join(shapes_section(results).split())
