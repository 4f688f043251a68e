"""Every architecture that is promised comes out right, and says of each product what became of it.

Weights are random, so that no accuracy is claimed: a signal 10 dB above the noise only shows that no layer is
broken (each here has above 20, and a wrong scale, zero point or bias leaves a few dB at most).
"""

from __future__ import annotations

import pytest

from benchmarks.architectures import TARGETS, outcome, prepare
from benchmarks.zoo import ARCHITECTURES
from edgekit import graph as g

QUICK = ("ELECTRA",)
"""One each of post-norm with a bias, pre-norm without, and convolutional."""

FEWEST_DB = 10
FASTER_IN_FLOAT = ("the float kernel is faster", "gains nothing there from int8")
UNEXPLAINED = (
    "the package does not say why",
    "the runtime left it",
    "only rounds",
    "made float on every run",
)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(architecture, id=architecture.name, marks=() if quick else pytest.mark.slow)
        for architecture in ARCHITECTURES
        for quick in [architecture.name in QUICK]
    ],
)
def made(request, tmp_path_factory):
    """Return the architecture, its float graph, its folder, and target -> outcome."""
    folder = tmp_path_factory.mktemp("architecture")
    start = prepare(request.param, folder)
    return request.param, start, folder, {target: outcome(start, target, folder) for target in TARGETS}


def test_the_float_graph_matches_pytorch_as_exported_and_as_rewritten(made) -> None:
    _, start, *_ = made
    checked = [record for record in start.model.history if record.step == "float-parity"]
    assert len(checked) == 2
    assert all(record.facts["checks"] >= 6 for record in checked)


def test_every_product_with_a_constant_weight_is_int8_or_the_records_say_why(made) -> None:
    *_, outcomes = made
    for target, found in outcomes.items():
        assert found.products, target
        assert not [p.name for p in found.products if not p.int8 and not p.why], target
        rest = [product for product in found.products if not product.why.endswith(FASTER_IN_FLOAT)]
        int8 = sum(product.multiply_adds for product in rest if product.int8)
        assert int8 > 0.99 * sum(product.multiply_adds for product in rest), target


def test_it_runs_at_several_batch_sizes_and_lengths(made) -> None:
    architecture, *_, outcomes = made
    for found in outcomes.values():
        assert len({shape[0] for shape in found.shapes}) >= 2
        if architecture.takes == "text":
            assert len({shape[1] for shape in found.shapes}) >= 3


def test_the_outputs_stay_well_above_the_noise(made) -> None:
    *_, outcomes = made
    assert {target: found.sqnr_db for target, found in outcomes.items() if found.sqnr_db < FEWEST_DB} == {}


def test_onnx_runtime_makes_an_int8_kernel_of_every_quantized_product(made) -> None:
    """Nothing is rounded for nothing, and no weight is made float again on each run."""
    *_, outcomes = made
    for target, found in outcomes.items():
        assert not found.left_over, target
        assert not [why for _, why in found.left_float if any(u in why for u in UNEXPLAINED)], target


def test_the_activations_have_the_target_s_type(made) -> None:
    _, _, folder, _ = made
    for target, dtype in (("cpu-x86", "uint8"), ("arm64", "int8")):
        graph = g.load(folder / f"{target}.onnx").graph
        zeros = [g.constant(node.inputs[2]) for node in g.nodes(graph, "QuantizeLinear")]
        assert {str(zero.dtype) for zero in zeros if zero is not None} == {dtype}
