"""Quiet keeps this thread's libraries off the terminal and puts everything back."""

import logging
import sys
import threading
import warnings

import pytest

from edgekit.source.quiet import quiet


def test_prints_logs_and_warnings_of_this_thread_do_not_come_out(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("torch.some.part")
    with quiet() as heard:
        print("printed")
        print("to stderr", file=sys.stderr)
        logger.warning("logged %d", 1)
        warnings.warn("warned", UserWarning, stacklevel=1)
    assert capfd.readouterr() == ("", "")
    assert {"printed", "to stderr", "logged 1"} <= set(heard)


def test_another_thread_keeps_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        thread = threading.Thread(target=print, args=("progress",))
        thread.start()
        thread.join()
    assert capfd.readouterr().out == "progress\n"


def test_everything_is_put_back_after_an_error() -> None:
    logger = logging.getLogger("transformers")
    before = (sys.stdout, sys.stderr, list(logger.handlers), logger.propagate, list(warnings.filters))
    with pytest.raises(ValueError, match="x"), quiet():
        raise ValueError("x")
    assert (sys.stdout, sys.stderr, list(logger.handlers), logger.propagate, list(warnings.filters)) == before


def test_a_handler_that_a_library_made_meanwhile_speaks_afterwards(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = logging.getLogger("onnxscript")
    with quiet():
        handler = logging.StreamHandler(sys.stderr)
        logger.addHandler(handler)
    try:
        logger.warning("after")
        assert "after" in capsys.readouterr().err
    finally:
        logger.removeHandler(handler)
