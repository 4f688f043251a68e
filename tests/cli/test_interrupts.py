"""Ctrl-C that other code drops still ends the command."""

from __future__ import annotations

import contextlib
import signal

import pytest

from edgekit.cli.interrupts import Interrupts


def test_a_swallowed_interrupt_is_raised_at_the_next_stage():
    said = []
    with Interrupts() as interrupts:
        tell = interrupts.heeded(lambda stage, message, fraction=None: said.append(stage))
        tell("load", "before", None)
        with contextlib.suppress(KeyboardInterrupt):  # as an import with a bare `except:` does
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            tell("export", "after", None)
    assert said == ["load"]


def test_an_interrupt_that_nobody_drops_is_raised_where_it_falls():
    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(signal.SIGINT)


def test_the_handler_of_before_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
