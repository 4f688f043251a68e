"""Plain modules from `package.module:factory`."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import ModelError, RecipeError
from edgekit.model import ModelRef, TorchModel
from edgekit.source import load

Factory = Callable[..., TorchModel]

HEAD = """
import torch
from torch import nn
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 3), nn.Dropout(0.5)
    def forward(self, x, scale=None):
        y = self.b(self.a(x))
        return y if scale is None else {"scaled": y * scale, "plain": y, "note": "text"}
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Factory]:
    """Return a function that loads the factory in some source code, found in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def make(code: str, *, spec: str = "user_model:make", task: str | None = None) -> TorchModel:
        (tmp_path / "user_model.py").write_text(HEAD + textwrap.dedent(code))
        sys.modules.pop("user_model", None)
        return load(ModelRef(spec), task, scratch=tmp_path)

    yield make
    for name in set(sys.modules) - before:
        if name.startswith("user_"):
            del sys.modules[name]


ONE = "def make(): return Two(), torch.ones(2, 4)"
NAMED = "def make(): return Two(), {'x': torch.ones(2, 4), 'scale': torch.ones(2, 1)}"


def test_a_module_in_the_working_directory_becomes_a_generic_model(made: Factory) -> None:
    path = list(sys.path)
    model = made(ONE)
    assert (model.task, model.input_names, model.output_names) == ("generic", ("x",), ("output",))
    assert model.dynamic_axes == {"x": {0: "batch"}}
    assert not model.module.training
    assert sys.path == path
    assert not model.from_transformers


def test_outputs_are_named_by_their_keys_and_what_is_no_tensor_is_recorded(made: Factory) -> None:
    model = made(NAMED)
    assert model.output_names == ("scaled", "plain")
    assert [(s.what, s.why) for s in model.history[0].skipped] == [("note", "it is no tensor")]


def test_outputs_of_a_tuple_are_numbered(made: Factory) -> None:
    code = """
    class Pair(nn.Module):
        def forward(self, x): return x, x + 1
    def make(): return Pair(), torch.ones(2, 4)
    """
    assert made(code).output_names == ("output_0", "output_1")


def test_a_task_names_the_output(made: Factory) -> None:
    assert made(ONE, task="image-classification").output_names == ("logits",)


def test_a_task_with_several_outputs_needs_one_of_its_name(made: Factory) -> None:
    with pytest.raises(ModelError, match="needs one called 'logits'"):
        made(NAMED, task="image-classification")


def test_inputs_are_fp32_and_a_batch_of_two(made: Factory) -> None:
    model = made("def make(): return Two().half(), (torch.ones(1, 4, dtype=torch.float64),)")
    assert model.example_inputs["x"].dtype == np.float32
    assert model.example_inputs["x"].shape == (2, 4)
    assert made("def make(): return Two(), torch.ones(7, 4)").example_inputs["x"].shape == (2, 4)


def test_further_dynamic_axes_come_third(made: Factory) -> None:
    model = made("def make(): return nn.ReLU(), torch.ones(2, 5, 4), {'input': {1: 'time'}}")
    assert model.dynamic_axes == {"input": {0: "batch", 1: "time"}}
    assert model.preprocessor.batch.__self__.inputs[0].shape == ("batch", "time", 4)


def test_the_digest_follows_weights_and_code(made: Factory) -> None:
    first = made(ONE).source_sha256
    assert made(ONE).source_sha256 == first
    assert (
        made("def make():\n    m = Two(); m.a.weight.data += 1\n    return m, torch.ones(2, 4)").source_sha256
        != first
    )
    other = made(
        ONE.replace("Two()", "Own()") + "\nclass Own(Two):\n    def forward(self, x): return self.a(x) * 2\n"
    )
    assert other.source_sha256 != first


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def make(): raise KeyError('weights')", r"failed: KeyError: 'weights' \(user_model.py, line \d+\)"),
        ("import no_such_package", "importing user_model failed: No module named 'no_such_package'"),
        (
            "1 / 0",
            r"importing user_model failed: ZeroDivisionError: division by zero \(user_model.py, line \d+\)",
        ),
        ("def create(): pass", "module user_model has no 'make'"),
        ("make = 3", "is a int, not a function"),
        ("def make(): return Two()", "returned Two, not a model with example inputs"),
        ("def make(): return 1, 2", "returned int where the module should be"),
        ("def make(): return Two(), None", "gives NoneType as example inputs"),
        ("def make(): return Two(), {}", "as example inputs"),
        ("def make(): return Two(), 'text'", "gives str as example inputs"),
        ("def make(): return Two(), (torch.ones(2, 4), 3)", "gives int as example input 'scale'"),
        ("def make(): return Two(), {'y': torch.ones(2, 4)}", "an input 'y' that forward does not take"),
        ("def make(): return Two(), {'scale': torch.ones(2, 4)}", "no example for forward's argument 'x'"),
        ("def make(): return Two(), torch.tensor(1.0)", r"has shape \[\]; axis 0 is the batch"),
        ("def make(): return Two(), (torch.ones(2, 4), torch.ones(3, 1))", "differ in axis 0"),
        (
            "def make(): return Two(), torch.ones(2, 5)",
            r"fails on inputs \(x \[2, 5\]\): RuntimeError",
        ),
        ("def make(): return Two(), torch.ones(2, 4), [1]", "dynamic axes that are no dict"),
        ("def make(): return Two(), torch.ones(2, 4), {'y': {1: 'a'}}", "names dynamic axes of 'y'"),
        ("def make(): return Two(), torch.ones(2, 4), {'x': {2: 'a'}}", "is no axis"),
        ("def make(): return nn.ReLU(), torch.ones(2, 1), {'input': {1: 'a'}}", "has size 1"),
        (
            "def make():\n    m = Two(); m.a.bias.data[1] = float('nan')\n    return m, torch.ones(2, 4)",
            "NaN",
        ),
        (
            "class S(nn.Module):\n    def forward(s, x): return '.'\ndef make(): return S(), torch.ones(2)",
            "the model returns str, not tensors",
        ),
    ],
)
def test_what_a_factory_can_do_wrong_is_said_in_one_line(code: str, message: str, made: Factory) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        made(code)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("user_nothing:make", "no Python module 'user_nothing'"),
        ("user_model.sub:make", "no Python module 'user_model"),
        ("user model:make", "not of the form"),
        ("user_model:", "not of the form"),
    ],
)
def test_a_spec_that_names_nothing_is_refused(spec: str, message: str, made: Factory) -> None:
    with pytest.raises(ModelError, match=message):
        made(ONE, spec=spec)


def test_an_unknown_task_is_refused_with_the_nearest(made: Factory) -> None:
    with pytest.raises(RecipeError) as caught:
        made(ONE, task="image-clasification")
    assert "image-classification" in caught.value.hint
