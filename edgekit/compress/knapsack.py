"""Which width each part of a model gets, so that the least is lost under a budget for all of them: exactly.

One choice per part, each with a cost and a loss; the sum of costs may not exceed the budget. Dynamic
programming over the parts finds the best of all combinations.

Source: Kellerer, Pferschy, Pisinger 2004, Knapsack Problems, section 11.5 (multiple-choice knapsack).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import gcd, inf

import numpy as np

STEPS = 1 << 18
"""Steps that a budget is cut into at most. Costs are whole numbers; where their common divisor would cut the
budget into more, costs are rounded up to such a step, so that the budget is still kept."""


@dataclass(frozen=True)
class Choice:
    """One width that a part may have.

    Attributes:
        width: Units that stay.
        cost: What they cost, a whole number of the budget's unit.
        lost: Worth that goes with the others; 0 or more.
    """

    width: int
    cost: int
    lost: float


def allocate(parts: Sequence[Sequence[Choice]], budget: int, steps: int = STEPS) -> tuple[Choice, ...] | None:
    """Return one choice per part such that the least is lost within the budget, or None where none fits.

    Of combinations that lose the same, it is one of the cheapest.

    Args:
        parts: Choices of each part, at least one.
        budget: Most that all chosen ones may cost together.
        steps: Most steps that the budget is cut into.
    """
    if sum(min(choice.cost for choice in choices) for choices in parts) > budget:
        return None
    unit = max(gcd(*(choice.cost for choice in chain(*parts))), 1)
    unit = max(unit, -(-budget // steps))
    costs = [[-(-choice.cost // unit) for choice in choices] for choices in parts]
    most = min(budget // unit, sum(map(max, costs)))
    if sum(map(min, costs)) > most:  # only rounding up made it too dear: the cheapest of all fits
        return tuple(min(choices, key=lambda choice: (choice.cost, choice.lost)) for choices in parts)
    lost, taken = np.zeros(most + 1), []
    for choices, prices in zip(parts, costs, strict=True):
        after, picks = np.full(most + 1, inf), np.zeros(most + 1, np.int32)
        for index in sorted(range(len(choices)), key=lambda i: prices[i]):
            price = prices[index]
            if price > most:
                continue
            with_it = lost[: most + 1 - price] + choices[index].lost
            better = with_it < after[price:]
            after[price:][better], picks[price:][better] = with_it[better], index
        lost = after
        taken.append(picks)
    # lost[c] is the least for a cost of exactly at most c; the first place with the least is the cheapest.
    left, chosen = int(np.argmin(lost)), []
    for choices, prices, picks in zip(reversed(parts), reversed(costs), reversed(taken), strict=True):
        index = int(picks[left])
        chosen.append(choices[index])
        left -= prices[index]
    return tuple(reversed(chosen))
