"""Many artifacts timed in turns, so that the machine's moods hit all of them alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

WARM_UP = 5
FEWEST_TURNS = 15


def interleave(
    calls: Mapping[str, Callable[[], object]], *, turns: int, seconds: float, seed: int = 0
) -> dict[str, dict[str, list[float]]]:
    """Call each once per turn, in a new order every turn.

    Args:
        calls: What to time.
        turns: How many turns, unless the time is up.
        seconds: After these, stop at the end of a turn that is at least the `FEWEST_TURNS`th.
        seed: Of the orders: nobody always runs after the same neighbour, whose data fill the caches.

    Returns:
        `wall` and `cpu` (of the whole process) → name → times in ms, one per turn. On a busy machine the CPU
        time of one thread leaves out the waiting for a core.
    """
    order, shuffle = list(calls), random.Random(seed).shuffle
    for _ in range(WARM_UP):
        for name in order:
            calls[name]()
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    started = time.perf_counter()
    for turn in range(turns):
        shuffle(order)
        for name in order:
            begin, used = time.perf_counter(), time.process_time()
            calls[name]()
            cpu[name].append((time.process_time() - used) * 1e3)
            wall[name].append((time.perf_counter() - begin) * 1e3)
        if turn + 1 >= FEWEST_TURNS and time.perf_counter() - started > seconds:
            break
    return {"wall": wall, "cpu": cpu}
