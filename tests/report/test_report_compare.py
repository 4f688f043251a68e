"""Who dominates whom, and the page and table that say it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgekit.errors import InputError
from edgekit.record import Check
from edgekit.report.compare import ComparedPackage, Comparison, quality_axis, with_dominance
from edgekit.report.compare_page import headline, render_comparison
from edgekit.report.terminal import comparison_table
from edgekit.validate.candidates import Speed


def row(label="a", size=20e6, quality=0.99, speed=2.0, spread=0.02, target="cpu-x86", **more):
    speeds = (Speed("1x128", 8 / speed, speed, speed * (1 - spread), speed * (1 + spread)),) if speed else ()
    overall = (speed, speed * (1 - spread), speed * (1 + spread)) if speed else None
    checks = () if quality is None else (Check("cosine_mean", "Cosine similarity, mean", quality),)
    known = {
        "label": label,
        "path": f"build/{label}",
        "model": "net",
        "target": target,
        "techniques": (),
        "form": "static int8",
        "steps": ("Loaded.",),
        "parameters": 1000,
        "file_bytes": int(size),
        "compressed_bytes": int(size * 0.9),
        "quality": checks,
        "speeds": speeds,
        "overall": overall,
        "peak_memory_bytes": 40_000_000,
    }
    return ComparedPackage(**{**known, **more})


def comparison(*rows, speeds_compare=True, **more):
    axis = quality_axis(rows)
    ranked = with_dominance(rows, axis, speeds_compare=speeds_compare)
    basis = "Speed-ups are relative to a."
    return Comparison("sentence-embedding", ranked, axis, True, basis, speeds_compare, **more)


def dominated(*rows, **more):
    return {r.label: r.dominated_by for r in comparison(*rows, **more).rows}


class TestDominance:
    def test_better_in_one_and_worse_in_none(self):
        assert dominated(row("a"), row("b", size=25e6)) == {"a": (), "b": ("a",)}
        assert dominated(row("a"), row("b", quality=0.95)) == {"a": (), "b": ("a",)}
        assert dominated(row("a"), row("b", speed=1.5)) == {"a": (), "b": ("a",)}

    def test_each_better_at_something_is_no_dominance(self):
        assert dominated(row("a"), row("b", size=10e6, quality=0.9)) == {"a": (), "b": ()}

    def test_what_is_shown_alike_is_equal(self):
        assert dominated(row("a"), row("b", size=20.01e6, quality=0.99001)) == {"a": (), "b": ()}

    def test_speeds_whose_intervals_overlap_are_equal(self):
        assert dominated(row("a"), row("b", speed=2.05)) == {"a": (), "b": ()}
        assert dominated(row("a"), row("b", speed=2.05, size=25e6))["b"] == ("a",)

    def test_a_measure_where_less_is_better_is_turned_round(self):
        drop = tuple(Check("sqnr_db", "Error", value, comparison="<=") for value in (1.0, 2.0))
        rows = [row("a", quality=None), row("b", quality=None)]
        rows = [replace(r, quality=(check,)) for r, check in zip(rows, drop, strict=True)]
        assert dominated(*rows) == {"a": (), "b": ("a",)}

    def test_what_cannot_take_its_place_does_not_dominate(self):
        assert dominated(row("a"), row("b", size=25e6, speed=0, target="arm64")) == {"a": (), "b": ()}
        assert dominated(row("a"), row("b", size=25e6, reference=1)) == {"a": (), "b": ()}
        assert dominated(row("a"), row("b", size=25e6, quality=None)) == {"a": (), "b": ()}

    def test_packages_of_one_target_without_speeds_are_held_against_each_other(self):
        rows = row("a", speed=0, target="arm64"), row("b", size=25e6, speed=0, target="arm64")
        assert dominated(*rows) == {"a": (), "b": ("a",)}

    def test_speeds_that_do_not_compare_do_not_count(self):
        rows = row("a", size=25e6, speed=9.0), row("b")
        assert dominated(*rows) == {"a": (), "b": ()}
        assert dominated(*rows, speeds_compare=False) == {"a": ("b",), "b": ()}

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([10e6, 20e6, 30e6]),
                st.sampled_from([0.9, 0.95, 0.99]),
                st.sampled_from([0, 1.0, 2.0, 2.03, 2.06]),
            ),
            min_size=1,
            max_size=8,
        )
    )
    def test_someone_is_always_left_and_nobody_goes_round_in_circles(self, figures):
        rows = [row(str(n), *values) for n, values in enumerate(figures)]
        found = dominated(*rows)
        assert any(not beaten for beaten in found.values())
        left = dict(found)
        while left:  # take away who is beaten by nobody that is left: a circle would stay for ever
            free = [label for label, beaten in left.items() if not set(beaten) & left.keys()]
            assert free
            left = {label: beaten for label, beaten in left.items() if label not in free}


class TestAxis:
    def test_it_is_the_measure_that_most_have(self):
        assert quality_axis([row("a"), row("b", quality=None)]) == "cosine_mean"
        assert quality_axis([row("a", quality=None)]) is None

    def test_accuracy_comes_before_agreement(self):
        checks = Check("top1_agreement", "", 1.0), Check("accuracy_quantized", "", 0.9)
        assert quality_axis([replace(row("a"), quality=checks)]) == "accuracy_quantized"

    def test_a_value_that_is_not_finite_is_none(self):
        assert quality_axis([row("a", quality=float("nan"))]) is None


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [(tag, name, value) for name, value in attributes if name in ("src", "href")]
        self.found += [(tag, "", "")] if tag in ("script", "iframe", "link") else []


class TestPage:
    def test_it_says_what_every_package_is(self):
        rows = row("a", seconds={"load": 1.0, "compress": 61.0}), row("b", size=25e6, techniques=("layers",))
        page = render_comparison(comparison(*rows, notes=("Mind the gap.",)))
        for words in ("20.0 MB", "0.9900", "2.00× (1.96–2.04)", "1 min 2 s", "layers, static int8", "Mind"):
            assert words in page
        assert page.count("not recorded") == 2  # the cost of b, in the table and below
        assert "1 of 2 packages are worth having; b is dominated by another one." in page

    def test_it_loads_nothing_and_runs_nothing(self):
        links = _Links()
        links.feed(render_comparison(comparison(row("a"), row("b", size=10e6))))
        assert links.found == []

    def test_names_cannot_break_it(self):
        bad = "<script>alert(1)</script>"
        page = render_comparison(comparison(row(bad), row("b", speed=0, speed_note=bad, target=bad)))
        assert "<script" not in page

    def test_points_are_drawn_for_size_and_for_speed(self):
        page = render_comparison(comparison(row("a"), row("b", size=10e6)))
        assert len(re.findall("<svg", page)) == 2
        assert len(re.findall("<circle", page)) == 4

    def test_speeds_that_do_not_compare_are_not_drawn(self):
        page = render_comparison(comparison(row("a"), row("b"), speeds_compare=False))
        assert len(re.findall("<svg", page)) == 1

    def test_without_quality_there_is_a_table_alone(self):
        page = render_comparison(comparison(row("a", quality=None)))
        assert "<svg" not in page
        assert "not recorded" in page

    def test_no_package_is_an_error(self):
        with pytest.raises(InputError, match="no package"):
            render_comparison(comparison())


class TestHeadline:
    def test_it_counts(self):
        assert "nothing to compare it with" in headline(comparison(row("a")))
        assert "better than the other at something" in headline(comparison(row("a"), row("b", 10e6, 0.9)))
        six = [row(str(n), size=(20 + n) * 1e6) for n in range(7)]
        assert "1 of 7 packages" in headline(comparison(*six))
        assert "1, 2, 3, 4 and 2 more are dominated" in headline(comparison(*six))


class TestTable:
    def test_it_fits_100_columns_and_says_who_is_dominated(self):
        rows = row("a"), row("[bold]b", size=25e6), row("c", speed=0, speed_note="not measured here: no")
        console = Console(width=100, record=True, file=None, force_terminal=False)
        with console.capture() as captured:
            console.print(comparison_table(comparison(*rows)))
        text = captured.get()
        assert max(map(len, text.splitlines())) <= 100
        for words in ("[bold]b", "20.0 MB", "18.0 MB zipped", "2.00×", "not measured", "Dominated"):
            assert words in text
