"""The roofline: known work, and products that compute what they say."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.roofline import encoder_work, product_input, rate, write_product
from edgekit.runtime import open_session

SHAPE = (4, 8, 6)


def test_the_work_of_minilm_is_its_matmul_weights_for_every_token() -> None:
    work = encoder_work(1, 1)
    assert work.weights == 10_616_832  # 10.6 M parameters in products
    assert encoder_work(8, 64).weights == 512 * work.weights
    assert encoder_work(1, 128).attention == 6 * 2 * 128 * 128 * 384


def test_the_bound_adds_the_time_of_both_kinds_of_product() -> None:
    work = encoder_work(1, 128)
    assert work.bound_ms(1e9, 1e12) == pytest.approx(work.weights / 1e6 + work.attention / 1e9)
    assert rate((10, 100, 1000), 1.0) == 1e9


@pytest.mark.parametrize("integer", [True, False], ids=["int8", "float"])
def test_a_product_gives_what_numpy_gives(tmp_path, integer) -> None:
    import onnx
    from onnx import numpy_helper

    path = tmp_path / "product.onnx"
    write_product(path, SHAPE, integer=integer)
    weight = numpy_helper.to_array(onnx.load(str(path)).graph.initializer[0])
    x = product_input(SHAPE, integer=integer)
    (found,) = open_session(path).run(None, {"x": x})
    wanted = x.astype(np.float64) @ weight.astype(np.float64)
    assert found.dtype == (np.int32 if integer else np.float32)
    assert np.allclose(found, wanted, rtol=1e-5, atol=1e-5)
