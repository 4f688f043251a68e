"""What the page and the terminal say about an explanation, from its JSON form."""

import copy
import json

import pytest

from edgekit.report.explained import percent, predicted, sentences, time_charts, view
from edgekit.report.html import render_html
from edgekit.validate.explanation.record import (
    ExplainedNode,
    ExplainedPoint,
    Explanation,
    Prediction,
    Roofline,
)

QGEMM, GELU, SMOOTH = "layer.0/MatMul", "layer.0/Gelu", "x_smooth"


def node(name, op, role, ms, **more):
    return ExplainedNode(name, op, role, "float", "4x8", ms=ms, **more)


def point(shape, scale, predictions=()):
    nodes = (
        node(SMOOTH, "Mul", "smoothing", 0.1 * scale, why="scales"),
        node("x_quantize", "QuantizeLinear", "quantize", 0.2 * scale, why="makes codes", needed=True),
        node("left", "DequantizeLinear", "dequantize", 0.1 * scale, why="left over: <b>", needed=False),
        node(QGEMM, "QGemm", "int8 product", 2.0 * scale, weight_macs=900_000, int8_macs=900_000),
        node("scores", "MatMul", "float product", 0.5 * scale, activation_macs=100_000, why="activations"),
        node(GELU, "Gelu", "float op", 1.1 * scale, why="no kernel"),
    )
    return ExplainedPoint(shape, nodes, 15, 4.2 * scale, 4.4 * scale, tuple(predictions))


@pytest.fixture
def document():
    predictions = [Prediction(QGEMM, "4x8 · 8x8", 2.3, 6.0), Prediction("other", "4x8 · 8x8", 2.3, 5.0)]
    saving = [Prediction(QGEMM, "1x8 · 8x8", 2.3, 1.0)]
    points = (point("1x16", 0.1, saving), point("1x128", 1, predictions), point("8x64", 4))
    roofline = Roofline((512, 1024), 1, 2.0, 0.5)
    return Explanation("cpu-x86", "1.31.1", 1, points, roofline, "medians").to_json(every_node=False)


def test_the_sentences_are_about_the_middle_point_and_sum_it_up(document):
    text = " ".join(sentences(document))
    assert "At 1x128, int8 kernels do 90 % of all multiply-adds and 100 % of those with constant" in text
    assert (
        "QuantizeLinear and DequantizeLinear take 0.30 ms, 7.5 % of the kernels' time; 1 of them is" in text
    )
    assert "Explicit smoothing (Mul before a QuantizeLinear) takes 0.10 ms" in text
    # 0.9 million at 2 GMAC/s and 0.1 million at 0.5: 0.65 ms, of kernels that take 4.
    assert "would take 0.65 ms; its kernels take 4.00 ms, 6.2 times as long" in text


def test_a_predicted_saving_is_told_with_its_shape(document):
    assert "1 of 1x8 · 8x8 at 1x16 (1.30 ms)" in " ".join(sentences(document))
    rows = {(row.point, row.shape): row for row in predicted(document)}
    both = rows["1x128", "4x8 · 8x8"]
    assert (len(both.nodes), both.int8_ms, both.float_ms, both.effect) == (2, 4.6, 11.0, "costs")
    assert rows["1x16", "1x8 · 8x8"].effect == "saves"


def test_a_difference_that_means_nothing_is_called_even(document):
    document["points"][0]["predicted"][0].update(float_ms=2.2)
    assert predicted(document)[0].effect == "about even"
    assert "would save no time" in " ".join(sentences(document))


def test_there_is_a_chart_per_point_with_the_slowest_kind_first(document):
    charts = time_charts(document)
    assert [caption for caption, _ in charts] == [
        "Share of 0.40 ms in kernels at 1x16",
        "Share of 4.00 ms in kernels at 1x128",
        "Share of 16.0 ms in kernels at 8x64",
    ]
    assert charts[0][1].index("QGemm") < charts[0][1].index("Gelu")


def test_the_page_shows_it_and_escapes_reasons(reports, document):
    told = {**reports[0].to_json(), "explanation": document}
    page = render_html([told])
    assert "Where the time goes" in page
    assert "left over: &lt;b&gt;" in page
    assert "left over: <b>" not in page


def test_a_saved_explanation_makes_the_same_page(reports, document):
    told = {**reports[0].to_json(), "explanation": document}
    assert render_html([json.loads(json.dumps(told))]) == render_html([copy.deepcopy(told)])


def test_without_an_explanation_the_page_says_nothing_of_it(reports):
    assert "Where the time goes" not in render_html([report.to_json() for report in reports])


def test_untimed_explanations_have_sentences_and_no_section(document):
    document.update(roofline=None, note="the target is aarch64")
    assert sentences(document)[-1] == "Times are left out, since the target is aarch64."
    assert view(document, str) is None


@pytest.mark.parametrize(
    ("share", "said"),
    [(1.0, "100 %"), (0.999, "99.9 %"), (0.5, "50 %"), (0.034, "3.4 %"), (0.0, "0 %"), (None, "–")],
)
def test_a_share_is_never_rounded_to_all(share, said):
    assert percent(share) == said
