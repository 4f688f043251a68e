"""Which form ships: the preferred one, unless another is surely better."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.record import Check
from edgekit.validate.candidates import FORMS, Candidate, Timings
from edgekit.validate.shipping import PREFERENCE, choose_form, named_form

SIZES = {"float": 400, "float-rewritten": 400, "dynamic": 101, "static": 100, "mixed": 150}


def candidates(missed=(), sizes=SIZES):
    def check(name):
        return Check("cosine_mean", "Cosine", 0.5 if name in missed else 0.999, budget=0.99)

    return [Candidate(name, size, (check(name),), ()) for name, size in sizes.items()]


def timings(noise=0.0, **speedups):
    """Times of forms that are so many times as fast as the float graph."""
    rng = np.random.default_rng(0)
    shapes = {}
    for shape, ms in {"1x16": 2.0, "8x64": 30.0}.items():
        every = {
            "float": 1.0,
            "float-rewritten": 1.0,
            **{k.replace("_", "-"): v for k, v in speedups.items()},
        }
        shapes[shape] = {
            name: ms / times * (1 + rng.uniform(-noise, noise, 40)) for name, times in every.items()
        }
    return Timings(shapes)


@pytest.fixture
def three():
    """The usual forms, all of which hold their gates."""
    return candidates(sizes={name: SIZES[name] for name in ("float", "float-rewritten", "dynamic", "static")})


def test_the_fastest_form_ships_with_the_figures_that_say_so(three):
    decision = choose_form(three, timings(dynamic=2.4, static=2.0), "speed")
    assert decision.shipped == "dynamic"
    assert "1.20×" in decision.why
    assert "2.40×" in decision.why
    assert {form["form"]: form["speedup"] for form in decision.forms}["static"] == [2.0, 2.0, 2.0]


def test_int8_that_does_not_pay_leaves_float_in_the_package(three):
    decision = choose_form(three, timings(dynamic=0.8, static=0.93, noise=0.01), "speed")
    assert decision.shipped == "float-rewritten"
    assert "int8 does not pay here: static int8 0.93× (0.9" in decision.why


def test_a_tie_goes_to_static_int8(three):
    assert choose_form(three, timings(dynamic=2.005, static=2.0), "speed").shipped == "static"


def test_a_lead_that_noise_explains_is_a_tie(three):
    decision = choose_form(three, timings(dynamic=2.05, static=2.0, noise=0.4), "speed")
    assert decision.shipped == "static"
    assert "none is surely faster" in decision.why


def test_a_form_that_misses_its_gates_cannot_win_however_fast():
    forms = candidates(missed=("dynamic", "static"))
    decision = choose_form(forms, timings(dynamic=9, static=9, mixed=1.5), "speed")
    assert decision.shipped == "mixed"


def test_where_static_int8_misses_its_gates_another_form_takes_its_place():
    forms = candidates(missed=("static",), sizes={k: v for k, v in SIZES.items() if k != "mixed"})
    decision = choose_form(forms, timings(dynamic=2.0, static=3.0), "speed")
    assert decision.shipped == "dynamic"
    assert "static int8 misses its gates (cosine_mean)" in decision.why


def test_where_nothing_holds_its_gates_static_int8_is_what_fails():
    forms = candidates(missed=tuple(SIZES), sizes={k: v for k, v in SIZES.items() if k != "mixed"})
    decision = choose_form(forms, timings(dynamic=2.0, static=2.0), "speed")
    assert decision.shipped == "static"
    assert "no form holds its gates" in decision.why


def test_without_times_the_fastest_cannot_be_told_and_that_is_said(three):
    decision = choose_form(three, Timings(), "speed", untimed="the target is aarch64")
    assert decision.shipped == "static"
    assert "cannot be decided here (the target is aarch64)" in decision.why


def test_for_size_the_smallest_form_ships_and_needs_no_times():
    forms = candidates(sizes=SIZES | {"dynamic": 80})
    assert choose_form(forms, Timings(), "size", untimed="elsewhere").shipped == "dynamic"
    assert choose_form(candidates(missed=("mixed",)), Timings(), "size").shipped == "static"


@pytest.mark.parametrize(
    ("ship", "forms", "named"),
    [
        ("static", ("float", "static"), "static"),
        ("static", ("float", "static", "mixed"), "mixed"),
        ("dynamic", ("float", "dynamic"), "dynamic"),
        ("float", ("float", "float-rewritten"), "float-rewritten"),
    ],
)
def test_a_request_names_one_form(ship, forms, named):
    assert named_form(ship, forms) == named


@settings(deadline=None, max_examples=30)
@given(
    st.fixed_dictionaries({name: st.floats(0.2, 5) for name in PREFERENCE}),
    st.sets(st.sampled_from(PREFERENCE)),
    st.sampled_from(["speed", "size"]),
)
def test_what_ships_holds_its_gates_if_any_form_does(speedups, missed, wants):
    times = timings(**{name.replace("-", "_"): speedups[name] for name in PREFERENCE})
    decision = choose_form(candidates(missed), times, wants)
    assert decision.shipped in FORMS
    if missed < set(PREFERENCE):
        assert decision.shipped not in missed
