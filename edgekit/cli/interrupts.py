"""Ctrl-C that a library swallowed is raised again at the next stage."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

from edgekit.record import Progress


class Interrupts:
    """Remembers Ctrl-C while it is entered.

    A `KeyboardInterrupt` is raised wherever Python happens to be, and code of other projects that runs then
    (an import with `except:`, a callback out of C, a finalizer) may drop it; the command would go on for
    minutes.
    """

    def __init__(self) -> None:
        self._pressed = False

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._raise)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True
        raise KeyboardInterrupt

    def heeded(self, progress: Progress) -> Progress:
        """Return a progress that raises `KeyboardInterrupt` once Ctrl-C has been pressed.

        Args:
            progress: What to tell otherwise.
        """

        def tell(stage: str, message: str, fraction: float | None = None) -> None:
            if self._pressed:
                raise KeyboardInterrupt
            progress(stage, message, fraction)

        return tell
