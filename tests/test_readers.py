"""Every format is read as its writer meant it, and every damage is named."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.errors import DataError
from edgekit.readers import Sample, kind_of, read_rows, read_samples
from edgekit.recipe import DataOptions


def options(path: Path, **more) -> DataOptions:
    return DataOptions(data=str(path), **more)


def read(path: Path, **more) -> list[Sample]:
    return list(read_samples(options(path, **more)))


def values(path: Path, **more) -> list:
    return [sample.value for sample in read(path, **more)]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_text_file_gives_one_sample_per_line_that_is_not_empty(tmp_path):
    path = write(tmp_path / "a.txt", "\ufefffirst\r\n\n  \n second  \nthird")
    assert values(path) == ["first", "second", "third"]
    assert list(read_rows(options(path))).count(None) == 2


def test_a_file_is_read_while_it_is_consumed_and_not_before(tmp_path):
    path = write(tmp_path / "a.txt", b"good\n\xff\xfe bad\n")
    rows = read_samples(options(path))
    assert next(rows).value == "good"
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        next(rows)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("name", ["text", "sentence", "review"])
def test_the_text_column_is_found_by_its_usual_name_or_by_being_the_only_text(tmp_path, suffix, name):
    lines = {
        ".jsonl": json.dumps({"stars": 4, name: "fine, thanks"}),
        ".csv": f'stars,{name}\n4,"fine, thanks"',
    }
    assert values(write(tmp_path / f"a{suffix}", lines[suffix])) == ["fine, thanks"]


def test_a_csv_field_may_span_lines(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"two\nlines",pos\nplain,neg\n')
    assert read(path, label_column="label") == [Sample("two\nlines", "pos"), Sample("plain", "neg")]


def test_a_json_line_may_hold_words_with_a_label_for_each(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"words": ["Ada", "slept"], "tags": ["PER", "O"]}\n{"words": []}\n')
    with pytest.raises(DataError, match="line 2: no column 'tags'"):
        read(path, column="words", label_column="tags")
    assert read(path, column="words")[0].value == ["Ada", "slept"]
    assert list(read_rows(options(path, column="words")))[1] is None


def test_an_npz_gives_its_rows_by_name_with_the_labels_apart(tmp_path):
    images = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    np.savez(tmp_path / "a.npz", x=np.asfortranarray(images), y=images.astype(">f4"), labels=np.arange(4))
    samples = read(tmp_path / "a.npz")
    assert [sample.label for sample in samples] == [0, 1, 2, 3]
    for index, sample in enumerate(samples):
        assert sample.value["x"].dtype == sample.value["y"].dtype == np.dtype("float32")
        np.testing.assert_array_equal(sample.value["x"], images[index])
        np.testing.assert_array_equal(sample.value["y"], images[index])


def test_a_compressed_npz_with_named_string_labels_is_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.eye(2), kind=np.array(["cat", "dog"]))
    assert [s.label for s in read(tmp_path / "a.npz", label_column="kind")] == ["cat", "dog"]


def test_images_come_sorted_and_hidden_files_are_left_out(tmp_path):
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.md"):
        write(tmp_path / name, b"x")
    samples = read(tmp_path)
    assert [(s.value.name, s.label) for s in samples] == [("a.JPG", None), ("b.png", None)]
    assert kind_of(samples[0].value) == "image"


def test_sub_folders_label_their_images(tmp_path):
    for name in ("dog/1.png", "cat/deep/2.webp", "cat/1.bmp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(path)
    assert [(s.value.name, s.label) for s in read(tmp_path)] == [
        ("1.bmp", "cat"),
        ("2.webp", "cat"),
        ("1.png", "dog"),
    ]


def test_images_inside_and_beside_sub_folders_are_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    write(tmp_path / "cat" / "1.png", b"x")
    write(tmp_path / "2.png", b"x")
    with pytest.raises(DataError, match="both directly and in sub-folders"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "more", "message"),
    [
        ("a.parquet", "x", {}, "extension '.parquet' is unknown"),
        ("a.txt", "x", {"column": "text"}, "column = 'text' means nothing"),
        ("a.npz", "x", {}, "not a readable .npz"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', {}, "line 2: not JSON"),
        ("a.jsonl", "[" * 100_000, {}, "line 1: not JSON"),
        ("a.jsonl", '["text"]', {}, "line 1: not a JSON object"),
        ("a.jsonl", '{"text": 3}', {}, "line 1: 'text' is neither a text nor a list of words"),
        ("a.jsonl", r'{"text": "\ud800"}', {}, "surrogate"),
        ("a.jsonl", '{"body": "a"}', {"column": "bodi"}, "no column 'bodi'(.|\n)*Did you mean 'body'"),
        ("a.jsonl", '{"a": "x", "b": "y"}', {}, "2 columns could hold the samples(.|\n)*Known: a, b"),
        ("a.jsonl", '{"text": "a"}\n{"txt": "b"}', {}, "line 2: no column 'text'"),
        ("a.csv", "text,label\na\n", {}, "line 2: 1 fields, but the header has 2"),
        ("a.csv", 'text\n"open\n', {}, "malformed CSV"),
        ("a.csv", "text;label\na;b\n", {}, "not separated by commas"),
        ("a.csv", "text,text\na,b\n", {}, "must name every column once"),
        ("a.csv", "text,stars\na,5\n", {"label_column": "star"}, "Did you mean 'stars'"),
        ("a.csv", "x" * 200_000, {}, "field larger than field limit"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, more, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / name, content), **more)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.array([{}, 1], object)}, "Python objects, which need pickle"),
        ({"x": np.eye(3), "y": np.eye(2)}, "differ in their number of samples"),
        ({"x": np.array([[1.0, np.nan]])}, "array 'x' holds NaN or infinity"),
        ({"x": np.array([[np.inf]])}, "NaN or infinity"),
        ({"x": np.float32(1)}, "axis 0 must count the samples"),
        ({"x": np.zeros((2, 0))}, "no other may be empty"),
        ({"x": np.array(["a"])}, "not numbers"),
        ({"x": np.array([1j])}, "complex128, not numbers"),
        ({"labels": np.arange(2)}, "labels but no inputs"),
    ],
)
def test_arrays_that_are_no_samples_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.npz")


def test_a_truncated_npz_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(100, 10)))
    content = (tmp_path / "a.npz").read_bytes()
    with pytest.raises(DataError, match=r"not a readable \.npz"):
        read(write(tmp_path / "b.npz", content[: len(content) // 2]))


def test_a_label_array_that_is_absent_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.eye(2), target=np.arange(2))
    with pytest.raises(DataError, match=r"no array 'targets'(.|\n)*Did you mean 'target'"):
        read(tmp_path / "a.npz", label_column="targets")


def test_data_that_is_missing_or_was_never_named_is_refused(tmp_path):
    with pytest.raises(DataError, match="data not found"):
        read_samples(options(tmp_path / "nothing.txt"))
    with pytest.raises(DataError, match="data not found"):
        read_samples(options(tmp_path / ("long" * 200 + ".txt")))
    with pytest.raises(DataError, match="no data was given"):
        read_samples(DataOptions())
    with pytest.raises(DataError, match="holds no images"):
        read(tmp_path)


def test_an_npz_larger_than_the_memory_it_takes_is_read_row_by_row(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((400, 10_000)))
    tracemalloc.start()
    assert sum(float(sample.value["x"][0]) for sample in read_samples(options(tmp_path / "a.npz"))) == 400
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000 < (tmp_path / "a.npz").stat().st_size
