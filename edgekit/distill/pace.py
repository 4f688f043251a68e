"""How fast a training goes: what is told while it runs, at most once a second."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from edgekit.record import Progress


@dataclass
class Pace:
    """Tells of steps; its clock starts when it is made.

    Attributes:
        progress: Is told.
        steps: Of the whole training.
        samples_per_step: That each looks at.
        done_before: Steps that earlier runs did.
        seconds_before: What they took.
    """

    progress: Progress
    steps: int
    samples_per_step: int
    done_before: int = 0
    seconds_before: float = 0.0
    _started: float = field(default_factory=time.perf_counter)
    _told: float = -math.inf

    @property
    def seconds(self) -> float:
        """Training time up to now, over all runs."""
        return self.seconds_before + time.perf_counter() - self._started

    def matters(self, done: int, message: str) -> None:
        """Tell at once."""
        self._told = time.perf_counter()
        self.progress("distill", f"step {done} of {self.steps}: {message}", done / self.steps)

    def stepped(self, done: int, loss: float) -> None:
        """Tell of a step, its loss, this run's rate and the time left, unless something was just told."""
        now = time.perf_counter()
        if now - self._told < 1:
            return
        per_second = (done - self.done_before) / max(now - self._started, 1e-9)
        rate, left = per_second * self.samples_per_step, (self.steps - done) / per_second
        shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        self.matters(done, f"loss {loss:.4g}, {shown} samples/s, {_duration(left)} left")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
