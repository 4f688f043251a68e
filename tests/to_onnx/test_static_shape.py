"""One shape of inputs: texts are padded to it, and what cannot be fixed is refused."""

from dataclasses import replace

import numpy as np
import pytest

from edgekit.data import Sample
from edgekit.errors import ExportError
from edgekit.model import ModelRef
from edgekit.profile import StaticShape
from edgekit.source import load
from edgekit.tasks.batches import SingleBatches, golden_batches
from edgekit.to_onnx import export_model
from edgekit.to_onnx.static_shape import with_static_shape

TEXTS = [Sample("the cat sat on the road"), Sample("a bed")]


def test_texts_are_padded_and_the_graph_takes_that_shape_alone(tiny_st_dir, tmp_path) -> None:
    model = load(ModelRef(str(tiny_st_dir)), None, scratch=tmp_path)
    static = with_static_shape(model, StaticShape(sequence=24), TEXTS[0])
    batches = golden_batches(static.preprocessor, TEXTS * 5, batch=1)
    assert len(batches) == 10
    assert {value.shape for inputs, _ in batches for value in inputs.values()} == {(1, 24)}
    masks = {int(inputs["attention_mask"].sum()) for inputs, _ in batches}
    assert max(masks) < 24, "padding is masked"
    made = export_model(static, tmp_path / "made", opset=21, ir_version=10)
    signature = made.only.signature
    assert {spec.shape for spec in signature.inputs} == {(1, 24)}
    assert all(isinstance(size, int) for spec in signature.outputs for size in spec.shape)
    told = static.preprocessor.to_json()
    assert told["padding"]["to"] == 24
    assert told["truncation"]["max_length"] == 24
    assert told["inputs"]["input_ids"]["shape"] == [1, 24]


def test_calibration_also_sees_a_text_of_the_full_length(tiny_st_dir, tmp_path) -> None:
    model = load(ModelRef(str(tiny_st_dir)), None, scratch=tmp_path)
    static = with_static_shape(model, StaticShape(sequence=24), TEXTS[0]).preprocessor
    batches = SingleBatches(static, TEXTS, longest=True)
    counts = [int(batch["attention_mask"].sum()) for batch in batches]
    assert len(batches) == len(counts) == 3
    assert max(counts[:2]) < counts[2] == 24
    assert len(list(SingleBatches(model.preprocessor, TEXTS, longest=True))) == 2, "no static shape"


def test_longer_texts_are_cut_and_a_short_model_gets_what_it_takes(tiny_st_dir, tmp_path) -> None:
    model = load(ModelRef(str(tiny_st_dir)), None, scratch=tmp_path)
    long = Sample("the cat sat on the road " * 40)
    cut = with_static_shape(model, StaticShape(sequence=16), long).preprocessor.batch([long])
    assert cut["attention_mask"].sum() == 16
    whole = with_static_shape(model, StaticShape(sequence=4096), long)
    assert whole.example_inputs["input_ids"].shape == (1, 48), "the model's longest"
    assert whole.history[-1].facts["axes"] == {"batch": 1, "sequence": 48}


def test_an_axis_that_has_no_size_is_refused(tiny_vit_dir, tmp_path) -> None:
    model = load(ModelRef(str(tiny_vit_dir)), None, scratch=tmp_path)
    wide = replace(model, dynamic_axes={"pixel_values": {0: "batch", 3: "width"}})
    sample = Sample(np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(ExportError, match=r"axis 3 \('width'\) of input 'pixel_values' varies"):
        with_static_shape(wide, StaticShape(), sample)
