"""The split is deterministic, disjoint, bounded in memory, and refuses data that cannot calibrate."""

import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.data import MIN_HELD_OUT, MIN_ITEMS, MIN_TEXTS, data_sha256, draw, split
from edgekit.errors import DataError
from edgekit.recipe import DataOptions


def texts(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def options(path: Path, samples: int = 40) -> DataOptions:
    return DataOptions(data=str(path), samples=samples)


def contents(samples) -> list[str]:
    return [sample.value for sample in samples]


LINES = [f"sentence number {n}" for n in range(200)]


def test_the_same_file_and_seed_give_the_same_split_and_another_seed_another(tmp_path):
    path = texts(tmp_path / "a.txt", LINES)
    first = split(options(path), held_out=20, seed=1)
    assert first == split(options(path), held_out=20, seed=1)
    assert contents(first.held_out) != contents(split(options(path), held_out=20, seed=2).held_out)


def test_the_order_of_the_lines_does_not_change_the_split(tmp_path):
    shuffled = list(LINES)
    random.Random(0).shuffle(shuffled)
    one = split(options(texts(tmp_path / "a.txt", LINES)), held_out=20, seed=0)
    other = split(options(texts(tmp_path / "b.txt", shuffled)), held_out=20, seed=0)
    assert (one.calibration, one.held_out) == (other.calibration, other.held_out)
    assert one.audit.sha256 != other.audit.sha256


def test_more_calibration_samples_leave_the_held_out_ones_as_they_were(tmp_path):
    path = texts(tmp_path / "a.txt", LINES)
    few = split(options(path, 40), held_out=20, seed=0)
    many = split(options(path, 150), held_out=20, seed=0)
    assert few.held_out == many.held_out
    assert many.calibration[:40] == few.calibration


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 3), min_size=MIN_TEXTS, max_size=120),
    samples=st.integers(1, 90),
    held_out=st.integers(0, 60),
    seed=st.integers(0, 2**70),
)
def test_sides_share_no_content_and_the_audit_adds_up(tmp_path_factory, counts, samples, held_out, seed):
    lines = [f"text {n}" for n, count in enumerate(counts) for _ in range(count)]
    path = texts(tmp_path_factory.mktemp("data") / "a.txt", lines)
    result = split(options(path, samples), held_out=held_out, seed=seed)
    calibration, apart = contents(result.calibration), contents(result.held_out)
    assert len({*calibration, *apart}) == len(calibration) + len(apart)
    assert {*calibration, *apart} <= set(lines)
    assert 1 <= len(calibration) <= samples
    assert len(apart) <= held_out
    assert len(apart) >= min(held_out, MIN_HELD_OUT)
    audit = result.audit
    assert audit.read == len(lines)
    assert audit.distinct == len(counts)
    assert audit.duplicates == audit.read - audit.distinct
    assert (audit.calibration, audit.held_out) == (len(calibration), len(apart))


def test_every_line_is_about_equally_likely_to_be_chosen(tmp_path):
    path = texts(tmp_path / "a.txt", LINES)
    hits = np.zeros(len(LINES))
    for seed in range(200):
        for text in contents(split(options(path, 40), held_out=10, seed=seed).calibration):
            hits[int(text.rsplit(" ", 1)[1])] += 1
    # binomial(200, 0.2): mean 40, standard deviation 5.7; five of them is one in a million per line
    assert np.all(np.abs(hits - 40) < 5 * 5.7)


def test_a_small_file_holds_out_a_quarter_and_wastes_nothing(tmp_path):
    path = texts(tmp_path / "a.txt", LINES[:100])
    result = split(options(path, 256), held_out=128, seed=0)
    assert (len(result.calibration), len(result.held_out)) == (75, 25)
    result = split(options(path, 8), held_out=128, seed=0)
    assert (len(result.calibration), len(result.held_out)) == (8, 92)


def test_the_audit_names_the_file_without_the_way_to_it(tmp_path):
    path = texts(tmp_path / "a.txt", [*LINES, "", LINES[0]])
    audit = split(options(path), held_out=0, seed=0).audit.to_json()
    assert audit["name"] == "a.txt"
    assert str(tmp_path) not in str(audit)
    assert (audit["read"], audit["empty"], audit["duplicates"], audit["held_out"]) == (201, 1, 1, 0)
    assert audit["sha256"] == data_sha256(path)


def test_a_list_of_words_is_the_same_content_as_its_text(tmp_path):
    lines = [f'{{"text": "word {n}"}}' for n in range(40)] + [
        f'{{"text": ["word", "{n}"]}}' for n in range(40)
    ]
    assert split(options(texts(tmp_path / "a.jsonl", lines)), held_out=0, seed=0).audit.duplicates == 40


def test_arrays_with_equal_bytes_are_duplicates(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(40, dtype=np.float32)[:, None] // 2)
    audit = split(options(tmp_path / "a.npz"), held_out=4, seed=0).audit
    assert (audit.kind, audit.read, audit.distinct) == ("arrays", 40, 20)


def test_an_image_under_two_names_is_a_duplicate_and_the_digest_sees_names_and_bytes(tmp_path):
    for n in range(20):
        (tmp_path / f"{n:02}.png").write_bytes(bytes([n // 2 if n < 2 else n]))
    audit = split(options(tmp_path), held_out=4, seed=0).audit
    assert (audit.kind, audit.read, audit.duplicates) == ("image", 20, 1)
    before = data_sha256(tmp_path)
    (tmp_path / "00.png").rename(tmp_path / "99.png")
    assert data_sha256(tmp_path) != before


def test_a_draw_leaves_out_what_calibrates_and_counts_it(tmp_path):
    calibration = split(options(texts(tmp_path / "a.txt", LINES[:50])), held_out=0, seed=0).calibration
    result = draw(options(texts(tmp_path / "b.txt", LINES[:80])), seed=0, exclude=calibration)
    assert not set(contents(result.held_out)) & set(contents(calibration))
    assert (result.audit.excluded, result.audit.held_out, result.calibration) == (40, 40, ())
    with pytest.raises(
        DataError, match=rf"0 distinct texts that are not used .* needs at least {MIN_HELD_OUT}"
    ):
        draw(options(texts(tmp_path / "c.txt", contents(calibration))), seed=0, exclude=calibration)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([""], "is empty"),
        (["same"] * 500, "all 500 texts of .* are the same; calibration needs at least 32"),
        (LINES[:31], "has 31 distinct texts; calibration needs at least 32"),
        ([*LINES[:3]] * 20, "has 3 distinct texts among 60; calibration needs at least 32"),
    ],
)
def test_too_little_data_is_refused_with_what_there_is_and_what_is_needed(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        split(options(texts(tmp_path / "a.txt", lines)), held_out=8, seed=0)


def test_too_few_images_are_refused(tmp_path):
    for n in range(MIN_ITEMS - 1):
        (tmp_path / f"{n}.png").write_bytes(bytes([n]))
    with pytest.raises(DataError, match="has 15 distinct images; calibration needs at least 16"):
        split(options(tmp_path), held_out=4, seed=0)


def test_an_npz_without_samples_is_called_empty(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((0, 3)))
    with pytest.raises(DataError, match=r"(?s)is empty.*at least 16 samples"):
        split(options(tmp_path / "a.npz"), held_out=4, seed=0)


def test_a_file_of_200_000_lines_is_split_in_little_memory(tmp_path):
    path = tmp_path / "a.txt"
    with path.open("w") as file:
        for n in range(200_000):
            file.write(f"line {n % 150_000} {'x' * 100}\n")
    tracemalloc.start()
    result = split(options(path, 256), held_out=128, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.audit.distinct == 150_000
    assert path.stat().st_size > 20_000_000
    assert peak < 8_000_000
