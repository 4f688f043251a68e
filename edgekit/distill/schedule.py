"""What happens at which step: the order of the samples, the learning rate, the weights' average.

All of it is a function of the plan and the step's number, so a run that was interrupted goes on as if it had
not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgekit.compress.feeding import length_of
from edgekit.data import Sample
from edgekit.distill.precision import Precision

WINDOW_STEPS = 64
"""Steps whose samples are sorted by length together: enough that little is padded, few enough that an epoch
stays well mixed."""

NEAR_STEPS = 16
"""Steps whose samples, of like length, are divided among them by nearness."""

NEAR_WINDOW_STEPS = 256
"""`WINDOW_STEPS` where they are: so many that those of `NEAR_STEPS` still differ little in length."""

_POWER_ROUNDS = 6  # roughly the direction, which is all that a division needs


Vectors = Callable[[Sequence[int]], np.ndarray]
"""Gives samples' vectors by their indices: → [samples, dim]."""


@dataclass(frozen=True)
class TrainingPlan:
    """How a student is trained.

    Attributes:
        steps: Optimizer steps.
        batch: Samples that run together, in all processes.
        accumulate: Batches whose gradients make one step.
        learning_rate: The largest one.
        warm_up: Share of the steps in which the learning rate rises to it, 0 to 1.
        decay: How it falls to 0 after that.
        weight_decay: AdamW's, of matrices.
        beta2: AdamW's decay of squared gradients.
        ema: Decay of the running average of the weights, which is what is evaluated and returned; 0 has none.
        clip_norm: Longest gradient; 0 leaves them as they are.
        precision: Of the student's forward; the weights stay fp32. `fp16` needs a CUDA GPU.
        evaluate_every: Steps between evaluations; 0 evaluates only before the first and after the last.
        patience: Evaluations without a new best, how it was before training aside, after which training
            stops; 0 never stops early.
        best_from: Step at which what is minimised changes: of the evaluations after it the best is chosen
            anew, and near samples come together; 0 has no such step.
        seed: Of the samples' order and of what the losses draw.
        checkpoint_every: Steps between checkpoints; 0 writes one only at the end.
    """

    steps: int
    batch: int
    accumulate: int
    learning_rate: float
    warm_up: float
    decay: Literal["linear", "cosine"]
    weight_decay: float
    beta2: float
    ema: float
    clip_norm: float
    precision: Precision
    evaluate_every: int
    patience: int
    best_from: int
    seed: int
    checkpoint_every: int

    @property
    def samples_per_step(self) -> int:
        """Samples that one step looks at."""
        return self.batch * self.accumulate

    def evaluates_after(self, step: int) -> bool:
        """Return whether the student is evaluated when so many steps are done."""
        return step in (0, self.steps) or bool(self.evaluate_every and step % self.evaluate_every == 0)

    def saves_after(self, step: int) -> bool:
        """Return whether a checkpoint is written when so many steps are done."""
        return step == self.steps or bool(self.checkpoint_every and step % self.checkpoint_every == 0)


def learning_rate(plan: TrainingPlan, step: int) -> float:
    """Return the learning rate of a step: a straight rise to the largest, then a fall that ends at 0.

    Source: cosine without restarts from I. Loshchilov, F. Hutter, "SGDR", arXiv 1608.03983, eq. 5; the
    straight rise and fall from J. Devlin et al., "BERT", arXiv 1810.04805, appendix A.2.

    Args:
        plan: Its steps, warm-up and decay.
        step: Steps done before this one.
    """
    rising = min(round(plan.warm_up * plan.steps), plan.steps - 1)
    if step < rising:
        return plan.learning_rate * (step + 1) / (rising + 1)
    done = min((step - rising) / (plan.steps - rising), 1.0)
    left = 1 - done if plan.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return plan.learning_rate * left


def averaging(plan: TrainingPlan, step: int) -> float:
    """Return how much of the weights' running average stays when a step is done.

    Early averages are short, so that they forget the weights that training began with.

    Source: `num_updates` of tf.train.ExponentialMovingAverage: min(decay, (1 + n) / (10 + n)).

    Args:
        plan: Its `ema`.
        step: Steps done, this one included.
    """
    return min(plan.ema, (1 + step) / (10 + step))


def batch_plan(
    samples: Sequence[Sample], plan: TrainingPlan, epoch: int, near: Vectors | None = None
) -> tuple[tuple[int, ...], ...]:
    """Return which samples each step of an epoch looks at.

    The samples are permuted by (seed, epoch); within windows of `WINDOW_STEPS` steps those of like length
    come together, and the steps of a window are shuffled. Samples left over at the end of the permutation
    wait for another epoch; where there are too few for one whole step, all of them are one.

    Args:
        samples: All of them.
        plan: Its batch, accumulation and seed. Batches of 4 with 2 accumulated see what batches of 8 see.
        epoch: From 0.
        near: Where given, the samples of a step are near each other by these vectors, besides of like length,
            in windows that begin at the plan's `best_from` or after it.

    Returns:
        Indices into `samples`, one tuple per step, by length where the samples are texts.
    """
    rng = np.random.default_rng((plan.seed, epoch))
    order = rng.permutation(len(samples)).tolist()
    size = min(plan.samples_per_step, len(samples))
    whole = order[: len(order) // size * size]
    steps: list[tuple[int, ...]] = []
    window_steps = NEAR_WINDOW_STEPS if near else WINDOW_STEPS
    for number, window in enumerate(_parts(whole, window_steps * size)):
        window.sort(key=lambda index: length_of(samples[index]))
        if near and epoch * (len(whole) // size) + number * window_steps >= plan.best_from:
            bands = _parts(window, NEAR_STEPS * size)
            groups = [group for band in bands for group in divided(band, near(band), size)]
        else:
            groups = _parts(window, size)
        steps.extend(tuple(groups[place]) for place in rng.permutation(len(groups)))
    return tuple(steps)


def divided(indices: Sequence[int], vectors: np.ndarray, size: int) -> list[list[int]]:
    """Divide samples into groups of near ones: by halves, each time across where they differ most.

    Source: D. Boley, "Principal Direction Divisive Partitioning", Data Mining and Knowledge Discovery 2,
    1998; the halves here are of equal size.

    Args:
        indices: Of the samples; a multiple of `size`.
        vectors: Theirs, [samples, dim].
        size: Of a group.
    """
    if len(indices) <= size:
        return [list(indices)]
    rows = vectors.astype(np.float32)
    rows -= rows.mean(axis=0)
    direction = rows[0] + np.float32(1e-3)
    for _ in range(_POWER_ROUNDS):
        direction = rows.T @ (rows @ direction)
        direction /= max(float(np.linalg.norm(direction)), 1e-12)
    order = np.argsort(rows @ direction, kind="stable")
    middle = len(indices) // size // 2 * size
    halves = order[:middle], order[middle:]
    return [group for half in halves for group in divided([indices[i] for i in half], vectors[half], size)]


def steps_from(
    samples: Sequence[Sample], plan: TrainingPlan, first: int, near: Vectors | None = None
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield (steps done before, indices of its samples) for every step from `first` to the plan's last."""
    per_epoch = max(len(samples) // plan.samples_per_step, 1)
    epoch = -1
    groups: tuple[tuple[int, ...], ...] = ()
    for step in range(first, plan.steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            groups = batch_plan(samples, plan, epoch, near)
        yield step, groups[step % per_epoch]


def micro_batches(indices: Sequence[int], plan: TrainingPlan) -> list[tuple[int, ...]]:
    """Divide a step's samples into batches that run one after the other, all but one sample alike in size."""
    count = min(-(-len(indices) // plan.batch), len(indices))
    return [tuple(part.tolist()) for part in np.array_split(np.asarray(indices), count)]


def _parts(indices: list[int], size: int) -> list[list[int]]:
    return [indices[at : at + size] for at in range(0, len(indices), size)]
