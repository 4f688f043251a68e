"""Keeps the libraries that load and export models from talking over the user's terminal."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

_FAMILIES = (
    "huggingface_hub",
    "onnx_ir",
    "onnxscript",
    "optimum",
    "sentence_transformers",
    "torch",
    "transformers",
)


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Yield a list that collects what this thread's libraries would have printed, logged or warned.

    Other threads keep the terminal, so that a progress display goes on. Everything is put back at the end.
    """
    heard: list[str] = []
    ears = [_Ear(stream, heard) for stream in (sys.stdout, sys.stderr)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(ears[0]))
        stack.enter_context(contextlib.redirect_stderr(ears[1]))
        stack.enter_context(_collected_logs(heard))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        try:
            yield heard
        finally:
            for ear in ears:
                ear.closed_ear = True


class _Ear:
    """A stream that keeps what the thread that made it writes, and passes on what others write."""

    def __init__(self, stream: Any, heard: list[str]) -> None:
        self.stream = stream
        self.heard = heard
        self.thread = threading.get_ident()
        self.closed_ear = False  # handlers that libraries made meanwhile may hold on to the ear

    def write(self, text: str) -> int:
        if self.closed_ear or threading.get_ident() != self.thread:
            return self.stream.write(text)
        if text.strip():
            self.heard.append(text.strip())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Collector(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__()
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):  # a library's malformed log call is not our failure
            self.heard.append(record.getMessage())


@contextlib.contextmanager
def _collected_logs(heard: list[str]) -> Iterator[None]:
    collector = _Collector(heard)
    kept: list[tuple[logging.Logger, list[logging.Handler], bool]] = []
    for name, logger in list(logging.root.manager.loggerDict.items()):
        speaks = isinstance(logger, logging.Logger) and bool(logger.handlers)
        if speaks and name.split(".")[0] in _FAMILIES and name not in _FAMILIES:
            kept.append((logger, list(logger.handlers), logger.propagate))  # type: ignore[arg-type, union-attr]
    kept += [(log, list(log.handlers), log.propagate) for log in map(logging.getLogger, _FAMILIES)]
    for logger, _, _ in kept:
        logger.handlers[:] = [collector]
        logger.propagate = False
    try:
        yield
    finally:
        for logger, handlers, propagate in kept:
            new = [h for h in logger.handlers if h is not collector and h not in handlers]
            logger.handlers[:] = handlers + new
            logger.propagate = propagate
