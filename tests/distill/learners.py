"""A tiny student of plain torch, an objective with a projection, and a plan to train it by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekit.data import Sample
from edgekit.distill.training import Batch, TrainingPlan
from edgekit.model import TorchModel

PLAN = TrainingPlan(
    steps=12,
    batch=4,
    accumulate=1,
    learning_rate=0.1,
    warm_up=0.25,
    decay="linear",
    weight_decay=0.01,
    beta2=0.999,
    ema=0.0,
    clip_norm=1.0,
    precision="fp32",
    evaluate_every=4,
    patience=0,
    best_from=0,
    seed=3,
    checkpoint_every=5,
)


class Vectors:
    """A preprocessor for samples that are arrays by input name."""

    def batch(self, samples: Any, *, length: int | None = None) -> dict[str, np.ndarray]:
        return {"x": np.stack([sample.value["x"] for sample in samples])}


class Net(nn.Module):
    """Two tied matrices around a batch norm, with an embedding-like vector."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(6, 6)
        self.last.weight = self.first.weight
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.last(self.drop(torch.relu(self.norm(self.first(x)))))}


def net() -> TorchModel:
    """Return a student whose parameters are frozen, as those of a loaded model are."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Net().eval().requires_grad_(False)
    return TorchModel(
        module=module,
        task="feature-extraction",
        input_names=("x",),
        output_names=("out",),
        example_inputs={"x": np.zeros((2, 6), np.float32)},
        dynamic_axes={},
        preprocessor=Vectors(),  # type: ignore[arg-type]
        from_transformers=False,
        name="net",
    )


def without_batch_norm() -> TorchModel:
    """Return the same student with nothing that compares the samples of a batch."""
    model = net()
    model.module.norm = nn.Identity()  # type: ignore[assignment]
    return replace(model)


def vectors(count: int = 30, seed: int = 0) -> tuple[Sample, ...]:
    """Return random samples."""
    rng = np.random.default_rng(seed)
    return tuple(Sample({"x": row}) for row in rng.normal(size=(count, 6)).astype(np.float32))


class Towards:
    """Squared errors of the output and of a projection of it, and a random term."""

    def __init__(self, *, noise: float = 0.0, poison: int | None = None) -> None:
        self.projection = nn.Linear(6, 2, bias=False)
        with torch.no_grad():
            self.projection.weight.copy_(torch.linspace(-1, 1, 12).reshape(2, 6))
        self.noise, self.poison = noise, poison
        self.entered: list[TorchModel] = []
        self.shares: list[float] = []

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.projection.parameters()

    def state_dict(self) -> dict[str, Any]:
        return self.projection.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.projection.load_state_dict(state)

    @contextmanager
    def watching(self, student: TorchModel) -> Iterator[None]:
        self.entered.append(student)
        self.projection.to(next(student.module.parameters()).device)
        yield

    def given(self, batch: Batch) -> Batch:
        return batch

    def __call__(
        self, outputs: Mapping[str, torch.Tensor], batch: Batch, share_done: float
    ) -> dict[str, torch.Tensor]:
        self.shares.append(share_done)
        out = outputs["out"]
        x = batch.inputs["x"].to(out.device)
        found = {"near": (out - x.flip(1)).square().mean(), "seen": self.projection(out).square().mean()}
        if self.noise:
            found["noise"] = self.noise * (out * torch.randn(out.shape).to(out.device)).mean()
        if self.poison in batch.indices:
            found["seen"] = found["seen"] * torch.nan
        return found


def error_of(samples: tuple[Sample, ...]) -> Any:
    """Return an `evaluate`: minus the squared error on samples."""

    def evaluate(model: TorchModel) -> dict[str, float]:
        assert not model.module.training
        x = torch.from_numpy(model.preprocessor.batch(samples)["x"])
        return {"closeness": -float((model.module(x=x)["out"] - x.flip(1)).square().mean())}

    return evaluate
