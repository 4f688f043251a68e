"""Every error that edgekit raises on purpose.

The tree::

    EdgekitError                 something a person can act on; carries what to do next
    ├── InputError               (exit 2) the request or one of its files is wrong
    │   ├── ModelError           no model there, corrupt weights, pickle, remote code, NaN
    │   ├── DataError            calibration or validation data that cannot be used
    │   ├── ProfileError         unknown target, bad key in a target file
    │   ├── RecipeError          bad key or value in a recipe or a flag
    │   ├── PackageError         a package that is incomplete or was changed
    │   └── OutputExistsError    the output is there already and --force was not given
    ├── ExportError              (exit 2) the exporter cannot convert this model; names the op and its module
    ├── GateError                (exit 1) a measured value missed its budget
    ├── RunnerFailedError        (exit 1) a model fails, crashes or hangs where a runner runs it
    ├── TrainingError            (exit 1) training came to values that are not finite
    └── MachineError       (exit 3) this machine lacks something
        ├── MissingDependencyError    a package is not installed
        ├── RunnerMissingError   a runner is not installed, or its files are damaged
        └── StorageError         disk full, permission denied

Exit codes: 0 good, 1 a gate failed, 2 usage or bad input, 3 environment, 130 interrupted; an error that is
not in this tree is a defect of edgekit and ends with 70.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal


class EdgekitError(Exception):
    """An error with one line that says what is wrong and one that says what to do next.

    Attributes:
        message: What is wrong, naming the file, key, node or value.
        hint: What to do next; empty when the message says it all.
        exit_code: The exit code of the command line.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InputError(EdgekitError):
    """The request or one of the files it names is wrong."""


class ModelError(InputError):
    """The model cannot be used: missing, corrupt, unsafe to load, or not finite."""


class DataError(InputError):
    """Calibration or validation data cannot be used."""


class ProfileError(InputError):
    """A target profile is unknown or its file is wrong."""


class RecipeError(InputError):
    """A recipe, or a flag that stands for one of its keys, is wrong."""


class PackageError(InputError):
    """A package is incomplete, or a file in it is not the one that was written."""


class OutputExistsError(InputError):
    """The output exists and `--force` was not given."""


class ExportError(EdgekitError):
    """The exporter cannot convert the model."""


class GateError(EdgekitError):
    """A measured value missed its budget; nothing was packaged."""

    exit_code = 1


class RunnerFailedError(EdgekitError):
    """A model does not run where a runner runs it.

    Args:
        runner: Name of the runner.
        outcome: `failed` (the runtime refuses or raises), `crashed` (ended by a signal) or `hung`.
        why: What it said, or which signal.
        hint: What to do next.
    """

    exit_code = 1

    def __init__(
        self, runner: str, outcome: Literal["failed", "crashed", "hung"], why: str, hint: str = ""
    ) -> None:
        super().__init__(f"{runner}: {outcome}: {why}", hint)
        self.runner = runner
        self.outcome: Literal["failed", "crashed", "hung"] = outcome
        self.why = why


class TrainingError(EdgekitError):
    """Training came to values that are not finite; the best weights before that are kept."""

    exit_code = 1


class MachineError(EdgekitError):
    """This machine lacks something that the request needs."""

    exit_code = 3


class MissingDependencyError(MachineError):
    """A Python package is not installed.

    Args:
        package: The package's name on PyPI.
        purpose: What it is needed for, after "is needed to".
        extra: The edgekit extra that brings it.
    """

    def __init__(self, package: str, purpose: str, extra: str = "export") -> None:
        super().__init__(
            f"the Python package '{package}' is not installed; it is needed to {purpose}",
            f"Install it with: pip install 'edgekit[{extra}]'",
        )
        self.package = package


class RunnerMissingError(MachineError):
    """A runner is not installed here, or its files are damaged."""


class StorageError(MachineError):
    """A file could not be written: disk full or no permission."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known spelling, or lists what is known.

    Args:
        name: What the user wrote.
        known: The names that would have been right.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean '{close[0]}'? Known: {', '.join(names)}."
    return f"Known: {', '.join(names)}."
