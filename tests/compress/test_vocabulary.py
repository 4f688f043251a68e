"""A trimmed vocabulary: what stays is as it was, and what went is what the corpus does not need."""

from __future__ import annotations

import json
import string
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from edgekit.compress.base import Data
from edgekit.compress.token_choice import choose, count_tokens
from edgekit.compress.tokenizer_files import Vocabulary
from edgekit.compress.vocabulary import trim_vocabulary
from edgekit.compression import VocabularyOptions
from edgekit.data import Sample
from edgekit.errors import DataError, ModelError, RecipeError
from edgekit.model import ModelRef, TorchModel
from edgekit.source import load

ENGLISH = (
    "the cat sat on the mat and the other cats were sitting there too",
    "nothing is better than a warm bed on a cold and windy winter night",
    "she sells sea shells by the sea shore where the shells are found",
    "peter piper picked a peck of pickled peppers for the picnic party",
    "how much wood would a woodchuck chuck if a woodchuck could chuck wood",
    "the weather turned; however, nobody wondered whether winter was over",
)
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
SENTENCE = st.lists(
    st.text(string.ascii_lowercase, min_size=1, max_size=9) | st.sampled_from(" ".join(ENGLISH).split()),
    min_size=1,
    max_size=12,
).map(" ".join)


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return trained(tokenizer, trainers.WordPieceTrainer, continuing_subword_prefix="##")


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return trained(tokenizer, trainers.BpeTrainer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def plain_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return trained(tokenizer, trainers.BpeTrainer, end_of_word_suffix="</w>")


def prefixed_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="@@"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return trained(tokenizer, trainers.BpeTrainer, continuing_subword_prefix="@@")


def many_paths_bpe() -> Tokenizer:
    """All pairs that make a piece are merges, as in SentencePiece's; bytes stand for what has no piece."""
    old = json.loads(plain_bpe().to_str())["model"]
    pieces = {token.removesuffix("</w>") for token in old["vocab"]} - set(SPECIAL)
    tokens = [
        *SPECIAL,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *sorted(pieces, key=lambda p: (len(p), p)),
    ]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = [
        (piece[:at], piece[at:])
        for piece in tokens[4 + 256 :]
        for at in range(1, len(piece))
        if piece[:at] in vocabulary and piece[at:] in vocabulary
    ]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(SPECIAL)
    return around(tokenizer)


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return trained(tokenizer, trainers.UnigramTrainer, unk_token="<unk>")


def trained(tokenizer: Tokenizer, trainer: Any, **options: Any) -> Tokenizer:
    tokenizer.train_from_iterator(
        ENGLISH * 8, trainer(vocab_size=420, special_tokens=SPECIAL, show_progress=False, **options)
    )
    tokenizer.add_tokens(["<extra>"])
    return around(tokenizer)


def around(tokenizer: Tokenizer) -> Tokenizer:
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("<pad>"), pad_token="<pad>")
    return tokenizer


KINDS = {
    "WordPiece": word_piece,
    "byte-level BPE": byte_level,
    "BPE with ends of words": plain_bpe,
    "BPE with marks inside words": prefixed_bpe,
    "BPE with many ways to a piece": many_paths_bpe,
    "Unigram": unigram,
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    tokenizer = KINDS[request.param]()
    tokenizer.no_padding()
    path = tmp_path_factory.mktemp("kind") / "tokenizer.json"
    around(tokenizer).save(str(path))
    tokenizer.no_padding()
    vocabulary = Vocabulary.read(path)
    required = dict.fromkeys(vocabulary.characters | vocabulary.special, "needed")
    return SimpleNamespace(tokenizer=tokenizer, vocabulary=vocabulary, required=required, folder=path.parent)


def trimmed(kind: SimpleNamespace, texts: list[str], extra: int) -> tuple[Tokenizer, dict[int, int]]:
    """Keep what must stay, the tokens of some texts, and `extra` more."""
    counts = count_tokens(kind.tokenizer, texts)
    closed = {each for index in np.flatnonzero(counts) for each in kind.vocabulary.ancestors(int(index))}
    size = len(closed | kind.required.keys()) + extra
    options = VocabularyOptions(tokens=min(size, len(kind.vocabulary.tokens)))
    kept = choose(kind.vocabulary, kind.required, counts, options, 0)
    document, new_ids = kind.vocabulary.trimmed(kept)
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.no_padding()
    return tokenizer, new_ids


class TestATrimmedTokenizer:
    @settings(max_examples=25)
    @given(texts=st.lists(SENTENCE, min_size=1, max_size=4), extra=st.integers(0, 60))
    def test_cuts_texts_as_before_where_all_their_pieces_stay(self, kind, texts, extra) -> None:
        tokenizer, new_ids = trimmed(kind, texts, extra)
        for text in texts:
            old, new = kind.tokenizer.encode(text), tokenizer.encode(text)
            assert new.tokens == old.tokens
            assert new.ids == [new_ids[index] for index in old.ids]

    @settings(max_examples=25)
    @given(text=SENTENCE, kept=SENTENCE)
    def test_spells_any_other_text_without_unknown_tokens(self, kind, text, kept) -> None:
        tokenizer, _ = trimmed(kind, [kept], 0)
        if "<unk>" not in kind.tokenizer.encode(text).tokens:
            assert "<unk>" not in tokenizer.encode(text).tokens

    @settings(max_examples=25)
    @given(text=SENTENCE, kept=SENTENCE)
    def test_decodes_to_the_same_letters(self, kind, text, kept) -> None:
        tokenizer, _ = trimmed(kind, [kept], 0)
        old = kind.tokenizer.decode(kind.tokenizer.encode(text).ids)
        new = tokenizer.decode(tokenizer.encode(text).ids)
        strip = str.maketrans("", "", " #@" if kind.tokenizer.decoder is None else "")
        assert new.replace("</w>", "").translate(strip) == old.replace("</w>", "").translate(strip)

    def test_numbers_its_tokens_without_gaps_in_the_old_order(self, kind) -> None:
        tokenizer, new_ids = trimmed(kind, [ENGLISH[0]], 0)
        assert sorted(new_ids.values()) == list(range(len(new_ids)))
        assert len(new_ids) < len(kind.vocabulary.tokens)
        assert list(new_ids) == sorted(new_ids)
        assert tokenizer.get_vocab() == {kind.vocabulary.tokens[old]: new for old, new in new_ids.items()}

    def test_keeps_added_tokens_and_what_it_puts_around_texts(self, kind) -> None:
        tokenizer, _ = trimmed(kind, [ENGLISH[1]], 0)
        tokens = tokenizer.encode(f"{ENGLISH[1]}<extra>").tokens
        assert (tokens[0], tokens[-1]) == ("<s>", "</s>")
        if "<extra>" in kind.vocabulary.added:
            assert tokens[-2] == "<extra>"

    def test_pads_with_the_padding_token(self, kind) -> None:
        _, new_ids = trimmed(kind, [ENGLISH[1]], 0)
        document, _ = kind.vocabulary.trimmed(new_ids)
        rows = Tokenizer.from_str(json.dumps(document)).encode_batch(["the cat", "the cat sat on"])
        assert rows[0].tokens[-1] == "<pad>"


def test_bpe_merges_may_be_strings(tmp_path: Path) -> None:
    document = json.loads(plain_bpe().to_str())
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    vocabulary = Vocabulary.read(tmp_path / "tokenizer.json")
    wood = vocabulary.own["wood</w>"]
    content, _ = vocabulary.trimmed(vocabulary.special | vocabulary.characters | vocabulary.ancestors(wood))
    assert 0 < len(content["model"]["merges"]) < len(document["model"]["merges"])
    assert all(isinstance(merge, str) for merge in content["model"]["merges"])
    assert Tokenizer.from_str(json.dumps(content)).encode("wood").tokens == ["<s>", "wood</w>", "</s>"]


@pytest.mark.parametrize("processor", [processors.BertProcessing, processors.RobertaProcessing])
def test_older_forms_of_what_is_put_around_texts_are_renumbered(processor, tmp_path: Path) -> None:
    tokenizer = word_piece()
    tokenizer.post_processor = processors.Sequence(
        [processor(*[(token, tokenizer.token_to_id(token)) for token in ("<extra>", "<s>")])]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = Vocabulary.read(tmp_path / "tokenizer.json")
    content, new_ids = vocabulary.trimmed(vocabulary.special | vocabulary.characters)
    trimmed = Tokenizer.from_str(json.dumps(content))
    assert trimmed.encode("a").tokens == ["<s>", "a", "<extra>"]
    assert trimmed.encode("a").ids[2] == new_ids[vocabulary.added["<extra>"]] < vocabulary.added["<extra>"]


def test_unigram_scores_and_the_penalty_of_unknown_characters_stay(tmp_path: Path) -> None:
    unigram().save(str(tmp_path / "tokenizer.json"))
    vocabulary = Vocabulary.read(tmp_path / "tokenizer.json")
    content, new_ids = vocabulary.trimmed(vocabulary.special | vocabulary.characters)
    old = dict(vocabulary.document["model"]["vocab"])
    assert all(old[piece] == score for piece, score in content["model"]["vocab"])
    assert min(old.values()) == min(score for _, score in content["model"]["vocab"])
    assert content["model"]["vocab"][content["model"]["unk_id"]][0] == "<unk>"
    assert new_ids[vocabulary.unknown] == content["model"]["unk_id"]


def test_a_token_that_characters_cannot_stand_for_comes_first(tmp_path: Path) -> None:
    pieces = ["<unk>", "a", "##a", "aa", "qq", "aaa"]  # no q
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = Vocabulary.read(tmp_path / "tokenizer.json")
    required = dict.fromkeys(vocabulary.characters | vocabulary.special, "needed")
    counts = np.array([0, 0, 0, 99, 1, 50])
    kept = choose(vocabulary, required, counts, VocabularyOptions(tokens=5), 0)
    assert [vocabulary.tokens[index] for index in sorted(kept)] == ["<unk>", "a", "##a", "aa", "qq"]


# -- whole models --------------------------------------------------------------------------------------


def save_model(folder: Path, tokenizer: Tokenizer, class_name: str, config: dict[str, Any]) -> Path:
    import transformers

    from benchmarks import tiny

    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=32,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    cls = getattr(transformers, class_name)
    torch.manual_seed(0)
    settings = cls.config_class(
        **{"vocab_size": tokenizer.get_vocab_size(), "initializer_range": 0.3, **config}
    )
    tiny.roughen(cls(settings)).save_pretrained(folder)
    return folder


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join(ENGLISH[:2] * 4) + "\n")
    return str(path)


def data_for(folder: Path, fit: tuple[str, ...] = ENGLISH[2:]) -> Data:
    return Data(tuple(Sample(text) for text in fit), None, folder)  # nothing here judges


def loaded(folder: Path, scratch: Path, task: str | None = None) -> TorchModel:
    scratch.mkdir(exist_ok=True)
    return load(ModelRef(str(folder)), task, scratch=scratch)


def output(model: TorchModel, text: str) -> torch.Tensor:
    inputs = model.preprocessor.batch([Sample(text)])
    with torch.no_grad():
        return next(
            iter(model.module(**{k: torch.from_numpy(inputs[k]) for k in model.input_names}).values())
        )


class TestATrimmedModel:
    @pytest.fixture(scope="class")
    def pair(self, tiny_bert_dir: Path, tmp_path_factory, corpus: str) -> tuple[TorchModel, TorchModel]:
        scratch = tmp_path_factory.mktemp("scratch")
        model = loaded(tiny_bert_dir, scratch)
        return model, trim_vocabulary(model, VocabularyOptions(tokens=130, data=corpus), data_for(scratch))

    def test_has_the_embeddings_of_kept_tokens_bit_for_bit(self, pair) -> None:
        old, new = (model.module.model.get_input_embeddings() for model in pair)
        vocabularies = [model.preprocessor.tokenizer.get_vocab() for model in pair]
        assert len(vocabularies[1]) == new.num_embeddings == len(new.weight) == 130
        for token, index in vocabularies[1].items():
            assert torch.equal(new.weight[index], old.weight[vocabularies[0][token]])

    def test_gives_the_same_outputs_for_texts_whose_pieces_stay(self, pair) -> None:
        assert torch.equal(output(pair[1], ENGLISH[0]), output(pair[0], ENGLISH[0]))

    def test_leaves_the_model_that_it_came_from_as_it_was(self, pair, tiny_bert_dir, tmp_path) -> None:
        again = loaded(tiny_bert_dir, tmp_path)
        assert torch.equal(output(pair[0], ENGLISH[2]), output(again, ENGLISH[2]))
        assert pair[0].module.model.config.vocab_size == again.module.model.config.vocab_size

    def test_traces_with_tokens_that_it_has(self, pair) -> None:
        ids = pair[1].example_inputs["input_ids"]
        assert ids.shape == pair[0].example_inputs["input_ids"].shape
        assert ids.max() < 130

    def test_says_its_size_in_every_file(self, pair) -> None:
        assert pair[1].config["vocab_size"] == pair[1].module.model.config.vocab_size == 130
        files = {file.name: file for file in pair[1].files}
        assert json.loads(files["config.json"].read_text())["vocab_size"] == 130
        assert len(json.loads(files["tokenizer.json"].read_text())["model"]["vocab"]) == 130
        assert [file.name for file in pair[0].files] == [file.name for file in pair[1].files]

    def test_tells_what_stayed_and_what_it_costs(self, pair) -> None:
        facts = pair[1].history[-1].facts
        assert sum(facts["kept"].values()) == facts["tokens_after"] == 130
        assert facts["corpus"]["coverage"] == 1
        assert facts["corpus"]["tokens_per_word_after"] == facts["corpus"]["tokens_per_word_before"]
        assert facts["data"]["coverage"] < 1
        assert facts["data"]["tokens_per_word_after"] > facts["data"]["tokens_per_word_before"]
        assert facts["parameters_before"] - facts["parameters_after"] == (facts["tokens_before"] - 130) * 32

    def test_loads_in_transformers_with_the_same_tokens(self, pair, tmp_path) -> None:
        import shutil

        import transformers

        for file in pair[1].files:
            shutil.copy(file, tmp_path)
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
        for text in ENGLISH:
            assert tokenizer(text)["input_ids"] == pair[1].preprocessor.tokenizer.encode(text).ids
        assert tokenizer.pad_token_id == pair[1].preprocessor.padding.id

    def test_is_better_than_one_with_random_tokens(self, pair, corpus, tmp_path) -> None:
        options = VocabularyOptions(tokens=130, data=corpus, choose="random")
        control = trim_vocabulary(pair[0], options, data_for(tmp_path))
        assert control.module.model.get_input_embeddings().num_embeddings == 130
        assert control.history[-1].facts["corpus"]["coverage"] < 0.9

    def test_the_same_request_makes_the_same_model(self, pair, corpus, tmp_path) -> None:
        again = trim_vocabulary(pair[0], VocabularyOptions(tokens=130, data=corpus), data_for(tmp_path))
        assert torch.equal(
            again.module.model.get_input_embeddings().weight,
            pair[1].module.model.get_input_embeddings().weight,
        )

    def test_by_coverage_covers_as_much_as_asked(self, pair, corpus, tmp_path) -> None:
        options = VocabularyOptions(coverage=0.8, data=corpus)
        facts = trim_vocabulary(pair[0], options, data_for(tmp_path)).history[-1].facts
        assert 0.8 <= facts["corpus"]["coverage"] < 1


class TestHeads:
    @pytest.mark.parametrize("tied", [True, False])
    def test_a_language_model_keeps_the_rows_of_its_head(self, tied, tmp_path, corpus) -> None:
        config = {**SIZES, **IDS, "num_key_value_heads": 1, "tie_word_embeddings": tied}
        folder = save_model(tmp_path / "llama", byte_level(), "LlamaForCausalLM", config)
        model = wrapped_lm(folder)
        model.module.model.generation_config.eos_token_id = [
            3,
            model.preprocessor.tokenizer.token_to_id("<extra>"),
        ]
        before = model.module.model.lm_head.weight
        new = trim_vocabulary(model, VocabularyOptions(tokens=300, data=corpus), data_for(tmp_path))
        inner = new.module.model
        assert (inner.lm_head.weight is inner.model.embed_tokens.weight) == tied
        assert inner.lm_head.out_features == inner.vocab_size == inner.model.vocab_size == 300
        old_ids = model.preprocessor.tokenizer.get_vocab()
        for token, index in new.preprocessor.tokenizer.get_vocab().items():
            assert torch.equal(inner.lm_head.weight[index], before[old_ids[token]])
        extra = new.preprocessor.tokenizer.token_to_id("<extra>")
        assert inner.generation_config.eos_token_id == [3, extra]
        assert extra == 299

    def test_a_masked_language_model_keeps_the_bias_too(self, make_bert, tmp_path, corpus) -> None:
        model = wrapped_lm(make_bert("BertForMaskedLM"))
        before = model.module.model.cls.predictions
        new = trim_vocabulary(model, VocabularyOptions(tokens=130, data=corpus), data_for(tmp_path))
        head = new.module.model.cls.predictions
        assert head.decoder.weight is new.module.model.bert.embeddings.word_embeddings.weight
        assert head.decoder.bias is head.bias
        old_ids = model.preprocessor.tokenizer.get_vocab()
        for token, index in new.preprocessor.tokenizer.get_vocab().items():
            assert head.bias[index] == before.bias[old_ids[token]]

    def test_positions_that_start_at_the_padding_token_do_not_move(self, tmp_path, corpus) -> None:
        tokenizer = byte_level()
        config = {
            **SIZES,
            "pad_token_id": 5,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "max_position_embeddings": 40,
        }
        model = wrapped_lm(save_model(tmp_path / "roberta", tokenizer, "RobertaModel", config))
        new = trim_vocabulary(model, VocabularyOptions(tokens=360, data=corpus), data_for(tmp_path))
        assert new.history[-1].facts["corpus"]["coverage"] == 1
        assert new.module.model.embeddings.padding_idx == 5
        assert torch.equal(output(new, ENGLISH[0]), output(model, ENGLISH[0]))

    def test_an_id_that_no_token_has_is_unset_and_said(self, tmp_path, corpus) -> None:
        config = {**SIZES, **IDS, "num_key_value_heads": 1, "eos_token_id": 9999}
        model = wrapped_lm(save_model(tmp_path / "llama", byte_level(), "LlamaModel", config))
        new = trim_vocabulary(model, VocabularyOptions(tokens=300, data=corpus), data_for(tmp_path))
        assert new.module.model.config.eos_token_id is None
        assert any("9999" in skip.why for skip in new.history[-1].skipped)


def wrapped_lm(folder: Path) -> TorchModel:
    """Load a model as its own class, whatever task it is for."""
    import transformers

    from edgekit.source.files import load_tokenizer, text_files
    from edgekit.source.wrap import Selected
    from edgekit.tasks.text import TextPreprocessor

    config = json.loads((folder / "config.json").read_text())
    inner = getattr(transformers, config["architectures"][0]).from_pretrained(folder).eval()
    output = "logits" if config["architectures"][0].endswith("LM") else "last_hidden_state"
    files = text_files(folder, load_tokenizer(folder), folder)
    preprocessor = TextPreprocessor.from_file(
        files[0],
        max_length=32,
        input_names=("input_ids", "attention_mask"),
        pad_token_id=config["pad_token_id"],
    )
    examples = preprocessor.batch([Sample(ENGLISH[0])])
    return TorchModel(
        Selected(inner, {output: output}, {}).eval(), "feature-extraction", tuple(examples), (output,),
        examples, {}, preprocessor, True, folder.name, files, config,
    )  # fmt: skip


class TestRefusals:
    @pytest.fixture(scope="class")
    def model(self, tiny_bert_dir: Path, tmp_path_factory) -> TorchModel:
        return loaded(tiny_bert_dir, tmp_path_factory.mktemp("scratch"))

    def test_no_corpus(self, model, tmp_path) -> None:
        with pytest.raises(RecipeError, match="needs a corpus"):
            trim_vocabulary(model, VocabularyOptions(tokens=150), data_for(tmp_path))

    def test_fewer_tokens_than_have_to_stay(self, model, tmp_path, corpus) -> None:
        with pytest.raises(RecipeError, match=r"5 special tokens and .* single characters") as error:
            trim_vocabulary(model, VocabularyOptions(tokens=20, data=corpus), data_for(tmp_path))
        least = int(error.value.hint.split()[-1].rstrip("."))
        options = VocabularyOptions(tokens=least, data=corpus)
        assert trim_vocabulary(model, options, data_for(tmp_path)).config["vocab_size"] == least

    def test_more_tokens_than_there_are(self, model, tmp_path, corpus) -> None:
        with pytest.raises(RecipeError, match="more than the"):
            trim_vocabulary(model, VocabularyOptions(tokens=99_999, data=corpus), data_for(tmp_path))

    def test_a_corpus_that_the_model_cannot_read(self, model, tmp_path) -> None:
        (tmp_path / "corpus.txt").write_text("ελληνικά\nпривет\n")
        options = VocabularyOptions(data=str(tmp_path / "corpus.txt"))
        with pytest.raises(DataError, match="no token that the model knows"):
            trim_vocabulary(model, options, data_for(tmp_path))

    def test_an_empty_or_missing_corpus(self, model, tmp_path) -> None:
        (tmp_path / "corpus.txt").write_text("\n\n")
        for name in ("corpus.txt", "nothing.txt"):
            with pytest.raises(DataError, match=name):
                trim_vocabulary(model, VocabularyOptions(data=str(tmp_path / name)), data_for(tmp_path))

    def test_a_corpus_of_numbers(self, model, tmp_path) -> None:
        np.savez(tmp_path / "corpus.npz", x=np.zeros((3, 2), np.float32))
        with pytest.raises(DataError, match="the model wants text"):
            trim_vocabulary(model, VocabularyOptions(data=str(tmp_path / "corpus.npz")), data_for(tmp_path))

    def test_a_model_of_images(self, tiny_vit_dir, tmp_path, corpus) -> None:
        model = loaded(tiny_vit_dir, tmp_path)
        with pytest.raises(ModelError, match="no text tokenizer"):
            trim_vocabulary(model, VocabularyOptions(data=corpus), data_for(tmp_path))

    def test_a_tokenizer_of_another_kind(self, tmp_path) -> None:
        (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Novel", "vocab": {}}}))
        with pytest.raises(ModelError, match="Novel tokenizer cannot be trimmed"):
            Vocabulary.read(tmp_path / "tokenizer.json")

    def test_a_damaged_tokenizer(self, tmp_path) -> None:
        (tmp_path / "tokenizer.json").write_text('{"model": 3}')
        with pytest.raises(ModelError, match="cannot read the tokenizer"):
            Vocabulary.read(tmp_path / "tokenizer.json")


def test_words_without_parts_can_be_left_out_too(tmp_path: Path) -> None:
    words = ["<unk>", "the", "cat", "sat"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = Vocabulary.read(tmp_path / "tokenizer.json")
    content, _ = vocabulary.trimmed({0, 2})
    assert Tokenizer.from_str(json.dumps(content)).encode("The cat").tokens == ["<unk>", "cat"]
