"""Laws of the schedule: no sample twice an epoch, little padding, a rate that rises and falls to nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.data import Sample
from edgekit.distill.schedule import averaging, batch_plan, learning_rate, micro_batches, steps_from
from tests.distill.learners import PLAN


def texts(count: int) -> tuple[Sample, ...]:
    lengths = np.random.default_rng(7).integers(1, 200, count)
    return tuple(Sample("x" * length) for length in lengths)


@given(
    count=st.integers(1, 700), batch=st.integers(1, 9), accumulate=st.integers(1, 3), epoch=st.integers(0, 4)
)
def test_an_epoch_sees_no_sample_twice_and_leaves_out_less_than_a_step(
    count: int, batch: int, accumulate: int, epoch: int
) -> None:
    plan = replace(PLAN, batch=batch, accumulate=accumulate)
    steps = batch_plan(texts(count), plan, epoch)
    flat = [index for step in steps for index in step]
    assert len(set(flat)) == len(flat)
    assert set(flat) <= set(range(count))
    if count < plan.samples_per_step:
        assert sorted(flat) == list(range(count))
    else:
        assert {len(step) for step in steps} == {plan.samples_per_step}
        assert count - len(flat) < plan.samples_per_step


def test_the_order_is_of_the_seed_and_the_epoch_alone() -> None:
    samples = texts(200)
    assert batch_plan(samples, PLAN, 1) == batch_plan(samples, replace(PLAN, learning_rate=9.0), 1)
    assert batch_plan(samples, PLAN, 1) != batch_plan(samples, PLAN, 2)
    assert batch_plan(samples, PLAN, 1) != batch_plan(samples, replace(PLAN, seed=4), 1)


def test_texts_of_like_length_come_together_but_long_and_short_steps_alternate() -> None:
    samples = texts(2000)
    plan = replace(PLAN, batch=8)

    def padded(steps: object) -> int:
        sizes = [[len(samples[index].value) for index in step] for step in steps]  # type: ignore[attr-defined]
        return sum(max(size) * len(size) - sum(size) for size in sizes)

    steps = batch_plan(samples, plan, 0)
    as_they_come = [tuple(range(at, at + 8)) for at in range(0, 2000, 8)]
    assert padded(steps) < 0.1 * padded(as_they_come)
    longest = [max(len(samples[index].value) for index in step) for step in steps]
    assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.2


def test_samples_without_a_length_stay_permuted() -> None:
    samples = tuple(Sample({"x": np.zeros(2)}) for _ in range(64))
    flat = [index for step in batch_plan(samples, PLAN, 0) for index in step]
    assert flat != sorted(flat)
    assert abs(np.corrcoef(flat, range(len(flat)))[0, 1]) < 0.5


@given(count=st.integers(1, 700), size=st.integers(1, 12), seed=st.integers(0, 9))
def test_near_samples_are_divided_without_loss_or_doubles(count: int, size: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).integers(-1, 2, size=(count, 3))  # many are the same
    plan = replace(PLAN, batch=size, accumulate=1)
    steps = batch_plan(texts(count), plan, seed, lambda indices: vectors[list(indices)])
    seen = [index for step in steps for index in step]
    assert {len(step) for step in steps} == {min(size, count)}
    assert len(set(seen)) == len(seen) > count - size


def test_a_step_of_near_samples_holds_near_samples() -> None:
    kinds = np.random.default_rng(0).permutation(np.arange(512) % 8)
    centres = np.random.default_rng(1).normal(size=(8, 16))
    vectors = centres[kinds] + 0.01 * np.random.default_rng(2).normal(size=(512, 16))
    samples = tuple(Sample({"x": np.zeros(2)}) for _ in range(512))
    plan = replace(PLAN, batch=16, accumulate=2)
    near = batch_plan(samples, plan, 0, lambda indices: vectors[list(indices)])
    assert np.mean([len(set(kinds[list(step)])) for step in near]) < 2
    assert np.mean([len(set(kinds[list(step)])) for step in batch_plan(samples, plan, 0)]) > 7


def test_steps_are_mixed_as_ever_until_near_ones_begin() -> None:
    vectors = np.random.default_rng(0).normal(size=(512, 4))
    samples = tuple(Sample({"x": np.zeros(2)}) for _ in range(512))
    plan = replace(PLAN, batch=16, accumulate=1, best_from=33)  # 32 steps an epoch
    same = [
        batch_plan(samples, plan, epoch) == batch_plan(samples, plan, epoch, lambda at: vectors[list(at)])
        for epoch in range(4)
    ]
    assert same == [True, True, False, False]


def test_the_steps_of_near_samples_are_shuffled() -> None:
    vectors = np.arange(512.0)[:, None]
    samples = tuple(Sample({"x": np.zeros(2)}) for _ in range(512))
    plan = replace(PLAN, batch=16, accumulate=1)
    steps = batch_plan(samples, plan, 0, lambda indices: vectors[list(indices)])
    assert all(max(step) - min(step) < 48 for step in steps)
    assert abs(np.corrcoef([min(step) for step in steps], range(len(steps)))[0, 1]) < 0.5


@given(first=st.integers(0, 29), count=st.integers(1, 50))
def test_steps_from_the_middle_are_those_of_the_whole(first: int, count: int) -> None:
    plan, samples = replace(PLAN, steps=30), texts(count)
    assert list(steps_from(samples, plan, first)) == list(steps_from(samples, plan, 0))[first:]


def test_an_epoch_follows_the_other() -> None:
    samples, plan = texts(10), replace(PLAN, batch=5, steps=4)
    found = [indices for _, indices in steps_from(samples, plan, 0)]
    assert found == [*batch_plan(samples, plan, 0), *batch_plan(samples, plan, 1)]


def test_smaller_batches_that_are_accumulated_see_what_larger_ones_see() -> None:
    samples = texts(300)
    small = replace(PLAN, batch=4, accumulate=2)
    large = replace(PLAN, batch=8, accumulate=1)
    assert batch_plan(samples, small, 0) == batch_plan(samples, large, 0)


@given(count=st.integers(1, 40), batch=st.integers(1, 12))
def test_micro_batches_are_the_step_in_order_and_of_like_size(count: int, batch: int) -> None:
    parts = micro_batches(range(count), replace(PLAN, batch=batch))
    sizes = [len(part) for part in parts]
    assert [index for part in parts for index in part] == list(range(count))
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1


@given(
    steps=st.integers(1, 400),
    warm_up=st.floats(0, 1),
    decay=st.sampled_from(["linear", "cosine"]),
)
def test_the_learning_rate_rises_to_its_largest_once_and_falls_to_nothing(
    steps: int, warm_up: float, decay: str
) -> None:
    plan = replace(PLAN, steps=steps, warm_up=warm_up, decay=decay, learning_rate=0.5)  # type: ignore[arg-type]
    rates = [learning_rate(plan, step) for step in range(steps + 1)]
    top = rates.index(max(rates))
    assert rates[top] == 0.5
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert min(rates[:-1]) > 0
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert top == min(round(warm_up * steps), steps - 1)


def test_linear_and_cosine_are_at_half_in_the_middle() -> None:
    plan = replace(PLAN, steps=100, warm_up=0.0, learning_rate=1.0)
    assert learning_rate(plan, 50) == pytest.approx(0.5)
    assert learning_rate(replace(plan, decay="cosine"), 50) == pytest.approx(0.5)
    assert learning_rate(replace(plan, decay="cosine"), 25) > learning_rate(plan, 25)


def test_the_average_is_short_at_first_and_as_long_as_asked_in_the_end() -> None:
    plan = replace(PLAN, ema=0.99)
    kept = [averaging(plan, step) for step in range(1, 2000)]
    assert kept[0] < 0.2
    assert kept == sorted(kept)
    assert kept[-1] == 0.99


def test_evaluations_and_checkpoints_come_when_asked_and_at_the_end() -> None:
    assert [step for step in range(13) if PLAN.evaluates_after(step)] == [0, 4, 8, 12]
    assert [step for step in range(13) if PLAN.saves_after(step)] == [0, 5, 10, 12]
    never = replace(PLAN, evaluate_every=0, checkpoint_every=0)
    assert [step for step in range(13) if never.evaluates_after(step)] == [0, 12]
    assert [step for step in range(13) if never.saves_after(step)] == [12]
