"""The training loop: the same for one CPU, one GPU, or several processes under `accelerate launch`.

Modules stay in eval mode, as the teacher has no dropout either; only batch norms learn their statistics. What
is drawn at random depends on the seed, the step and the process alone, so an interrupted run goes on exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekit.compress.feeding import fed
from edgekit.data import Sample
from edgekit.distill import checkpoint
from edgekit.distill.learner import (
    average,
    copied,
    fed_from_cpu,
    is_batch_norm,
    make_trainable,
    parameter_groups,
)
from edgekit.distill.pace import Pace
from edgekit.distill.precision import computing_in
from edgekit.distill.processes import Processes, training_processes
from edgekit.distill.protocol import Batch, Objective, Point, Trained
from edgekit.distill.schedule import (
    TrainingPlan,
    Vectors,
    averaging,
    learning_rate,
    micro_batches,
    steps_from,
)
from edgekit.distill.tally import Seen, Tally, fetched, stopped, unsound
from edgekit.errors import (
    DataError,
    MachineError,
    RecipeError,
    nearest,
)
from edgekit.model import TorchModel
from edgekit.record import Progress, silent

__all__ = ["Batch", "Objective", "Point", "Trained", "TrainingPlan", "train"]

_SMALLEST_SCALE = 1.0
"""Of the loss in fp16. The scaler halves it at every overflow, from 65536: below 1 it is not the scale that
makes gradients overflow."""

_FUSED = ("cpu", "cuda")
"""Where AdamW is one kernel: 10 ms instead of 75 for the 15 million weights of a small BERT, on one core."""


def train(
    student: TorchModel,
    samples: Sequence[Sample],
    objective: Objective,
    plan: TrainingPlan,
    *,
    evaluate: Callable[[TorchModel], Mapping[str, float]],
    watch: str,
    folder: Path,
    identity: Mapping[str, str],
    progress: Progress = silent,
    near: Vectors | None = None,
) -> Trained:
    """Train a copy of a student; of all that are evaluated, the given one among them, return the best.

    A run that finds its own checkpoints in `folder` goes on from there, with the same result on a CPU, to the
    byte, as if it had not been interrupted.

    Source: AdamW from I. Loshchilov, F. Hutter, arXiv 1711.05101.

    Args:
        student: Left as it is.
        samples: What it learns from.
        objective: What is minimised.
        plan: For how long, and how.
        evaluate: Gives a student's quality by name; its module takes and returns tensors on the CPU.
        watch: The quality by which the best is chosen; larger is better.
        folder: For checkpoints; the caller removes it when the result is safe.
        identity: What is trained on what, in words or digests; checkpoints of another identity are refused.
        progress: Told at most once a second and at each evaluation.
        near: Where given, the samples of a step are near each other by these vectors, see `batch_plan`.

    Raises:
        DataError: There are no samples, or the checkpoints are those of another run.
        MachineError: fp16 without a CUDA GPU.
        MissingDependencyError: accelerate is not installed.
        ModelError: A checkpoint is damaged.
        RecipeError: The batch is too small for a batch norm, or `watch` is no name that `evaluate` gives.
        StorageError: A checkpoint cannot be written.
        TrainingError: A loss or the gradient is not finite.
    """
    if not samples:
        raise DataError("there are no samples to train on")
    processes = training_processes()
    _refuse_impossible(student, plan, processes)
    if processes.main:
        checkpoint.claim(folder, {**identity, **_words(plan)})
    learner, shown = copied(student, processes.device), copied(student, processes.device)
    make_trainable(learner.module)
    cuda = [processes.device] if processes.device.type == "cuda" else []
    with torch.random.fork_rng(cuda), objective.watching(learner):
        run = _Run(
            plan, processes, learner, shown, objective, samples, evaluate, watch, folder, progress, near
        )
        run.resume()
        run.go()
    return run.result()


@dataclass
class _Run:
    """A training on its way."""

    plan: TrainingPlan
    processes: Processes
    learner: TorchModel
    shown: TorchModel
    objective: Objective
    samples: Sequence[Sample]
    evaluate: Callable[[TorchModel], Mapping[str, float]]
    watch: str
    folder: Path
    progress: Progress
    near: Vectors | None
    done: int = 0
    points: list[Point] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    best: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.learner.module.parameters() if p.requires_grad]
        self.parameters += list(self.objective.parameters())
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.learner.module, self.parameters, self.plan.weight_decay),
            lr=self.plan.learning_rate,
            betas=(0.9, self.plan.beta2),
            fused=self.processes.device.type in _FUSED,
        )
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.plan.precision == "fp16")
        per_step = min(self.plan.samples_per_step, len(self.samples))
        told = self.progress if self.processes.main else silent
        self.pace = Pace(told, self.plan.steps, per_step)

    @property
    def over(self) -> bool:
        """Whether so many evaluations brought nothing better than one before them.

        How close the student was before it learnt does not count, or before something else was asked of it:
        either may take it away from there for a while.
        """
        values = [point.quality[self.watch] for point in self.points if point.step > self.plan.best_from]
        best = int(np.argmax(np.nan_to_num(values, nan=-np.inf))) if values else 0
        return bool(self.plan.patience) and len(values) - 1 - best >= self.plan.patience

    def go(self) -> None:
        """Train to the end, from where it is."""
        if not self.points:
            torch.manual_seed(_seed(self.plan.seed, 0, self.processes.rank))
            self.look()
        for step, indices in steps_from(self.samples, self.plan, self.done, self.near):
            if self.over:
                break
            torch.manual_seed(_seed(self.plan.seed, step, self.processes.rank))
            loss = self.step(step, indices)
            self.done = step + 1
            self.pace.stepped(self.done, loss)
            if self.plan.evaluates_after(self.done):
                self.look()
            if self.plan.saves_after(self.done) or self.over:
                self.save()

    def step(self, step: int, indices: Sequence[int]) -> float:
        """Do one optimizer step and return the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.plan, step)
        self.optimizer.zero_grad()
        forwards: list[tuple[Batch, dict[str, torch.Tensor]]] = []
        for together in micro_batches(indices, self.plan):
            mine = together[self.processes.rank :: self.processes.count]
            if not mine:
                continue
            batch = self.objective.given(self._batch(mine))
            terms = self.objective(self._outputs(batch), batch, step / self.plan.steps)
            forwards.append((batch, {name: term.detach() for name, term in terms.items()}))
            if terms:
                loss = torch.stack(list(terms.values())).sum() * (len(mine) / len(indices))
                self.scaler.scale(loss).backward()
        self.processes.add_gradients(self.parameters)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.plan.clip_norm or math.inf)
        summed = self._account(step, *fetched(forwards, norm))
        if any(p.grad is not None for p in self.parameters):  # the scaler insists on one
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if self.plan.ema:
            average(self.shown.module, self.learner.module, averaging(self.plan, step + 1))
        return summed

    def look(self) -> None:
        """Evaluate, and keep the weights where they are the best so far."""
        if not self.plan.ema:
            average(self.shown.module, self.learner.module, 0.0)
        quality: dict[str, float] = {}
        if self.processes.main:
            with torch.no_grad(), fed_from_cpu(self.shown.module, self.processes.device):
                quality = {name: float(value) for name, value in self.evaluate(self.shown).items()}
        quality = self.processes.told(quality)
        if self.watch not in quality:
            raise RecipeError(f"a student's quality has no '{self.watch}'", nearest(self.watch, quality))
        value = quality[self.watch]
        if self.best is None or self._betters(*self.best, value):
            self.best = (self.done, value)
            if self.processes.main:
                state = {"step": self.done, "value": value, "student": self.shown.module.state_dict()}
                checkpoint.save(self.folder / checkpoint.BEST, state)
        rate, seen = learning_rate(self.plan, max(self.done - 1, 0)), self.done * self.pace.samples_per_step
        self.points.append(Point(self.done, seen, self.tally.means(), rate, quality, self.pace.seconds))
        self.tally = Tally()
        best = f"best {self.best[1]:.4g} at step {self.best[0]}"
        self.pace.matters(self.done, f"{self.watch} {value:.4g}, {best}")

    def _betters(self, step: int, best: float, value: float) -> bool:
        """Return whether an evaluation's quality is better than the best so far, if that still counts."""
        anew = 0 < self.plan.best_from < self.done and step <= self.plan.best_from
        return anew or value > best or (math.isnan(best) and not math.isnan(value))

    def save(self) -> None:
        """Write a checkpoint to go on from."""
        if not self.processes.main:
            return
        state = {
            "done": self.done,
            "student": self.learner.module.state_dict(),
            "average": self.shown.module.state_dict() if self.plan.ema else None,
            "objective": dict(self.objective.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "points": [asdict(point) for point in self.points],
            "tally": asdict(self.tally),
            "seconds": self.pace.seconds,
        }
        checkpoint.save(self.folder / checkpoint.LAST, state)

    def resume(self) -> None:
        """Go to where the last checkpoint is, if there is one."""
        state, best = self._load(checkpoint.LAST), self._load(checkpoint.BEST)
        if best is not None:
            self.best = (best["step"], best["value"])
        elif state is not None:
            raise checkpoint.damaged(self.folder / checkpoint.BEST, "it is missing")
        if state is not None:
            with checkpoint.fitting(self.folder / checkpoint.LAST):
                self._take(state)
            self.pace.matters(self.done, f"going on from {self.folder}")

    def result(self) -> Trained:
        """Return the best of all that was evaluated."""
        best = self._load(checkpoint.BEST)
        if best is None:
            raise checkpoint.damaged(self.folder / checkpoint.BEST, "it is missing")
        with checkpoint.fitting(self.folder / checkpoint.BEST):
            self.shown.module.load_state_dict(best["student"])
        student = replace(self.shown, module=self.shown.module.cpu())
        return Trained(student, tuple(self.points), best["step"], self.done, self.done < self.plan.steps)

    def _take(self, state: Mapping[str, Any]) -> None:
        self.learner.module.load_state_dict(state["student"])
        if self.plan.ema:
            self.shown.module.load_state_dict(state["average"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.points = [Point(**point) for point in state["points"]]
        self.tally = Tally(**state["tally"])
        self.done = state["done"]
        self.pace = replace(self.pace, done_before=self.done, seconds_before=state["seconds"])

    def _load(self, name: str) -> dict[str, Any] | None:
        return self.processes.told(checkpoint.load(self.folder / name) if self.processes.main else None)

    def _batch(self, indices: tuple[int, ...]) -> Batch:
        chosen = tuple(self.samples[index] for index in indices)
        return Batch(indices, fed(self.learner, chosen), chosen)

    def _outputs(self, batch: Batch) -> dict[str, torch.Tensor]:
        device = self.processes.device
        inputs = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
        with computing_in(self.plan.precision, device.type):
            returned = self.learner.module(**inputs)
        values = returned.values() if isinstance(returned, Mapping) else returned
        named = zip(self.learner.output_names, values, strict=True)
        return {name: value.float() if value.is_floating_point() else value for name, value in named}

    def _account(self, step: int, seen: Sequence[Seen], norm: float) -> float:
        """Add a step's losses to the tally and return their sum.

        Raises:
            TrainingError: A loss or the gradient is not finite.
        """
        problem = unsound(seen, norm)
        if problem is None:
            return self.tally.add(seen)
        # In fp16 an overflow is the scaler's to deal with: it leaves the step out and halves the scale.
        if self.scaler.is_enabled() and self.scaler.get_scale() >= _SMALLEST_SCALE:
            return math.nan
        advice = "a lower learning rate" + ("" if self.plan.precision == "fp32" else ", or in fp32")
        raise stopped(step + 1, *problem, self.folder / checkpoint.BEST, advice)


def _refuse_impossible(student: TorchModel, plan: TrainingPlan, processes: Processes) -> None:
    if plan.precision == "fp16" and processes.device.type != "cuda":
        raise MachineError(
            f"precision fp16 needs a CUDA GPU; this is {processes.device.type}", "Use bf16 or fp32."
        )
    if plan.batch < 2 * processes.count and any(map(is_batch_norm, student.module.modules())):
        raise RecipeError(
            f"a batch of {plan.batch} is too small for a model with batch norms",
            f"Take a batch of at least {2 * processes.count}: two samples for each process.",
        )


def _words(plan: TrainingPlan) -> dict[str, str]:
    """Return what of a plan decides about the result."""
    return {name: str(value) for name, value in asdict(plan).items() if name != "checkpoint_every"}


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
