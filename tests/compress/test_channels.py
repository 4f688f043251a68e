"""Removing a channel is silencing it, wherever it lies; worthless channels go first and nobody notices."""

from __future__ import annotations

import builtins
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from edgekit import structure
from edgekit.compress.base import Data, branch
from edgekit.compress.channel_budget import Cost, choose
from edgekit.compress.channel_groups import find_groups, positions_of, remove
from edgekit.compress.channel_repair import repair
from edgekit.compress.channel_worth import fisher
from edgekit.compress.channels import is_silencing, prune_channels
from edgekit.compress.judge import Judge, outputs
from edgekit.compression import ChannelOptions
from edgekit.data import Sample
from edgekit.errors import MissingDependencyError, ModelError, RecipeError
from edgekit.model import TensorSpec, TorchModel
from edgekit.source.wrap import Selected
from edgekit.tasks.arrays import ArrayPreprocessor

SIDE = 12


def _norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels)


class Mixed(nn.Module):
    """A residual sum, a depthwise convolution, a concatenation, squeeze and excitation, a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 16, 3, 2, 1, bias=False), _norm(16)
        self.expand, self.expand_norm = nn.Conv2d(16, 32, 1, bias=False), _norm(32)
        self.depthwise, self.depthwise_norm = nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), _norm(32)
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.project, self.project_norm = nn.Conv2d(32, 16, 1, bias=False), _norm(16)
        self.side = nn.Conv2d(16, 16, 3, padding="same", padding_mode="reflect")
        self.join = nn.Conv2d(32, 24, 2, dilation=2)
        self.hidden, self.classifier = nn.Linear(24 * 16, 20), nn.Linear(20, 5)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem_norm(self.stem(pixel_values)))
        y = nn.functional.hardswish(self.expand_norm(self.expand(x)))
        y = torch.relu(self.depthwise_norm(self.depthwise(y)))
        y = y * torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean(dim=(2, 3), keepdim=True)))))
        x = x + self.project_norm(self.project(y))
        z = torch.sigmoid(self.join(torch.cat([x, torch.relu(self.side(x))], dim=1)))
        return self.classifier(torch.relu(self.hidden(z.flatten(1))))


class Signal(nn.Module):
    """One dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(3, 16, 5, stride=2), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 16, 3), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 5),
        )  # fmt: skip

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.layers(pixel_values.flatten(2))


class Chain(nn.Module):
    """Layers one after the other."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.layers(pixel_values)


class Grouped(nn.Module):
    """What cannot be removed: grouped convolutions, layer norms, a depthwise convolution of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, groups=3)
        self.second, self.third = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=2)
        self.free, self.last = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.norm, self.classifier = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        x = self.last(torch.relu(self.free(self.third(self.second(self.first(pixel_values))))))
        return self.classifier(self.norm(x.mean(dim=(2, 3))))


class Neighbours(nn.Module):
    """Channels that are added to their neighbours, which no tracer of layers sees."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
        self.classifier = nn.Linear(16, 5)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        x = self.first(pixel_values)
        x = torch.relu(self.second(torch.relu(x + x.roll(1, dims=1))))
        return self.classifier(x.mean(dim=(2, 3)))


def _wrapped(net: nn.Module, seed: int = 0, channels: int = 3) -> TorchModel:
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.ndim > 1:
                size = tensor[0].numel() ** -0.5
                tensor.copy_(torch.randn(tensor.shape, generator=random) * 1.5 * size)
            elif tensor.ndim == 1:
                low = 0.5 if name.endswith(("var", "norm.weight")) else -0.3
                tensor.copy_(low + torch.rand(tensor.shape, generator=random))
    spec = TensorSpec("pixel_values", "float32", ("batch", channels, SIDE, SIDE))
    example = np.random.default_rng(seed).normal(size=(2, channels, SIDE, SIDE)).astype(np.float32)
    return TorchModel(
        module=Selected(net.eval(), {"logits": "logits" if hasattr(net, "config") else 0}, {}).eval(),
        task="image-classification",
        input_names=("pixel_values",),
        output_names=("logits",),
        example_inputs={"pixel_values": example},
        dynamic_axes={"pixel_values": {0: "batch"}},
        preprocessor=ArrayPreprocessor((spec,)),
        from_transformers=False,
        name=type(net).__name__,
    )


def _transformers(kind: str) -> nn.Module:
    import transformers

    small = {"num_labels": 5, "num_channels": 3}
    if kind == "ResNet":
        config = transformers.ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 32], depths=[1, 2], layer_type="basic", **small
        )
        return transformers.ResNetForImageClassification(config)
    if kind == "MobileNetV2":
        return transformers.MobileNetV2ForImageClassification(
            transformers.MobileNetV2Config(depth_multiplier=0.35, image_size=SIDE, **small)
        )
    return transformers.ConvNextForImageClassification(
        transformers.ConvNextConfig(
            hidden_sizes=[16, 32],
            depths=[1, 1],
            num_stages=2,
            patch_size=2,
            layer_scale_init_value=0.5,
            **small,
        )
    )


NETS = {
    "Mixed": Mixed,
    "Signal": Signal,
    "Grouped": Grouped,
    "ResNet": lambda: _transformers("ResNet"),
    "MobileNetV2": lambda: _transformers("MobileNetV2"),
    "ConvNext": lambda: _transformers("ConvNext"),
}


def _samples(count: int, seed: int = 1) -> tuple[Sample, ...]:
    random = np.random.default_rng(seed)
    return tuple(Sample({"pixel_values": v}) for v in random.normal(size=(count, 3, SIDE, SIDE)).astype("f"))


def _data(model: TorchModel, tmp_path, count: int = 48) -> Data:
    return Data(_samples(count), Judge.of(model, _samples(16, seed=2)), tmp_path)


def _state(model: TorchModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


@pytest.mark.parametrize("name", sorted(NETS))
class TestNetwork:
    def test_removing_channels_is_silencing_them(self, name) -> None:
        model = _wrapped(NETS[name]())
        groups, _ = find_groups(model)
        random = torch.Generator().manual_seed(1)
        removal = {
            group.name: torch.randperm(group.channels, generator=random)[: group.channels // 3].tolist()
            for group in groups
        }
        assert is_silencing(model, groups, removal)
        smaller = branch(model)
        remove(smaller.module, groups, removal)
        sizes = [smaller.module.get_submodule(g.name).weight.shape[0] for g in groups]
        assert sizes == [group.channels - group.channels // 3 for group in groups]

    def test_keeps_the_budget_and_the_outputs_and_leaves_the_original_alone(self, name, tmp_path) -> None:
        model = _wrapped(NETS[name]())
        before, data = _state(model), _data(model, tmp_path, 32)
        share = 0.9 if name == "Grouped" else 0.7
        repaired = name != "MobileNetV2"  # 95 layers to refit take half a minute
        smaller = prune_channels(model, ChannelOptions(multiply_adds=share, repair=repaired), data)
        facts = smaller.history[-1].facts
        assert facts["multiply_adds_after"] <= share * facts["multiply_adds_before"]
        assert facts["parameters_after"] < facts["parameters_before"]
        assert facts.get("loss_repaired", 0) <= facts["loss_pruned"]
        assert facts["loss_repaired" if repaired else "loss_pruned"] == data.judge.loss(smaller)
        assert all((after == 0 or after >= 8 or after == old) for old, after in facts["channels"].values())
        assert all(torch.equal(before[key], tensor) for key, tensor in model.module.state_dict().items())
        assert smaller.module(**_examples(model))["logits"].shape == (2, 5)

    def test_the_new_sizes_survive_being_built_anew(self, name, tmp_path) -> None:
        model = _wrapped(NETS[name]())
        smaller = prune_channels(
            model, ChannelOptions(multiply_adds=0.9, repair=False), _data(model, tmp_path, 16)
        ).module
        fresh = _wrapped(NETS[name](), seed=5).module
        structure.rebuild(fresh, structure.difference(fresh, smaller), "structure.json")
        fresh.load_state_dict(smaller.state_dict())
        with torch.no_grad():
            assert torch.equal(fresh(**_examples(model))["logits"], smaller(**_examples(model))["logits"])


def _examples(model: TorchModel) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in model.example_inputs.items()}


class TestWorth:
    @pytest.mark.parametrize("importance", ["fisher", "activation"])
    def test_channels_that_say_nothing_go_first_and_change_nothing(self, importance, tmp_path) -> None:
        net = Mixed()
        model = _wrapped(net)
        silent = [1, 4, 5, 8, 11, 20, 30, 31]
        with torch.no_grad():
            net.depthwise_norm.weight[silent] = 0
            net.depthwise_norm.bias[silent] = 0
        data = _data(model, tmp_path)
        options = ChannelOptions(multiply_adds=0.97, importance=importance, repair=False)
        smaller = prune_channels(model, options, data)
        old, new = outputs(model, _samples(8, 3)), outputs(smaller, _samples(8, 3))
        np.testing.assert_allclose(np.concatenate(new), np.concatenate(old), rtol=1e-4, atol=1e-4)
        assert smaller.module.model.depthwise.groups == 24

    def test_fisher_is_what_the_outputs_move_by(self, tmp_path) -> None:
        """For a linear network with one output per channel's weight the expectation is known."""
        net = Chain(nn.Conv2d(3, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 1))
        model = _wrapped(net)
        model = dataclasses.replace(model, task="generic")
        samples = _samples(1000)
        groups, _ = find_groups(model)
        found = fisher(model, groups, Data(samples, Judge.of(model, samples[:4]), tmp_path))[groups[0].name]
        pooled = net.layers[:3](torch.from_numpy(np.stack([s.value["pixel_values"] for s in samples])))
        expected = (pooled * net.layers[3].weight).square().mean(dim=0).double()
        torch.testing.assert_close(found, expected.detach(), rtol=0.25, atol=0)

    def test_a_gradient_of_the_distance_to_itself_would_be_zero_but_this_is_not(self, tmp_path) -> None:
        model = _wrapped(Mixed())
        scores = fisher(model, find_groups(model)[0], _data(model, tmp_path, 16))
        assert all(values.min() >= 0 and values.max() > 0 for values in scores.values())

    def test_values_that_are_not_finite_are_refused(self, tmp_path) -> None:
        model = _wrapped(Mixed())
        samples = (*_samples(3), Sample({"pixel_values": np.full((3, SIDE, SIDE), 1e38, np.float32)}))
        data = Data(samples, Judge.of(model, _samples(4, 2)), tmp_path)
        with pytest.raises(ModelError, match="not finite"):
            prune_channels(model, ChannelOptions(multiply_adds=0.7), data)

    def test_the_same_seed_makes_the_same_weights(self, tmp_path) -> None:
        model = _wrapped(Mixed())
        options = ChannelOptions(multiply_adds=0.6)
        one, two = (_state(prune_channels(model, options, _data(model, tmp_path))) for _ in range(2))
        assert all(torch.equal(one[key], two[key]) for key in one)


class TestRepair:
    def test_brings_the_outputs_closer_even_on_samples_that_nobody_saw(self, tmp_path) -> None:
        model = _wrapped(Mixed())
        unseen = Judge.of(model, _samples(64, 9))
        losses = {}
        for repaired in (False, True):
            options = ChannelOptions(multiply_adds=0.6, repair=repaired)
            losses[repaired] = unseen.loss(prune_channels(model, options, _data(model, tmp_path, 128)))
        assert losses[True] < 0.5 * losses[False]

    def test_copies_of_a_channel_are_made_up_for_exactly(self, tmp_path) -> None:
        """Two channels that are the same can be one: least squares finds the weights that say so."""
        net = Signal()
        model = _wrapped(net)
        with torch.no_grad():
            for part in (net.layers[0], net.layers[1]):
                for tensor in part.state_dict().values():
                    if tensor.ndim:
                        tensor[8:] = tensor[:8]
        data = _data(model, tmp_path, 256)
        groups, _ = find_groups(model)
        smaller = branch(model)
        (first,) = (group for group in groups if group.name == "model.layers.0")
        removal = {first.name: range(8)}
        remove(smaller.module, groups, removal)
        pruned = data.judge.loss(smaller)
        fixed, changed, _ = repair(smaller, model, positions_of(groups, removal), data, pruned)
        assert changed
        assert data.judge.loss(fixed) < 1e-3 * pruned


class TestWhatStays:
    def test_is_told_with_its_reason(self) -> None:
        groups, skipped = find_groups(_wrapped(Grouped()))
        assert [group.name for group in groups] == ["model.free"]
        why = {skip.what: skip.why for skip in skipped}
        assert why["model.classifier"] == "they are the model's outputs"
        assert "normalizes over them" in why["model.last"]
        assert "convolution in 2 groups" in why["model.third"]
        assert "works on the model's own input" in why["model.first"]

    def test_channels_that_an_operation_mixes_are_left(self, tmp_path) -> None:
        model = _wrapped(Neighbours())
        smaller = prune_channels(model, ChannelOptions(multiply_adds=0.9), _data(model, tmp_path, 16))
        assert smaller.module.model.first.out_channels == 16
        assert smaller.module.model.second.out_channels == 8
        assert any("mixes them" in skip.why for skip in smaller.history[-1].skipped)

    def test_a_network_without_channels_is_refused(self, tmp_path) -> None:
        model = _wrapped(Chain(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 5)))
        with pytest.raises(ModelError, match="no channels that can be removed"):
            prune_channels(model, ChannelOptions(multiply_adds=0.5), _data(model, tmp_path, 16))

    def test_a_budget_that_cannot_be_met_says_what_can(self, tmp_path) -> None:
        model = _wrapped(Mixed())
        with pytest.raises(RecipeError, match=r"multiply_adds = 0\.05 cannot be met.*%"):
            prune_channels(model, ChannelOptions(multiply_adds=0.05), _data(model, tmp_path, 16))

    def test_without_torch_pruning_the_extra_is_named(self, monkeypatch, tmp_path) -> None:
        real = builtins.__import__

        def missing(name, *args, **kwargs):
            if name == "torch_pruning":
                raise ImportError(name)
            return real(name, *args, **kwargs)

        model = _wrapped(Mixed())
        data = _data(model, tmp_path, 16)
        monkeypatch.setattr(builtins, "__import__", missing)
        with pytest.raises(MissingDependencyError, match="torch-pruning") as raised:
            prune_channels(model, ChannelOptions(multiply_adds=0.5), data)
        assert "edgekit[prune]" in raised.value.hint


class TestBudget:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(share=st.floats(0.3, 0.99), multiple=st.sampled_from([1, 4, 8]), seed=st.integers(0, 9))
    def test_is_met_in_multiples_and_counted_as_it_runs(self, share, multiple, seed, tmp_path) -> None:
        model = _wrapped(Mixed())
        groups, _ = find_groups(model)
        data = Data(_samples(1), Judge.of(model, _samples(1)), tmp_path)
        random = torch.Generator().manual_seed(seed)
        scores = {group.name: torch.rand(group.channels, generator=random) for group in groups}
        cost = Cost.of(model, data)
        options = ChannelOptions(multiply_adds=share, multiple=multiple)
        removal = choose(groups, scores, cost, options)
        smaller = branch(model)
        remove(smaller.module, groups, removal)
        assert Cost.of(smaller, data).total({}) <= share * cost.total({}) + 1
        for group in groups:
            left = group.channels - len(removal.get(group.name, ()))
            assert left == group.channels or left % multiple == 0
            gone = removal.get(group.name, ())
            if gone and len(gone) < group.channels:
                kept = [i for i in range(group.channels) if i not in gone]
                assert scores[group.name][list(gone)].max() <= scores[group.name][kept].min()

    def test_a_convolution_costs_what_the_textbook_says(self, tmp_path) -> None:
        model = _wrapped(Chain(nn.Conv2d(3, 8, 3, stride=2), nn.Flatten(), nn.Linear(8 * 25, 5)))
        cost = Cost.of(model, Data(_samples(1), Judge.of(model, _samples(1)), tmp_path))
        assert cost.total({}) == 5 * 5 * 8 * 3 * 9 + 8 * 25 * 5
