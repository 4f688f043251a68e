"""Candidates × policy -> Decision: which form goes into the package, and the figures that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.profile import Ship
from edgekit.record import Fact
from edgekit.validate.candidates import FORMS, Candidate, Timings

PREFERENCE = ("mixed", "static", "dynamic", "float-rewritten")
"""Forms that can ship, the one that wins a tie first; `mixed` is there only where its gates need it."""

MARGIN = 0.01
"""A form has to be this much faster or smaller than the preferred one, or it is a tie: less is nothing that
an app shows, and intervals of identical graphs miss 1 by some thousandths on a busy machine."""


@dataclass(frozen=True)
class Decision:
    """What ships and why.

    Attributes:
        shipped: A key of `FORMS`.
        why: One sentence with the figures.
        forms: The figures of every form.
    """

    shipped: str
    why: str
    forms: tuple[dict[str, Fact], ...]


def named_form(ship: Ship, forms: Sequence[str]) -> str:
    """Return the form that a request means: static int8 is `mixed` where the gates need layers in float."""
    wanted = {"float": "float-rewritten", "dynamic": "dynamic"}.get(ship, "static")
    return "mixed" if wanted == "static" and "mixed" in forms else wanted


def choose_form(
    candidates: Sequence[Candidate], timings: Timings, wants: str, *, untimed: str | None = None
) -> Decision:
    """Return the fastest form, or the smallest, of those whose checks all hold.

    Static int8 is replaced only by a form that is better by more than `MARGIN`: for speed, the near end of
    the interval of the ratio between the two has to be, over all shapes.

    Args:
        candidates: Every form that was made, measured.
        timings: Their times.
        wants: `speed` or `size`.
        untimed: Why nothing was timed, where that is so.
    """
    named = {candidate.name: candidate for candidate in candidates}
    able = [name for name in PREFERENCE if name in named]
    holding = [name for name in able if named[name].passed]
    preferred = (holding or able)[0]
    rivals = [name for name in holding if name != preferred]
    parts = [_misses(named[able[0]])] if preferred != able[0] else []
    if not holding:
        shipped, told = preferred, f"no form holds its gates; {FORMS[preferred]} is the one that was tried"
    elif wants == "size":
        shipped, told = _smallest(named, preferred, rivals)
    elif not timings.ms:
        shipped = preferred
        told = f"which form is fastest cannot be decided here ({untimed}); {FORMS[preferred]} ships"
    else:
        shipped, told = _fastest(timings, preferred, rivals)
    figures = tuple(_figures(candidate, timings) for candidate in candidates)
    return Decision(shipped, "; ".join([*parts, told]), figures)


def _fastest(timings: Timings, preferred: str, rivals: Sequence[str]) -> tuple[str, str]:
    ratios = {rival: ratio for rival in rivals if (ratio := timings.overall(rival, preferred))}
    faster = [rival for rival, (_, low, _) in ratios.items() if low > 1 + MARGIN]
    if not faster:
        near = max(ratios, key=lambda rival: ratios[rival][0], default=None)
        told = f"{FORMS[preferred]} ships, at {_speed(timings, preferred)} the speed of the float model"
        if near is None:
            return preferred, told
        nearest = f"the nearest, {FORMS[near]}, runs at {_times(ratios[near])} of its speed"
        return preferred, f"{told}: none is surely faster; {nearest}"
    best = max(faster, key=lambda rival: ratios[rival][0])
    if best == "float-rewritten":
        tried = [preferred, *(rival for rival in rivals if rival != best)]
        figures = ", ".join(f"{FORMS[name]} {_speed(timings, name)}" for name in tried)
        own = _speed(timings, best)
        return best, f"int8 does not pay here: {figures} against {FORMS[best]} {own}, which ships"
    return best, (
        f"{FORMS[best]} ships: it runs at {_times(ratios[best])} the speed of {FORMS[preferred]},"
        f" {_speed(timings, best)} that of the float model"
    )


def _smallest(named: dict[str, Candidate], preferred: str, rivals: Sequence[str]) -> tuple[str, str]:
    limit = named[preferred].file_bytes * (1 - MARGIN)
    sizes = {name: f"{named[name].file_bytes / 1e6:.2f} MB" for name in (preferred, *rivals)}
    smaller = [rival for rival in rivals if named[rival].file_bytes < limit]
    if not smaller:
        others = ", ".join(f"{FORMS[rival]} has {sizes[rival]}" for rival in rivals)
        return preferred, f"{FORMS[preferred]} ships with {sizes[preferred]}: none is smaller ({others})"
    best = min(smaller, key=lambda rival: named[rival].file_bytes)
    return best, f"{FORMS[best]} ships with {sizes[best]}, {FORMS[preferred]} has {sizes[preferred]}"


def _misses(candidate: Candidate) -> str:
    names = ", ".join(check.name for check in candidate.checks if not check.passed)
    return f"{FORMS[candidate.name]} misses its gates ({names})"


def _figures(candidate: Candidate, timings: Timings) -> dict[str, Fact]:
    ratio = timings.overall(candidate.name, "float")
    return {
        "form": candidate.name,
        "file_bytes": candidate.file_bytes,
        "missed": [check.name for check in candidate.checks if not check.passed],
        "speedup": [round(value, 3) for value in ratio] if ratio else None,
    }


def _speed(timings: Timings, form: str) -> str:
    ratio = timings.overall(form, "float")
    assert ratio is not None
    return _times(ratio)


def _times(ratio: tuple[float, float, float]) -> str:
    value, low, high = ratio
    return f"{value:.2f}× ({low:.2f}–{high:.2f})"
