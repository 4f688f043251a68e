"""Texts become exactly the tokens that transformers would make, in the shape that was asked for."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from edgekit.data import Sample
from edgekit.errors import DataError, ModelError
from edgekit.tasks.samples import IGNORED
from edgekit.tasks.text import TEXT_INPUTS, Padding, TextPreprocessor

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "cat",
    "sat",
    "on",
    "the",
    "mat",
    "un",
    "##like",
    "##ly",
    ",",
    ".",
]


def tokenizer_file(folder: Path, **more) -> Path:
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    if more.get("padding", True):
        tokenizer.enable_padding(length=16, pad_id=0, direction=more.get("side", "right"))
    tokenizer.enable_truncation(5)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tokenizer")


@pytest.fixture(scope="module")
def preprocessor(folder) -> TextPreprocessor:
    return TextPreprocessor.from_file(tokenizer_file(folder), max_length=8, input_names=TEXT_INPUTS)


def samples(*texts, labels=None) -> list[Sample]:
    return [Sample(text, label) for text, label in zip(texts, labels or [None] * len(texts), strict=True)]


def test_rows_are_padded_to_the_longest_of_the_batch_whatever_the_file_asks_for(preprocessor):
    batch = preprocessor.batch(samples("The cat", "a cat sat on"))
    assert tuple(batch) == TEXT_INPUTS
    assert all(array.dtype == np.int64 for array in batch.values())
    np.testing.assert_array_equal(batch["input_ids"], [[2, 8, 5, 3, 0, 0], [2, 4, 5, 6, 7, 3]])
    np.testing.assert_array_equal(batch["attention_mask"], [[1, 1, 1, 1, 0, 0], [1] * 6])
    assert not batch["token_type_ids"].any()


def test_a_long_text_loses_its_last_tokens_and_keeps_the_special_ones(preprocessor):
    ids = preprocessor.batch(samples("the cat sat on the mat on the mat"))["input_ids"]
    np.testing.assert_array_equal(ids, [[2, 8, 5, 6, 7, 8, 9, 3]])


@given(
    texts=st.lists(
        st.sampled_from(["cat", "the cat", "unlikely mat", "a , cat . sat on the mat"]), min_size=1
    ),
    length=st.integers(3, 8),
)
@settings(max_examples=40, deadline=None)
def test_a_length_gives_every_row_exactly_that_many_real_tokens(preprocessor, texts, length):
    batch = preprocessor.batch(samples(*texts), length=length)
    assert batch["input_ids"].shape == (len(texts), length)
    assert batch["attention_mask"].all()
    assert (batch["input_ids"][:, 0] == 2).all()
    assert (batch["input_ids"][:, -1] == 3).all()
    assert (batch["input_ids"][:, 1:-1] > 3).all()


def test_a_length_repeats_the_content(preprocessor):
    np.testing.assert_array_equal(
        preprocessor.batch(samples("the cat"), length=7)["input_ids"], [[2, 8, 5, 8, 5, 8, 3]]
    )


def test_inputs_come_in_the_order_of_the_graph_and_only_those_it_has(folder):
    names = ("attention_mask", "input_ids")
    made = TextPreprocessor.from_file(tokenizer_file(folder), max_length=8, input_names=names)
    assert tuple(made.batch(samples("cat"))) == names


def test_a_tokenizer_that_pads_on_the_left_still_does(tmp_path):
    path = tokenizer_file(tmp_path, side="left")
    made = TextPreprocessor.from_file(path, max_length=8, input_names=TEXT_INPUTS)
    batch = made.batch(samples("cat", "the cat"))
    np.testing.assert_array_equal(batch["input_ids"][0], [0, 2, 5, 3])
    np.testing.assert_array_equal(batch["attention_mask"][0], [0, 1, 1, 1])


def test_a_tokenizer_without_a_padding_token_takes_the_models_or_is_refused(tmp_path):
    path = tokenizer_file(tmp_path, padding=False)
    made = TextPreprocessor.from_file(path, max_length=8, input_names=TEXT_INPUTS, pad_token_id=0)
    assert made.padding == Padding(0)
    with pytest.raises(ModelError, match="has no padding token"):
        TextPreprocessor.from_file(path, max_length=8, input_names=TEXT_INPUTS)


def test_the_batches_are_those_of_transformers(folder):
    transformers = pytest.importorskip("transformers")
    path = tokenizer_file(folder)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path), pad_token="[PAD]")
    ours = TextPreprocessor.from_file(path, max_length=8, input_names=TEXT_INPUTS)
    texts = ["The cat, unlikely.", "a", "the cat sat on the mat on the mat"]
    more = {"padding": True, "truncation": True, "max_length": 8, "return_token_type_ids": True}
    expected = theirs(texts, return_tensors="np", **more)
    for name, array in ours.batch(samples(*texts)).items():
        np.testing.assert_array_equal(array, expected[name])


def test_class_labels_may_be_names_indices_or_indices_written_as_text(folder):
    made = TextPreprocessor.from_file(
        tokenizer_file(folder), max_length=8, input_names=TEXT_INPUTS, label2id={"neg": 0, "pos": 1}
    )
    batch = samples("a", "cat", "mat", labels=["pos", 0, "1"])
    labels = made.labels(batch, made.batch(batch))
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, [1, 0, 1])
    assert made.labels(samples("a", "cat", labels=["pos", None]), {}) is None
    for wrong in ("poss", 2, -1, 1.0, True):
        with pytest.raises(DataError, match="the model knows no class"):
            made.labels(samples("a", labels=[wrong]), {})


@pytest.mark.parametrize("value", ["the unlikely  cat , sat", ["the", "unlikely", "cat,", "sat"]])
def test_a_words_label_is_on_its_first_token_alone(folder, value):
    made = TextPreprocessor.from_file(
        tokenizer_file(folder),
        max_length=8,
        input_names=TEXT_INPUTS,
        label2id={"O": 0, "PER": 1, "LOC": 2},
        per_token_labels=True,
    )
    words = value if isinstance(value, list) else value.split()
    tags = ["O", "PER", "LOC", "PER", "O"][: len(words)]
    batch = [Sample(value, tags), Sample("cat", "LOC")]
    inputs = made.batch(batch)
    no = IGNORED
    # [CLS] the un ##like ##ly cat , sat|[SEP]: `cat,` is one word of two tokens, `cat ,` is two words
    comma = no if isinstance(value, list) else 1
    np.testing.assert_array_equal(inputs["input_ids"][0], [2, 8, 10, 11, 12, 5, 13, 3])
    np.testing.assert_array_equal(
        made.labels(batch, inputs), [[no, 0, 1, no, no, 2, comma, no], [no, 2, no, no, no, no, no, no]]
    )
    with pytest.raises(DataError, match="1 labels for the 2 words"):
        made.labels([Sample("the cat", ["O"])], inputs)
    with pytest.raises(DataError, match="Did you mean 'PER'"):
        made.labels([Sample("cat", ["PERS"])], inputs)


def test_words_are_found_by_character_also_where_tokens_hold_their_space(tmp_path):
    tokenizer = Tokenizer(
        models.BPE({"<pad>": 0, "a": 1, "b": 2, "Ġ": 3, "Ġb": 4, "ab": 5}, [("Ġ", "b"), ("a", "b")])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)
    tokenizer.enable_padding(pad_id=0, pad_token="<pad>")
    tokenizer.save(str(tmp_path / "t.json"))
    made = TextPreprocessor.from_file(
        tmp_path / "t.json", max_length=9, input_names=("input_ids",), per_token_labels=True
    )
    batch = [Sample("ab b aa", [7, 8, 9])]
    inputs = made.batch(batch)
    np.testing.assert_array_equal(inputs["input_ids"], [[5, 4, 3, 1, 1]])
    np.testing.assert_array_equal(made.labels(batch, inputs), [[7, 8, IGNORED, 9, IGNORED]])


def test_a_text_without_tokens_is_refused(preprocessor):
    with pytest.raises(DataError, match="a text has no tokens"):
        preprocessor.batch(samples("cat", "\u200b"))


def test_a_file_that_is_mostly_unknown_is_refused_but_a_single_unknown_text_among_others_is_not(
    preprocessor,
):
    texts = samples("кот", "cat", "mat")
    assert preprocessor.sift(texts) == (tuple(texts), ())
    assert len(preprocessor.batch(texts[:1])["input_ids"]) == 1
    with pytest.raises(DataError, match=r"2 of 3 texts have no token that the model knows, e\.g\. 'кот'"):
        preprocessor.sift(samples("cat", "кот", "на"))


def test_a_text_of_invisible_characters_is_left_out_with_a_reason(preprocessor):
    texts = samples("cat", "\u200b", "mat")
    kept, skipped = preprocessor.sift(texts)
    assert kept == (texts[0], texts[2])
    assert [(skip.what, skip.why) for skip in skipped] == [
        ("text '\\u200b'", "the tokenizer finds no token in it")
    ]
    with pytest.raises(DataError, match="2 of 3 texts have no token"):
        preprocessor.sift(samples("\u200b", "\u200d", "cat"))


def test_a_label_that_the_model_does_not_know_is_found_before_anything_is_run(preprocessor):
    labelled = replace(preprocessor, label2id={"good": 0, "bad": 1})
    with pytest.raises(DataError, match="no class 'goood'") as info:
        labelled.sift([Sample("cat", "good"), Sample("mat", "goood")])
    assert "Did you mean 'good'" in info.value.hint


def test_other_data_than_text_is_refused(preprocessor):
    with pytest.raises(DataError, match="the data is images, the model wants text"):
        preprocessor.batch([Sample(Path("a.png"))])
    with pytest.raises(DataError, match="the data is arrays, the model wants text"):
        preprocessor.batch([Sample({"x": np.eye(2)})])


def test_a_length_that_does_not_fit_is_refused(preprocessor):
    with pytest.raises(DataError, match="length 9 is more than the model's longest, 8"):
        preprocessor.batch(samples("cat"), length=9)
    with pytest.raises(DataError, match="no room"):
        preprocessor.batch(samples("cat"), length=2)


def test_a_tokenizer_that_is_missing_or_damaged_or_an_input_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no tokenizer at"):
        TextPreprocessor.from_file(tmp_path / "none.json", max_length=8, input_names=TEXT_INPUTS)
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot read the tokenizer"):
        TextPreprocessor.from_file(tmp_path / "t.json", max_length=8, input_names=TEXT_INPUTS)
    with pytest.raises(ModelError, match="'pixel_values' cannot be made from text"):
        TextPreprocessor.from_file(tmp_path / "t.json", max_length=8, input_names=("pixel_values",))


def test_the_description_says_what_an_app_needs(preprocessor):
    said = json.loads(json.dumps(preprocessor.to_json()))
    assert said["truncation"]["max_length"] == 8
    assert said["padding"]["input_ids"] == 0
    assert list(said["inputs"]) == list(TEXT_INPUTS)
