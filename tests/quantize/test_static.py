"""Static int8 of matrix products, by the rules of a profile."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from edgekit import graph as g
from edgekit.errors import ModelError
from edgekit.profile import load_profile
from edgekit.quantize import calibrate, quantize
from edgekit.quantize.schemes import pair_sums
from edgekit.recipe import QuantizeOptions
from edgekit.runtime import open_session


@pytest.fixture
def calibration(block, batches):
    return calibrate(block, batches)


def run(model, batches):
    session = open_session(model.only.path)
    return [session.run(None, batch)[0] for batch in batches]


def relative_error(float_model, quantized, batches):
    pairs = zip(run(float_model, batches), run(quantized, batches), strict=True)
    return np.mean([np.mean((a - b) ** 2) / np.mean(a**2) for a, b in pairs])


def weights_of(model, *names):
    initializers = g.load(model.only.path).graph.initializers
    return [initializers[f"{name}_quantized"].const_value.numpy() for name in names]


@pytest.mark.parametrize(
    ("target", "activation"), [("cpu-x86", np.uint8), ("cpu-x86-avx2", np.uint8), ("arm64", np.int8)]
)
def test_types_are_those_of_the_target(block, batches, calibration, tmp_path, target, activation):
    quantized = quantize(block, calibration, load_profile(target), QuantizeOptions(), tmp_path / "q.onnx")
    model = g.load(quantized.only.path)
    points = [n.inputs[2].const_value.numpy() for n in g.nodes(model.graph, "QuantizeLinear")]
    assert len(points) == 2  # one for query, key and value together, one for the output product
    assert {p.dtype for p in points} == {np.dtype(activation)}
    assert {p.shape for p in points} == {()}
    codes = weights_of(quantized, "wq", "wk", "wv", "wo")
    assert {c.dtype for c in codes} == {np.dtype(np.int8)}
    assert relative_error(block, quantized, batches) < 2e-3


def test_weights_have_a_scale_per_output_channel(block, calibration, tmp_path):
    quantized = quantize(block, calibration, load_profile("arm64"), QuantizeOptions(), tmp_path / "q.onnx")
    initializers = g.load(quantized.only.path).graph.initializers
    assert initializers["wq_scale"].const_value.numpy().shape == (16,)
    assert not initializers["wq_zero_point"].const_value.numpy().any()


def test_a_saturating_target_gets_weights_that_cannot_saturate(block, calibration, tmp_path):
    quantized = quantize(
        block, calibration, load_profile("cpu-x86-avx2"), QuantizeOptions(), tmp_path / "q.onnx"
    )
    assert all(pair_sums(codes).max() <= 128 for codes in weights_of(quantized, "wq", "wk", "wv", "wo"))


def test_what_is_not_a_constant_weight_product_stays_float_and_is_recorded(block, calibration, tmp_path):
    quantized = quantize(block, calibration, load_profile("cpu-x86"), QuantizeOptions(), tmp_path / "q.onnx")
    skipped = [skip for record in quantized.history for skip in record.skipped]
    products = [s for s in skipped if s.what in ("MatMul MatMul_9", "MatMul MatMul_11")]
    assert len(products) == 2
    assert all("constant" in s.why for s in products)
    counts = Counter(n.op_type for n in g.nodes(g.load(quantized.only.path).graph))
    assert counts["Softmax"] == counts["LayerNormalization"] == 1


def test_products_run_in_int8_kernels(block, calibration, tmp_path):
    quantized = quantize(block, calibration, load_profile("cpu-x86"), QuantizeOptions(), tmp_path / "q.onnx")
    open_session(quantized.only.path, optimized_path=tmp_path / "run.onnx")
    counts = Counter(n.op_type for n in g.load(tmp_path / "run.onnx").graph)
    assert counts["MatMulIntegerToFloat"] == 4
    assert counts["DequantizeLinear"] == 0


def test_embeddings_are_stored_in_one_byte_and_read_back_within_half_a_step(
    block, batches, calibration, tmp_path
):
    quantized = quantize(block, calibration, load_profile("cpu-x86"), QuantizeOptions(), tmp_path / "q.onnx")
    initializers = g.load(quantized.only.path).graph.initializers
    assert "table" not in initializers
    codes = initializers["table_quantized"].const_value.numpy()
    scales = initializers["table_scale_half"].const_value.numpy().astype(np.float32)
    table = g.load(block.only.path).graph.initializers["table"].const_value.numpy()
    assert codes.dtype == np.int8
    assert (np.abs(codes * scales - table) <= scales * 0.5001).all()


def test_smoothing_is_folded_into_the_norm_that_only_these_products_read(block, calibration, tmp_path):
    quantized = quantize(block, calibration, load_profile("cpu-x86"), QuantizeOptions(), tmp_path / "q.onnx")
    layers = [layer for record in quantized.history for layer in record.facts.get("layers", [])]
    by_name = {layer["activation"]: layer for layer in layers}
    assert by_name["n"]["smoothing"] == "folded into the LayerNormalization"
    assert by_name["n"]["output_error"] < 0.5 * by_name["n"]["output_error_plain"]


def test_bias_correction_brings_the_mean_output_closer(block, batches, calibration, tmp_path):
    shifts = {}
    for corrected in (True, False):
        options = QuantizeOptions(bias_correction=corrected, smoothing=False, range_method="minmax")
        path = tmp_path / f"{corrected}.onnx"
        quantized = quantize(block, calibration, load_profile("cpu-x86-avx2"), options, path)
        means = [
            np.concatenate([out.reshape(-1, 16) for out in run(model, batches)]).mean(0)
            for model in (block, quantized)
        ]
        shifts[corrected] = np.abs(means[0] - means[1]).mean()
    assert shifts[True] < shifts[False]


def test_excluded_nodes_stay_float(block, calibration, tmp_path):
    options = QuantizeOptions(exclude=("MatMul_12",))
    quantized = quantize(block, calibration, load_profile("cpu-x86"), options, tmp_path / "q.onnx")
    assert "wo" in g.load(quantized.only.path).graph.initializers
    assert any(s.why == "excluded by the request" for r in quantized.history for s in r.skipped)


def test_the_same_input_makes_the_same_bytes(block, calibration, tmp_path):
    made = [
        quantize(block, calibration, load_profile("cpu-x86"), QuantizeOptions(), tmp_path / f"{i}.onnx")
        for i in range(2)
    ]
    assert made[0].only.path.read_bytes() == made[1].only.path.read_bytes()


def test_the_float_file_is_not_touched(block, calibration, tmp_path):
    before = block.only.path.read_bytes()
    quantize(block, calibration, load_profile("cpu-x86"), QuantizeOptions(), tmp_path / "q.onnx")
    assert block.only.path.read_bytes() == before


def test_a_constant_activation_is_left_in_float_and_recorded(block, batches, tmp_path):
    same = [{"ids": np.zeros((1, 5), np.int64)}] * 4
    calibration = calibrate(block, same)
    stats = calibration.tensors["n"]
    frozen = replace(stats, low=stats.high)
    calibration = replace(calibration, tensors={**calibration.tensors, "n": frozen})
    quantized = quantize(block, calibration, load_profile("cpu-x86"), QuantizeOptions(), tmp_path / "q.onnx")
    whys = {s.what: s.why for r in quantized.history for s in r.skipped}
    assert "constant on the calibration data" in whys["MatMul MatMul_2"]
    assert "wq" in g.load(quantized.only.path).graph.initializers


def test_a_quantized_graph_is_refused_and_nothing_is_written(block, calibration, tmp_path):
    made = quantize(block, calibration, load_profile("cpu-x86"), QuantizeOptions(), tmp_path / "q.onnx")
    with pytest.raises(ModelError, match=r"q\.onnx is quantized already: it has the QuantizeLinear node"):
        quantize(made, calibration, load_profile("cpu-x86"), QuantizeOptions(), tmp_path / "again.onnx")
    assert not (tmp_path / "again.onnx").exists()
