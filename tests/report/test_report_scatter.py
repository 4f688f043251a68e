"""The plane: where points lie, what is joined, and that every label is there."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.report.scatter import Axis, Point, scatter
from edgekit.report.svg import WIDTH

NS = "{http://www.w3.org/2000/svg}"
X = Axis("size", str, more_is_better=False)
RATIO = Axis("speed", str, ratios=True)
Y = Axis("quality", str)


def circles(chart):
    return [(float(c.get("cx")), float(c.get("cy"))) for c in ET.fromstring(chart).iter(f"{NS}circle")]


def steps(chart):
    lines = ET.fromstring(chart).iter(f"{NS}line")
    return [
        tuple(round(float(line.get(key))) for key in ("x1", "y1", "x2", "y2"))
        for line in lines
        if line.get("stroke-dasharray")
    ]


def test_more_is_further_right_and_higher_up():
    (ax, ay), (bx, by) = circles(scatter("t", "d", X, Y, [Point("a", 1, 1), Point("b", 2, 3)]))
    assert ax < bx
    assert ay > by


def test_equal_ratios_are_equally_far_apart():
    places = circles(scatter("t", "d", RATIO, Y, [Point(str(n), 2.0**n, n) for n in range(3)]))
    a, b, c = sorted(x for x, _ in places)
    assert b - a == pytest.approx(c - b, abs=0.05)


def test_the_staircase_goes_through_the_best_and_leaves_out_who_is_dominated():
    points = [Point("small", 1, 1), Point("big", 3, 3), Point("worse", 4, 2, dominated=True)]
    chart = scatter("t", "d", X, Y, points)
    at = dict(zip(("worse", "small", "big"), circles(chart), strict=True))
    (sx, sy), (bx, by) = (tuple(map(round, at[name])) for name in ("small", "big"))
    assert steps(chart) == [(sx, sy, bx, sy), (bx, sy, bx, by)]


def test_where_more_is_better_the_staircase_turns_the_other_way():
    chart = scatter("t", "d", RATIO, Y, [Point("slow", 1, 3), Point("fast", 4, 1)])
    (sx, sy), (fx, fy) = (tuple(map(round, place)) for place in circles(chart))
    assert steps(chart) == [(fx, fy, sx, fy), (sx, fy, sx, sy)]


@given(
    st.lists(
        st.tuples(st.text(max_size=40), st.floats(1e-3, 1e9), st.floats(-1e6, 1e6), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
def test_every_point_has_its_label_and_lies_inside(rows):
    points = [Point(*row) for row in rows]
    for across in (X, RATIO):
        chart = scatter("t", "d", across, Y, points)
        root = ET.fromstring(chart)
        places = circles(chart)
        assert len(places) == len(points)
        assert all(0 < x < WIDTH and 0 < y < float(root.get("viewBox").split()[3]) for x, y in places)
        haloed = [text for text in root.iter(f"{NS}text") if text.get("paint-order")]
        assert len(haloed) == len(points)
        assert all(len(text.text or "") <= 26 for text in haloed)


def test_labels_of_neighbours_do_not_cover_each_other():
    points = [Point(f"package-{n}", 1 + n / 100, 1 + n / 100) for n in range(4)] + [Point("far", 3, 3)]
    root = ET.fromstring(scatter("t", "d", X, Y, points))
    boxes = [
        (float(t.get("x")), float(t.get("y")) - 10, float(t.get("x")) + 6.1 * len(t.text), float(t.get("y")))
        for t in root.iter(f"{NS}text")
        if t.get("paint-order")
    ]
    for index, one in enumerate(boxes):
        for other in boxes[:index]:
            across = min(one[2], other[2]) - max(one[0], other[0])
            down = min(one[3], other[3]) - max(one[1], other[1])
            assert across <= 0 or down <= 0


def test_an_interval_is_a_line_through_its_point():
    chart = scatter("t", "d", RATIO, Y, [Point("a", 2, 1, low=1, high=4), Point("b", 8, 2)])
    ((_, y),) = [place for place in circles(chart) if place[1] > 150]
    wide = [ln for ln in ET.fromstring(chart).iter(f"{NS}line") if ln.get("stroke-width") == "2"]
    assert [float(ln.get("y1")) for ln in wide] == [y]


def test_without_a_finite_point_it_says_so():
    assert "no figures to show" in scatter("t", "d", X, Y, [Point("a", float("nan"), 1)])
    assert "no figures to show" in scatter("t", "d", RATIO, Y, [Point("a", 0, 1)])
