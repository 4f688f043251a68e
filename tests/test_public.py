"""The public names of `edgekit`."""

import importlib
import subprocess
import sys

import pytest

import edgekit

NAMES = [name for name in edgekit.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_the_same_thing_however_often_and_after_whatever_it_is_asked_for(name):
    """A room of the same name would take the verb's place once it is imported."""
    first = getattr(edgekit, name)
    importlib.import_module("edgekit.cli.export")
    importlib.import_module("edgekit.pipeline")
    assert getattr(edgekit, name) is first
    assert callable(first)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        edgekit.nothing  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'torch', 'onnx', 'numpy', 'click'}"
    code = f"import edgekit, sys; print(sorted({{m.split('.')[0] for m in sys.modules}} & {heavy}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
