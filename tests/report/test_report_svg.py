"""Charts: well-formed whatever the labels, true to their figures, readable without colour."""

import itertools
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.report.svg import WIDTH, Bar, Interval, Mark, bars, histogram, intervals

NS = "{http://www.w3.org/2000/svg}"
NAMES = st.text(max_size=12)
RATIOS = st.floats(min_value=1e-3, max_value=1e3)


def test_every_chart_has_a_role_a_title_and_a_description():
    for chart in (
        bars("t", "d", [Bar("a", 1, "1")]),
        intervals("t", "d", [Interval("a", 1, 1, 1, "cannot tell")]),
        histogram("t", "d", [1.0]),
    ):
        root = ET.fromstring(chart)
        assert root.get("role") == "img"
        assert [child.tag for child in root[:2]] == [f"{NS}title", f"{NS}desc"]
        assert (root[0].text, root[1].text) == ("t", "d")


@given(name=NAMES, value=st.floats(0, 1e12))
def test_no_label_can_break_a_bar_chart(name, value):
    root = ET.fromstring(bars(name, name, [Bar(name, value, name), Bar("<b>&", 1, "'\"")]))
    assert "<b>&" in [text.text for text in root.iter(f"{NS}text")]


def test_bars_are_as_long_as_their_values():
    root = ET.fromstring(bars("", "", [Bar("float", 80, ""), Bar("int8", 20, "", emphasis=True)]))
    widths = [float(rect.get("width")) for rect in root.iter(f"{NS}rect")]
    assert widths[0] == pytest.approx(4 * widths[1], rel=0.01)


@given(st.lists(st.tuples(NAMES, RATIOS, RATIOS, RATIOS), max_size=5))
def test_every_interval_lies_inside_the_chart(rows):
    points = [Interval(name, b, a, c, "faster") for name, *v in rows for a, b, c in [sorted(v)]]
    root = ET.fromstring(intervals("", "", points))
    for circle in root.iter(f"{NS}circle"):
        assert 0 < float(circle.get("cx")) < WIDTH
    assert len(list(root.iter(f"{NS}circle"))) == len(points)


def test_faster_lies_right_of_the_line_at_one_and_slower_left():
    rows = [Interval("a", 2, 1.9, 2.1, "faster"), Interval("b", 0.5, 0.4, 0.6, "slower")]
    root = ET.fromstring(intervals("", "", rows))
    one = next(float(t.get("x")) for t in root.iter(f"{NS}text") if t.text == "1×")
    assert float(next(root.iter(f"{NS}circle")).get("cx")) > one
    corners = next(root.iter(f"{NS}polygon")).get("points").split()
    assert all(float(corner.split(",")[0]) < one for corner in corners)


def test_the_three_verdicts_differ_in_shape_not_only_in_colour():
    shapes = set()
    for verdict in ("faster", "slower", "cannot tell"):
        root = ET.fromstring(intervals("", "", [Interval("a", 1, 0.9, 1.1, verdict)]))
        marks = [(e.tag, e.get("stroke-width")) for e in root if e.tag in (f"{NS}circle", f"{NS}polygon")]
        shapes.add(tuple(marks))
    assert len(shapes) == 3


def test_ticks_of_the_ratio_axis_never_collide():
    for low, high in ((0.6, 0.64), (0.97, 1.03), (0.05, 40), (2, 2.1)):
        root = ET.fromstring(intervals("", "", [Interval("a", low, low, high, "cannot tell")]))
        ticks = sorted(
            float(t.get("x"))
            for t in root.iter(f"{NS}text")
            if t.get("text-anchor") == "middle" and (t.text or "").endswith("×")
        )
        assert len(ticks) >= 2
        assert all(b - a >= 37 for a, b in itertools.pairwise(ticks))


@given(st.lists(st.floats(allow_subnormal=False, width=32), max_size=40), st.floats(-1e6, 1e6))
def test_a_histogram_is_drawn_for_any_values(values, gate):
    root = ET.fromstring(histogram("", "", values, [Mark(gate, "gate", is_gate=True)]))
    for rect in root.iter(f"{NS}rect"):
        assert 0 <= float(rect.get("x")) <= WIDTH
        assert float(rect.get("width")) > 0


def test_values_that_are_not_finite_are_counted_not_hidden():
    texts = [t.text for t in ET.fromstring(histogram("", "", [0.5, 0.6, float("nan")])).iter(f"{NS}text")]
    assert "2 values, 1 more not finite" in texts


def test_values_on_the_bad_side_of_the_gate_take_the_warning_colour():
    def colours(good: str) -> list[bool]:
        chart = histogram("", "", [0.1, 0.9], [Mark(0.5, "gate", is_gate=True)], good=good)
        return ["--bad" in str(rect.get("fill")) for rect in ET.fromstring(chart).iter(f"{NS}rect")]

    assert colours(">=") == [True, False]
    assert colours("<=") == [False, True]


def test_a_gate_far_from_the_values_is_named_at_the_edge():
    texts = [
        t.text
        for t in ET.fromstring(histogram("", "", [0.998, 0.999], [Mark(0.5, "gate 0.5")])).iter(f"{NS}text")
    ]
    assert "◂ gate 0.5, off this axis" in texts
