"""An estimate is bound by whichever is slowest, and looked-up tables are not read whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgekit.runners.arm.decode import CLASSES
from edgekit.runners.arm.estimate import PI_3, PI_4, PI_5, Board, estimate, weight_bytes

_COUNTS = st.fixed_dictionaries({kind: st.integers(0, 10**9) for kind in CLASSES})


@pytest.mark.parametrize(
    ("counts", "weights", "ms", "bound_by"),
    [
        ({"total": 24_000_000, "integer": 24_000_000}, 0, 2.5, "issue"),
        ({"total": 24_000_000, "simd": 24_000_000}, 0, 5.0, "vector"),
        ({"total": 24_000_000, "smlal": 24_000_000}, 0, 10.0, "multiply"),
        ({"total": 24_000_000, "load": 24_000_000}, 0, 5.0, "loads"),
        ({"total": 24_000_000, "load": 24_000_000}, 171_000_000, 10.0, "memory"),
    ],
)
def test_the_slowest_part_bounds_the_time(
    counts: dict[str, int], weights: int, ms: float, bound_by: str
) -> None:
    found = estimate(PI_5, counts, weights)
    assert found.ms == pytest.approx(ms)
    assert found.bound_by == bound_by


@given(_COUNTS, st.integers(0, 10**9), st.sampled_from([PI_3, PI_4, PI_5]), st.sampled_from(CLASSES))
def test_more_of_anything_never_takes_less_time(
    counts: dict[str, int], weights: int, board: Board, kind: str
) -> None:
    counts = {**counts, "total": sum(counts.values())}
    more = {**counts, kind: counts[kind] + 1000, "total": counts["total"] + 1000}
    assert estimate(board, more, weights).ms >= estimate(board, counts, weights).ms
    assert estimate(board, counts, weights + 1000).ms >= estimate(board, counts, weights).ms


def test_a_table_of_lookups_is_not_read_whole_but_one_that_is_also_multiplied_is(
    tmp_path: Path, save: Callable[..., Path]
) -> None:
    looked_up, both, weight = (np.zeros((100, 8), np.float32), np.zeros((8, 8), np.int8), np.zeros((8, 4)))
    arrays = {"looked_up": looked_up, "both": both, "weight": weight.astype(np.float32)}
    path = save(
        tmp_path / "m.onnx",
        [
            helper.make_node("Gather", ["looked_up", "ids"], ["x"]),
            helper.make_node("Gather", ["both", "ids"], ["row"]),
            helper.make_node("Cast", ["both"], ["both_float"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["x", "both_float"], ["y"]),
            helper.make_node("MatMul", ["y", "weight"], ["z"]),
        ],
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4])],
        weights=[numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    assert weight_bytes(path) == 8 * 8 + 8 * 4 * 4
