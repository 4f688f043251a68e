"""Latency: paired ratios with an interval, at shapes made from real inputs."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import ModelError
from edgekit.golden import Golden, GoldenBatch
from edgekit.validate import latency
from edgekit.validate.latency import bootstrap_ratio, inputs_of_shape, measure_latency, time_in_turns


class FakeInput:
    def __init__(self, name, shape):
        self.name, self.shape = name, shape


class FakeSession:
    """Stands in for a session whose run takes a known time."""

    def __init__(self, seconds, shape=("batch", "sequence")):
        self.seconds, self.shape, self.seen = seconds, shape, []

    def get_inputs(self):
        return [FakeInput("input_ids", list(self.shape))]

    def run(self, names, feed):
        self.seen.append({name: value.shape for name, value in feed.items()})
        time.sleep(self.seconds)


@pytest.fixture
def golden():
    ids = np.array([[101, 5, 6, 102, 0, 0], [101, 7, 8, 9, 10, 102]])
    mask = (ids > 0).astype(np.int64)
    batch = GoldenBatch({"input_ids": ids, "attention_mask": mask}, {"y": np.zeros((2, 1), np.float32)})
    return Golden("sentence-embedding", (batch,))


@given(st.floats(0.2, 5), st.integers(0, 100))
def test_the_interval_holds_the_ratio_and_widens_with_noise(ratio, seed):
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.9, 1.1, 60)
    calm = bootstrap_ratio(base * ratio, base * rng.uniform(0.99, 1.01, 60))
    wild = bootstrap_ratio(base * ratio, base * rng.uniform(0.6, 1.4, 60))
    assert calm[1] <= calm[0] <= calm[2]
    assert calm[0] == pytest.approx(ratio, rel=0.02)
    assert wild[2] - wild[1] > calm[2] - calm[1]


def test_the_interval_is_the_same_for_the_same_times():
    times = np.random.default_rng(0).uniform(1, 2, (2, 40))
    assert bootstrap_ratio(*times) == bootstrap_ratio(*times)


def test_the_interval_is_that_of_resampling_all_at_once_however_few_are_drawn_together(monkeypatch):
    times = np.random.default_rng(3).gamma(3, 1, (2, 40))
    whole = bootstrap_ratio(*times)
    for picks in (1, 1000):
        monkeypatch.setattr(latency, "_PICKS", picks)
        assert bootstrap_ratio(*times) == whole


def test_shapes_are_made_from_the_longest_row_without_padding(golden):
    made = inputs_of_shape(golden, batch=3, length=8)
    assert made["input_ids"].tolist() == [[101, 7, 8, 9, 10, 102, 101, 7]] * 3
    assert made["attention_mask"].min() == 1


def test_inputs_without_a_sequence_axis_keep_their_shape():
    images = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    golden = Golden(
        "image-classification", (GoldenBatch({"pixel_values": images}, {"logits": np.zeros((2, 2))}),)
    )
    assert inputs_of_shape(golden, batch=4, length=0)["pixel_values"].shape == (4, 3, 4, 4)


def test_both_sessions_run_equally_often_and_in_turns(golden):
    slow, fast = FakeSession(0.004), FakeSession(0.001)
    (point,) = measure_latency(slow, fast, golden, [(2, 4)], runs=12, threads=1)
    assert len(slow.seen) == len(fast.seen)
    assert slow.seen[0] == {"input_ids": (2, 4)}
    assert (point.shape, point.runs, point.threads) == ("2x4", 12, 1)
    assert point.verdict == "faster"
    assert point.speedup_low <= point.speedup <= point.speedup_high


def test_equal_sessions_cannot_be_told_apart(golden):
    point = measure_latency(FakeSession(0.002), FakeSession(0.002), golden, [(1, 4)], runs=30, threads=1)[0]
    assert 0.8 < point.speedup < 1.25


def test_models_without_a_sequence_are_timed_once_per_batch_size():
    images = np.zeros((2, 3, 4, 4), np.float32)
    golden = Golden(
        "image-classification", (GoldenBatch({"input_ids": images}, {"logits": np.zeros((2, 2))}),)
    )
    sessions = [FakeSession(0.0005, ("batch", 3, 4, 4)) for _ in range(2)]
    points = measure_latency(*sessions, golden, [(1, 16), (1, 128), (8, 64)], runs=10, threads=1)
    assert [point.shape for point in points] == ["1", "8"]


def test_three_models_run_in_turns_and_none_always_comes_after_the_same_one():
    order = []

    class Named(FakeSession):
        def __init__(self, name):
            super().__init__(0.0)
            self.name = name

        def run(self, names, feed):
            order.append(self.name)

    ids = {"input_ids": np.ones((1, 4), np.int64), "unused": np.ones(1)}
    found = time_in_turns({name: Named(name) for name in "abc"}, [ids] * 3, runs=24, label="1x4")
    assert {name: len(taken) for name, taken in found.items()} == dict.fromkeys("abc", 24)
    turns = np.array(order[-72:]).reshape(24, 3)
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns.tolist())
    # Of each pair of turns one goes forward and one backward, so each is before each other equally often.
    for one, other in ("ab", "bc", "ac"):
        before = [turn.index(one) < turn.index(other) for turn in turns.tolist()]
        assert sum(before) == 12


def test_a_model_that_fails_at_a_shape_is_named():
    class Broken(FakeSession):
        def run(self, names, feed):
            raise RuntimeError("no such kernel")

    sessions = {"good": FakeSession(0.0), "bad": Broken(0.0)}
    ids = {"input_ids": np.ones((1, 4), np.int64)}
    with pytest.raises(ModelError, match="the bad model fails on inputs of shape 1x4: no such kernel"):
        time_in_turns(sessions, [ids, ids], runs=1, label="1x4")
