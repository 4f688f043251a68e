"""The teacher runs once over each sample, however often it is asked for, stopped, killed, or out of room."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.data import Sample
from edgekit.distill.cache import Wanted, teacher_cache
from edgekit.distill.teacher_rows import VALUES
from edgekit.errors import DataError, ModelError, StorageError
from edgekit.record import silent
from tests.compress.families import tiny_transformer
from tests.compress.samples import Arrays, samples_of
from tests.distill.teachers import (
    AsItIs,
    array_teacher,
    arrays,
    contents,
    pooled_teacher,
    text_teacher,
    texts,
)
from tests.limits import largest_file

COUNT = 600
"""Three blocks of 256 samples and the first one of 16."""

WHOLE, TOP = Wanted(), Wanted(3, 2.0)


class Described(Arrays):
    def to_json(self):
        return {"kind": "arrays"}


class Stopped(Exception):  # noqa: N818
    pass


def _stopping(at: float):
    def progress(stage: str, message: str, fraction: float | None = None) -> None:
        if fraction is not None and fraction >= at:
            raise Stopped

    return progress


def _seen(teacher) -> list[int]:
    """Return a list that gets the size of every batch that the teacher sees."""
    sizes: list[int] = []

    def note(module, args, kwargs) -> None:
        sizes.append(len(next(iter(kwargs.values()))))

    teacher.module.register_forward_pre_hook(note, with_kwargs=True)
    return sizes


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted run writes, by what is wanted."""
    folder = tmp_path_factory.mktemp("whole")
    return {w: contents(teacher_cache(text_teacher(), texts(COUNT), w, folder).folder) for w in (WHOLE, TOP)}


class TestRows:
    def test_come_in_the_order_asked_for(self, tmp_path):
        teacher, samples = pooled_teacher(), arrays(COUNT, 4)
        cache = teacher_cache(teacher, samples, WHOLE, tmp_path)
        order = [599, 0, 17, 17, 300]
        got = cache.rows(order)
        expected = teacher.module(torch.from_numpy(np.stack([samples[i].value["x"] for i in order])))
        torch.testing.assert_close(got.values, expected["embedding"], rtol=1e-3, atol=1e-3)
        assert got.values.dtype == torch.float32
        assert got.counts.tolist() == [1] * 5
        assert got.indices is None
        assert got.log_rest is None
        assert len(cache) == COUNT

    @given(order=st.lists(st.integers(0, 99), min_size=1, max_size=12))
    def test_of_several_samples_are_those_of_each_behind_each_other(self, text_cache, order):
        got = text_cache.rows(order)
        single = [text_cache.rows([index]) for index in order]
        for name in ("values", "counts", "indices", "log_rest"):
            torch.testing.assert_close(
                getattr(got, name), torch.cat([getattr(one, name) for one in single]), rtol=0, atol=0
            )
        assert got.counts.tolist() == [len(texts(100)[index].value.split()) for index in order]
        assert got.indices.dtype == got.counts.dtype == torch.int64

    @given(order=st.lists(st.integers(0, 99), min_size=1, max_size=12))
    def test_the_top_and_the_rest_sum_to_one(self, text_cache, order):
        got = text_cache.rows(order)
        total = got.values.exp().sum(dim=1) + got.log_rest.exp()
        torch.testing.assert_close(total, torch.ones(len(total)), rtol=0, atol=1e-6)

    def test_the_whole_distribution_leaves_no_rest(self, tmp_path):
        cache = teacher_cache(text_teacher(), texts(20), Wanted(99, 1.0), tmp_path)
        got = cache.rows(range(20))
        assert got.values.shape[1] == 5
        assert torch.isneginf(got.log_rest).all()
        assert torch.isfinite(got.values).all()

    @pytest.fixture(scope="class")
    def text_cache(self, tmp_path_factory):
        return teacher_cache(text_teacher(), texts(100), TOP, tmp_path_factory.mktemp("text"))


class TestAgain:
    @pytest.mark.parametrize("wanted", [WHOLE, TOP])
    def test_a_complete_cache_is_read_without_running_the_teacher(self, tmp_path, wanted):
        first = teacher_cache(text_teacher(), texts(50), wanted, tmp_path)
        teacher = text_teacher()
        seen = _seen(teacher)
        second = teacher_cache(teacher, texts(50), wanted, tmp_path)
        assert seen == []
        torch.testing.assert_close(second.rows(range(50)).values, first.rows(range(50)).values)

    @pytest.mark.parametrize("kind", ["bert", "modernbert", "vit", "llama", "gpt2"])
    def test_running_a_transformer_does_not_change_its_key(self, tmp_path, kind):
        model = tiny_transformer(kind)
        samples = samples_of(model, 20)
        teacher = replace(model, preprocessor=Described())
        first = teacher_cache(teacher, samples, WHOLE, tmp_path)
        seen = _seen(teacher)
        assert teacher_cache(teacher, samples, WHOLE, tmp_path).folder == first.folder
        assert seen == []
        single = teacher.module(
            **{n: torch.from_numpy(a) for n, a in teacher.preprocessor.batch([samples[3]]).items()}
        )
        (output,) = single.values()
        torch.testing.assert_close(first.rows([3]).values, output[0].detach(), rtol=2e-3, atol=2e-3)

    def test_also_from_a_place_where_nothing_can_be_written(self, tmp_path):
        cache = teacher_cache(pooled_teacher(), arrays(20, 4), WHOLE, tmp_path)
        (cache.folder / "lock").unlink()
        before = contents(cache.folder)
        teacher_cache(pooled_teacher(), arrays(20, 4), WHOLE, tmp_path)
        assert not (cache.folder / "lock").exists()
        assert contents(cache.folder) == before

    def test_what_changes_the_outputs_makes_a_cache_of_its_own(self, tmp_path):
        teacher, samples = text_teacher(), texts(20)
        changed = text_teacher()
        changed.module.table.weight[3, 3] += 1
        runs = [
            *((teacher, samples, WHOLE), (changed, samples, WHOLE), (teacher, samples[::-1], WHOLE)),
            *((teacher, [*samples[:-1], Sample("fox")], WHOLE), (teacher, samples, Wanted(3))),
            *((teacher, samples, Wanted(2)), (teacher, samples, Wanted(3, 2.0))),
            (teacher, samples, replace(WHOLE, precision="bf16")),
        ]
        folders = [teacher_cache(*run, tmp_path).folder for run in runs]
        assert len(set(folders)) == len(runs)
        kept = [contents(folder) for folder in folders]
        assert all(kept)
        (tmp_path / "mine.txt").write_text("keep me")
        teacher_cache(teacher, samples[:7], WHOLE, tmp_path)
        assert [contents(folder) for folder in folders] == kept
        assert (tmp_path / "mine.txt").read_text() == "keep me"

    def test_half_the_digits_of_products_move_the_outputs_by_as_much_and_no_more(self, tmp_path):
        exact, rounded = (
            teacher_cache(pooled_teacher(), arrays(20, 4), Wanted(precision=precision), tmp_path).rows(
                range(20)
            )
            for precision in ("fp32", "bf16")
        )
        off = (rounded.values - exact.values).abs().max() / exact.values.abs().max()
        assert 1e-5 < off < 2**-6

    def test_labels_and_a_temperature_that_nothing_uses_make_none(self, tmp_path):
        teacher, samples = text_teacher(), texts(20)
        first = teacher_cache(teacher, samples, WHOLE, tmp_path)
        labelled = [replace(sample, label=1) for sample in samples]
        assert teacher_cache(teacher, labelled, Wanted(None, 4.0), tmp_path).folder == first.folder

    def test_processes_that_want_the_same_run_the_teacher_once(self, tmp_path):
        teacher, said, entered = text_teacher(), [], threading.Event()
        seen = _seen(teacher)
        waiting = threading.Event()

        def first(stage, message, fraction=None):
            entered.set()
            assert waiting.wait(20)

        def second(stage, message, fraction=None):
            said.append(message)
            waiting.set()

        def run(progress):
            return teacher_cache(teacher, texts(100), WHOLE, tmp_path, progress)

        thread = threading.Thread(target=run, args=(first,))
        thread.start()
        assert entered.wait(20)
        cache = run(second)
        thread.join(20)
        assert said == ["waiting for another process that makes the same teacher outputs"]
        assert sum(seen) == len(cache) == 100


class TestShared:
    """600 samples by three processes: 200 each."""

    @staticmethod
    def _make(folder, wanted, rank, processes=3, progress=silent, teacher=None):
        """Return the folder of the cache and how many samples this process ran the teacher over."""
        teacher = teacher or text_teacher()
        seen = _seen(teacher)
        samples = texts(COUNT)
        cache = teacher_cache(teacher, samples, wanted, folder, progress, rank=rank, processes=processes)
        assert len(cache) == COUNT
        return cache.folder, sum(seen)

    @pytest.mark.parametrize("wanted", [WHOLE, TOP])
    def test_each_process_runs_the_teacher_over_its_part(self, tmp_path, whole, wanted):
        together = threading.Barrier(3)

        def progress(stage, message, fraction=None):
            if fraction is not None and fraction < 0.1:  # the first batch of each one's own part
                together.wait(20)

        def make(rank_and_teacher):
            rank, teacher = rank_and_teacher
            return self._make(tmp_path, wanted, rank, progress=progress, teacher=teacher)

        # made one by one: their weights come from torch's one seed
        teachers = [text_teacher() for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            made = list(pool.map(make, enumerate(teachers)))
        (folder,) = {folder for folder, _ in made}
        assert [count for _, count in made] == [200, 200, 200]
        assert contents(folder) == whole[wanted]
        assert not any(path.is_dir() for path in folder.iterdir())

    def test_the_parts_of_processes_that_are_gone_are_made_too(self, tmp_path, whole):
        folder, count = self._make(tmp_path, TOP, 1)
        assert count == COUNT
        assert contents(folder) == whole[TOP]

    @pytest.mark.parametrize(
        ("rank", "processes", "count"), [(2, 3, 600 - 16), (0, 3, 600 - 16), (0, 1, 600)]
    )
    def test_a_part_that_was_begun_goes_on_and_one_of_another_division_goes(
        self, tmp_path, whole, rank, processes, count
    ):
        with pytest.raises(Stopped):
            self._make(tmp_path, TOP, 2, progress=_stopping(0.01))
        folder, made = self._make(tmp_path, TOP, rank, processes)
        assert made == count
        assert contents(folder) == whole[TOP]
        assert not any(path.is_dir() for path in folder.iterdir())

    def test_what_one_process_began_is_not_made_again(self, tmp_path, whole):
        with pytest.raises(Stopped):
            self._make(tmp_path, TOP, 0, 1, _stopping(0.3))
        folder, made = self._make(tmp_path, TOP, 2)
        assert made == 600 - 200  # 272 were there: the first part, and 72 of the second
        assert contents(folder) == whole[TOP]

    def test_a_sample_that_cannot_be_used_is_named_by_its_place_among_all(self, tmp_path):
        samples = arrays(300, 3)
        samples[290].value["x"][0] = 99
        teacher = array_teacher(AsItIs(np.nan), 3)
        with pytest.raises(ModelError, match="sample 290"):
            teacher_cache(teacher, samples, WHOLE, tmp_path, rank=2, processes=3)

    def test_more_processes_than_samples_share_what_there_is(self, tmp_path):
        cache = teacher_cache(text_teacher(), texts(2), WHOLE, tmp_path, rank=0, processes=5)
        assert len(cache) == 2


class TestInterrupted:
    @pytest.mark.parametrize("wanted", [WHOLE, TOP])
    @pytest.mark.parametrize("at", [0.01, 0.3, 0.7, 1.0])
    def test_a_run_goes_on_where_it_was_stopped_and_ends_with_the_same_bytes(
        self, tmp_path, whole, wanted, at
    ):
        with pytest.raises(Stopped):
            teacher_cache(text_teacher(), texts(COUNT), wanted, tmp_path, _stopping(at))
        teacher = text_teacher()
        seen = _seen(teacher)
        cache = teacher_cache(teacher, texts(COUNT), wanted, tmp_path)
        assert contents(cache.folder) == whole[wanted]
        assert sum(seen) == COUNT - {0.01: 16, 0.3: 272, 0.7: 528, 1.0: 600}[at]

    @pytest.mark.parametrize("call", [0, 5, 30])
    def test_so_does_one_that_was_killed(self, tmp_path, whole, call):
        result = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path), str(call)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == -signal.SIGKILL, result.stderr
        cache = teacher_cache(text_teacher(), texts(COUNT), TOP, tmp_path)
        assert contents(cache.folder) == whole[TOP]

    def test_so_does_one_that_was_killed_while_it_wrote(self, tmp_path, whole):
        with pytest.raises(Stopped):
            teacher_cache(text_teacher(), texts(COUNT), TOP, tmp_path, _stopping(0.3))
        (place,) = tmp_path.iterdir()
        for name, junk in {"values.f16": b"\0" * 1001, "counts.i32": b"\1\0"}.items():
            with (place / name).open("ab") as file:
                file.write(junk)
        assert contents(teacher_cache(text_teacher(), texts(COUNT), TOP, tmp_path).folder) == whole[TOP]

    @pytest.mark.parametrize("done", [0.3, 1.0])
    def test_a_damaged_cache_is_made_again_and_says_so(self, tmp_path, whole, done):
        with pytest.raises(Stopped):
            teacher_cache(text_teacher(), texts(COUNT), TOP, tmp_path, _stopping(done))
        (place,) = tmp_path.iterdir()
        os.truncate(place / VALUES, (place / VALUES).stat().st_size - 2)
        teacher, said = text_teacher(), []
        seen = _seen(teacher)
        cache = teacher_cache(
            teacher, texts(COUNT), TOP, tmp_path, lambda stage, message, _=None: said.append(message)
        )
        assert said[0] == f"the teacher outputs in {place} are damaged and are made again"
        assert sum(seen) == COUNT
        assert contents(cache.folder) == whole[TOP]

    def test_an_output_that_is_not_finite_leaves_the_blocks_before_it(self, tmp_path):
        samples = arrays(300, 3)
        samples[290].value["x"][0] = 99
        with pytest.raises(ModelError, match="sample 290"):
            teacher_cache(array_teacher(AsItIs(np.nan), 3), samples, WHOLE, tmp_path)
        (place,) = tmp_path.iterdir()
        assert (place / VALUES).stat().st_size == 272 * 3 * 2


class TestRoom:
    def test_a_full_disk_is_named_with_what_is_needed_and_keeps_what_is_done(self, tmp_path, whole):
        with largest_file(9_000), pytest.raises(StorageError) as caught:
            teacher_cache(text_teacher(), texts(COUNT), TOP, tmp_path)
        (place,) = tmp_path.iterdir()
        assert re.fullmatch(
            rf"cannot write {place}.*: {os.strerror(errno.EFBIG)};"
            rf" the teacher's outputs need [\d,]+ more bytes, [\d,]+ are free in {tmp_path}",
            caught.value.message,
        )
        assert "Free space there, or give another folder with --cache" in caught.value.hint
        assert "the outputs of 16 samples are there already" in caught.value.hint
        teacher = text_teacher()
        seen = _seen(teacher)
        cache = teacher_cache(teacher, texts(COUNT), TOP, tmp_path)
        assert sum(seen) == COUNT - 16
        assert contents(cache.folder) == whole[TOP]

    def test_a_disk_without_room_for_all_is_refused_before_the_work(self, tmp_path, monkeypatch):
        needed = COUNT * (3 * 2 + 4)
        teacher = pooled_teacher()
        seen = _seen(teacher)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
        with pytest.raises(StorageError) as caught:
            teacher_cache(teacher, arrays(COUNT, 4), WHOLE, tmp_path)
        assert caught.value.message == (
            f"the disk is too full: the teacher's outputs need 6,000 more bytes, 5,999 are free in {tmp_path}"
        )
        assert sum(seen) == 16
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed))
        assert len(teacher_cache(teacher, arrays(COUNT, 4), WHOLE, tmp_path)) == COUNT

    def test_what_texts_need_is_judged_by_their_length(self, tmp_path, monkeypatch):
        """Long texts at the start would ask for too much if each were taken for as long."""
        samples = sorted(texts(COUNT), key=lambda sample: -len(sample.value))
        cache = teacher_cache(text_teacher(), samples, WHOLE, tmp_path / "first")
        needed = sum(path.stat().st_size for path in cache.folder.glob("*.[fi]*"))
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed * 1.25))
        teacher_cache(text_teacher(), samples, WHOLE, tmp_path / "second")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed * 0.75))
        with pytest.raises(StorageError, match="the disk is too full"):
            teacher_cache(text_teacher(), samples, WHOLE, tmp_path / "third")

    def test_a_place_that_is_a_file_is_a_storage_error(self, tmp_path):
        (tmp_path / "cache").write_text("mine")
        with pytest.raises(StorageError) as caught:
            teacher_cache(pooled_teacher(), arrays(20, 4), WHOLE, tmp_path / "cache")
        assert "cannot write" in caught.value.message
        assert caught.value.hint == "Give another folder with --cache."

    @pytest.mark.parametrize(
        ("limit_bytes", "stops"),
        [(1, [16, 32, 48, 64, 80, 96, 100]), (50 * 204, [16, 64, 100]), (1 << 28, [16, 100])],
    )
    def test_a_block_holds_no_more_than_the_memory_for_it(self, tmp_path, monkeypatch, limit_bytes, stops):
        monkeypatch.setattr("edgekit.distill.cache._BLOCK_BYTES", limit_bytes)
        said = []
        wide = array_teacher(AsItIs(), 100)  # 204 bytes a sample
        teacher_cache(
            wide, arrays(100, 100), WHOLE, tmp_path, lambda *told: said.append(round(told[2] * 100))
        )
        assert said == stops


def test_progress_tells_samples_and_rate_after_every_block(tmp_path) -> None:
    said = []
    teacher_cache(
        pooled_teacher(), arrays(COUNT, 4), WHOLE, tmp_path, lambda *arguments: said.append(arguments)
    )
    assert [round(fraction * COUNT) for _, _, fraction in said] == [16, 272, 528, 600]
    assert {stage for stage, _, _ in said} == {"distill"}
    assert re.fullmatch(r"teacher outputs: 272 of 600 samples, \d+ per second", said[1][1])


def test_no_samples_are_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="no samples"):
        teacher_cache(pooled_teacher(), [], WHOLE, tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from edgekit.distill.cache import Wanted, teacher_cache
from tests.distill.teachers import text_teacher, texts

teacher, calls = text_teacher(), []

def kill(module, args, kwargs):
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(1)

teacher.module.register_forward_pre_hook(kill, with_kwargs=True)
teacher_cache(teacher, texts(600), Wanted(3, 2.0), Path(sys.argv[1]))
"""
