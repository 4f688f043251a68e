"""Layers with one norm: which architectures can, what is taken over, and that it is saved and exported."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekit.compress.anatomy import layers_of
from edgekit.compress.base import parameters_of
from edgekit.compress.judge import outputs
from edgekit.data import Sample
from edgekit.distill.norms import one_norm_a_layer
from edgekit.distill.student import changed
from edgekit.distillation import ChangeOptions
from edgekit.errors import ModelError
from edgekit.model import ModelRef
from edgekit.runtime import open_session
from edgekit.source import load
from edgekit.source.saving import save, settled
from edgekit.structure import LowRankLinear
from edgekit.to_onnx import export_model
from tests.compress.families import run_example, tiny_transformer

TEXTS = [Sample("the old dog sat on the road"), Sample("a red cat ran"), Sample("we saw two birds")]
ONE = ChangeOptions(norms="one-per-layer")


@pytest.fixture
def teacher(tiny_st_dir, tmp_path):
    return load(ModelRef(str(tiny_st_dir)), None, scratch=tmp_path)


def norms_of(layer):
    return [name for name, part in layer.module.named_modules() if isinstance(part, torch.nn.LayerNorm)]


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "mpnet"])
def test_the_norm_at_a_layer_s_end_stays(family):
    teacher = tiny_transformer(family)
    student = one_norm_a_layer(teacher, ())
    for layer in layers_of(student):
        assert norms_of(layer) == [layer.family.norm]
    assert all(len(norms_of(layer)) == 2 for layer in layers_of(teacher))
    assert parameters_of(teacher.module) - parameters_of(student.module) == 3 * 2 * 32
    assert np.isfinite(run_example(student)).all()


@pytest.mark.parametrize("family", ["vit", "modernbert", "llama", "gpt2"])
def test_a_norm_before_each_block_is_not_dropped(family):
    with pytest.raises(ModelError, match="stands before a block of its own"):
        one_norm_a_layer(tiny_transformer(family), ())


@pytest.mark.parametrize("low_rank", [False, True], ids=["whole matrices", "pairs of low rank"])
def test_a_norm_that_is_linear_on_the_data_is_taken_over_exactly(teacher, low_rank):
    """Its place is taken by a linear map that all samples agree on, so nothing at all may change."""

    class Linear(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            self.shift = torch.nn.Parameter(torch.linspace(-1, 1, width), requires_grad=False)

        def forward(self, x):
            return 2.5 * x + self.shift

    for layer in layers_of(teacher):
        width = layer.part(layer.family.norm).weight.shape[0]
        layer.module.set_submodule(layer.family.inner_norm, Linear(width))
        if low_rank:
            for name in (*layer.family.up, layer.family.down):
                old = layer.part(name)
                pair = LowRankLinear(old.in_features, 4, old.out_features, bias=True)
                layer.module.set_submodule(name, pair.requires_grad_(False))
    student = one_norm_a_layer(teacher, TEXTS)
    for mine, theirs in zip(outputs(student, TEXTS), outputs(teacher, TEXTS), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)


def test_what_is_taken_over_brings_the_outputs_closer_and_writes_into_no_shared_weight(teacher):
    for layer in layers_of(teacher):
        norm = layer.part(layer.family.inner_norm)
        norm.weight = torch.nn.Parameter(torch.full_like(norm.weight, 3.0), requires_grad=False)
        norm.bias = torch.nn.Parameter(torch.linspace(-1, 1, len(norm.bias)), requires_grad=False)
    before = {name: tensor.clone() for name, tensor in teacher.module.state_dict().items()}
    wanted = outputs(teacher, TEXTS)
    fitted, left_out = (outputs(one_norm_a_layer(teacher, texts), TEXTS) for texts in (TEXTS, ()))
    errors = [
        np.mean([np.mean((a - b) ** 2) for a, b in zip(o, wanted, strict=True)]) for o in (fitted, left_out)
    ]
    assert errors[0] < 0.5 * errors[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.module.state_dict().items())


def test_it_goes_with_other_changes_and_is_the_same_when_done_twice(teacher, tmp_path):
    both = ChangeOptions(activation="relu", heads=1, norms="one-per-layer")
    student = changed(teacher, both, tmp_path, TEXTS)
    assert [record.step for record in student.history[-2:]] == ["changes", "norms"]
    assert student.module.get_submodule("model").config.hidden_act == "relu"
    again = changed(student, both, tmp_path, TEXTS)
    for mine, theirs in zip(outputs(again, TEXTS), outputs(student, TEXTS), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_it_is_saved_loaded_and_exported(teacher, tmp_path):
    student = settled(changed(teacher, ONE, tmp_path, TEXTS), tmp_path)
    folder = tmp_path / "saved"
    folder.mkdir()
    save(student, folder, teacher)
    again = load(ModelRef(str(folder)), None, scratch=tmp_path / "again")
    for mine, theirs in zip(outputs(again, TEXTS), outputs(student, TEXTS), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    exported = export_model(again, tmp_path / "export", opset=20, ir_version=10)
    session = open_session(exported.only.path)
    assert len(layers_of(again)) + 1 == sum(  # and the one of the embeddings
        node.op_type == "LayerNormalization" for node in _nodes(exported.only.path)
    )
    feed = {value.name: again.example_inputs[value.name] for value in session.get_inputs()}
    with torch.no_grad():
        wanted = again.module(**{name: torch.from_numpy(array) for name, array in feed.items()})
    first = next(iter(wanted.values())) if isinstance(wanted, dict) else wanted[0]
    np.testing.assert_allclose(session.run(None, feed)[0], first.numpy(), atol=1e-5)


def _nodes(path):
    import onnx

    return onnx.load(path).graph.node
