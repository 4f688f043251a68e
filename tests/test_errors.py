"""The error tree: exit codes, and hints that name the next thing to do."""

from __future__ import annotations

import pytest

from edgekit import errors
from edgekit.errors import EdgekitError, MissingDependencyError, nearest

EXIT_CODES = {
    "EdgekitError": 2,
    "InputError": 2,
    "ModelError": 2,
    "DataError": 2,
    "ProfileError": 2,
    "RecipeError": 2,
    "PackageError": 2,
    "OutputExistsError": 2,
    "ExportError": 2,
    "GateError": 1,
    "RunnerFailedError": 1,
    "TrainingError": 1,
    "MachineError": 3,
    "RunnerMissingError": 3,
    "MissingDependencyError": 3,
    "StorageError": 3,
}


def _tree() -> dict[str, type[EdgekitError]]:
    found = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    return {name: value for name, value in found.items() if issubclass(value, EdgekitError)}


def test_every_error_has_the_exit_code_of_its_branch() -> None:
    assert {name: kind.exit_code for name, kind in _tree().items()} == EXIT_CODES


@pytest.mark.parametrize("name", sorted(_tree()))
def test_the_tree_in_the_docstring_names_every_error(name: str) -> None:
    assert errors.__doc__ is not None
    assert f" {name} " in errors.__doc__.replace("\n", " ")


def test_text_is_the_message_and_then_the_hint() -> None:
    assert str(EdgekitError("it is wrong", "do that")) == "it is wrong\ndo that"
    assert str(EdgekitError("it is wrong")) == "it is wrong"


def test_missing_dependency_names_the_package_its_purpose_and_the_extra() -> None:
    error = MissingDependencyError("torch", "load the model")
    assert error.package == "torch"
    assert "'torch'" in error.message
    assert "load the model" in error.message
    assert "edgekit[export]" in error.hint


def test_nearest_names_the_closest_spelling_first_and_lists_all() -> None:
    hint = nearest("arm46", ["cpu-x86", "arm64"])
    assert hint == "Did you mean 'arm64'? Known: arm64, cpu-x86."


def test_nearest_guesses_nothing_where_nothing_is_close() -> None:
    assert nearest("zzz", ["arm64"]) == "Known: arm64."
