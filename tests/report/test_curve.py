"""The chart of a training: lines that are told apart, axes that hold what is drawn."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hypothesis import example, given
from hypothesis import strategies as st

from edgekit.report.curve import Line, curves, learning


def _history(points):
    return [
        {"stage": "compress", "step": "layers", "did": "Kept 4.", "facts": {}},
        {
            "stage": "distill",
            "step": "distillation",
            "did": "Trained.",
            "facts": {"curve": points, "best_step": points[-1]["step"]},
        },
    ]


def _point(step, loss, cosine):
    losses = {} if loss is None else {"cosine": loss}
    return {
        "step": step,
        "samples": 64 * step,
        "losses": losses,
        "quality": {"closeness": cosine - 1, "cosine_mean": cosine},
    }


def test_a_history_without_training_has_nothing_to_show():
    assert learning([{"stage": "compress", "step": "layers", "did": "", "facts": {}}]) is None


def test_a_training_shows_its_losses_and_its_quality_and_which_checkpoint_was_kept():
    found = learning(_history([_point(0, None, 0.8), _point(10, 0.2, 0.9), _point(20, 0.1, 0.95)]))
    assert found.did == "Trained."
    (_, losses), (_, quality) = found.charts
    assert "cosine: 0.1 at the end" in losses
    assert "cosine mean: 0.95 at the end" in quality
    assert "kept" in quality
    assert "closeness" not in quality


def test_a_finish_is_told_after_the_training_and_drawn_where_it_is_alone():
    training = _history([_point(0, None, 0.8), _point(10, 0.2, 0.9)])
    facts = {"curve": [_point(0, None, 0.7), _point(4, 0.3, 0.75)], "best_step": 4}
    finish = {"stage": "distill", "step": "finish", "did": "Finished.", "facts": facts}
    both, alone = learning([*training, finish]), learning([finish])
    assert both.did == "Trained. Finished."
    assert "cosine mean: 0.9 at the end" in both.charts[1][1]
    assert alone.did == "Finished."
    assert "cosine mean: 0.75 at the end" in alone.charts[1][1]


@given(
    st.lists(
        st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=5),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
@example([[5e-324]], True)  # its logarithm, a little lower, is that of 0
def test_whatever_the_values_are_the_chart_is_valid_and_inside_its_frame(rows, logs):
    lines = [Line(f"<{i}>", tuple((float(x), y) for x, y in enumerate(row))) for i, row in enumerate(rows)]
    drawn = curves("title", "what", lines, logs=logs)
    ElementTree.fromstring(drawn)
    for points in re.findall(r'points="([^"]*)"', drawn):
        for pair in points.split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= 420
            assert 13 <= y <= 165
