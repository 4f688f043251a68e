"""Hugging Face directories: tasks, inputs, outputs, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgekit.data import Sample
from edgekit.errors import ModelError, RecipeError
from edgekit.model import ModelRef, TorchModel
from edgekit.source import load

Copy = Callable[[Path], Path]


def loaded(folder: Path, scratch: Path, task: str | None = None, **options: Any) -> TorchModel:
    return load(ModelRef(str(folder), **options), task, scratch=scratch)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("fixture", "task", "outputs"),
    [
        ("tiny_bert_dir", "feature-extraction", ("last_hidden_state",)),
        ("tiny_classifier_dir", "text-classification", ("logits",)),
        ("tiny_token_classifier_dir", "token-classification", ("logits",)),
        ("tiny_vit_dir", "image-classification", ("logits",)),
    ],
)
def test_the_task_follows_from_the_architecture(
    fixture: str, task: str, outputs: tuple[str, ...], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = loaded(request.getfixturevalue(fixture), tmp_path)
    assert (model.task, model.output_names) == (task, outputs)
    assert model.from_transformers
    assert not model.module.training
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}


def test_text_inputs_are_in_the_fields_order_with_dynamic_batch_and_sequence(
    tiny_bert_dir: Path, tmp_path: Path
) -> None:
    model = loaded(tiny_bert_dir, tmp_path)
    assert model.input_names == ("input_ids", "attention_mask", "token_type_ids")
    assert set(map(str, model.dynamic_axes.values())) == {"{0: 'batch', 1: 'sequence'}"}
    assert all(array.shape[0] == 2 for array in model.example_inputs.values())
    assert (model.example_inputs["attention_mask"] == 0).any(), "the traced batch has padding"


def test_images_are_dynamic_in_the_batch_alone(tiny_vit_dir: Path, tmp_path: Path) -> None:
    model = loaded(tiny_vit_dir, tmp_path)
    assert model.dynamic_axes == {"pixel_values": {0: "batch"}}
    assert model.example_inputs["pixel_values"].shape == (2, 3, 16, 16)


def test_an_output_that_the_task_does_not_use_is_left_out_and_recorded(
    tiny_bert_dir: Path, tmp_path: Path
) -> None:
    (record,) = loaded(tiny_bert_dir, tmp_path).history
    assert ("pooler_output", "the task feature-extraction does not use it") in [
        (s.what, s.why) for s in record.skipped
    ]


def test_the_module_gives_what_transformers_gives(tiny_classifier_dir: Path, tmp_path: Path) -> None:
    import transformers

    model = loaded(tiny_classifier_dir, tmp_path)
    own = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_classifier_dir).eval()
    inputs = {name: torch.from_numpy(array) for name, array in model.example_inputs.items()}
    with torch.no_grad():
        torch.testing.assert_close(model.module(**inputs)["logits"], own(**inputs).logits)


def test_the_preprocessor_makes_the_inputs_that_transformers_makes(
    tiny_bert_dir: Path, tmp_path: Path
) -> None:
    import transformers

    texts = ["the quick brown fox jumps over the lazy dog", "good movie"]
    batch = loaded(tiny_bert_dir, tmp_path).preprocessor.batch([Sample(text) for text in texts])
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_bert_dir)
    expected = tokenizer(texts, padding=True, return_tensors="np")
    assert all((batch[name] == expected[name]).all() for name in batch)


def test_generic_gives_every_tensor_of_a_model_whose_task_is_not_supported(
    make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_bert("BertForMaskedLM")
    with pytest.raises(RecipeError, match="fill-mask, which is not supported") as caught:
        loaded(folder, tmp_path)
    assert "--task feature-extraction" in caught.value.hint
    assert "image-classification" in caught.value.hint
    assert loaded(folder, tmp_path, "generic").output_names == ("logits",)


def test_the_encoder_of_a_masked_language_model_can_be_forced(
    make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    model = loaded(make_bert("BertForMaskedLM"), tmp_path, "feature-extraction")
    assert model.output_names == ("last_hidden_state",)
    skipped = {skip.what: skip.why for skip in model.history[0].skipped}
    assert skipped["pooler.dense.weight"] == "the checkpoint lacks it and no output uses it"


def test_a_head_that_the_checkpoint_lacks_is_refused(tiny_bert_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no weights for classifier\.\w+ and 1 more; .* random numbers"):
        loaded(tiny_bert_dir, tmp_path, "text-classification")


def test_an_encoder_weight_that_the_checkpoint_lacks_is_refused(
    tiny_bert_dir: Path, copy_of: Copy, tmp_path: Path
) -> None:
    folder = copy_of(tiny_bert_dir)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"no weights for encoder\.layer\.1\.output\.dense\.weight"):
        loaded(folder, tmp_path)


def test_weights_of_another_shape_are_refused(tiny_bert_dir: Path, copy_of: Copy, tmp_path: Path) -> None:
    folder = copy_of(tiny_bert_dir)
    edit(folder / "config.json", intermediate_size=48)
    with pytest.raises(ModelError, match=r"size|shape"):
        loaded(folder, tmp_path)


def test_weights_that_are_not_finite_are_refused_by_name(
    tiny_bert_dir: Path, copy_of: Copy, tmp_path: Path
) -> None:
    folder = copy_of(tiny_bert_dir)
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 of 32 values of encoder\.layer\.0\.output\.dense\.bias"):
        loaded(folder, tmp_path)


def test_truncated_weights_are_refused_by_file(tiny_bert_dir: Path, copy_of: Copy, tmp_path: Path) -> None:
    file = copy_of(tiny_bert_dir) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model\.safetensors is truncated"):
        loaded(file.parent, tmp_path)


def test_a_pickle_checkpoint_loads_when_allowed_and_gives_the_same_weights(
    tiny_bert_dir: Path, copy_of: Copy, tmp_path: Path
) -> None:
    folder = copy_of(tiny_bert_dir)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        loaded(folder, tmp_path)
    model = loaded(folder, tmp_path, allow_pickle=True)
    assert torch.equal(
        dict(model.module.named_parameters())["model.encoder.layer.0.output.dense.weight"],
        weights["encoder.layer.0.output.dense.weight"],
    )


def test_a_model_that_needs_remote_code_is_refused_and_runs_nothing(
    tiny_bert_dir: Path, copy_of: Copy, tmp_path: Path
) -> None:
    folder = copy_of(tiny_bert_dir)
    marker = tmp_path / "executed"
    (folder / "modeling_own.py").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()")
    edit(
        folder / "config.json",
        architectures=["OwnModel"],
        auto_map={"AutoModel": "modeling_own.OwnModel", "AutoConfig": "modeling_own.OwnConfig"},
    )
    with pytest.raises(ModelError, match="needs remote code"):
        loaded(folder, tmp_path, "feature-extraction")
    assert not marker.exists()


def test_auto_map_beside_a_known_class_loads_the_known_class(
    tiny_bert_dir: Path, copy_of: Copy, tmp_path: Path
) -> None:
    folder = copy_of(tiny_bert_dir)
    marker = tmp_path / "executed"
    (folder / "modeling_own.py").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()")
    edit(folder / "config.json", auto_map={"AutoModel": "modeling_own.OwnModel"})
    assert type(loaded(folder, tmp_path).module.model).__name__ == "BertModel"
    assert not marker.exists()


@pytest.mark.parametrize(
    "entry",
    [
        {"_attn_implementation_internal": "someone/kernel"},
        {"attn_implementation": "someone/kernel"},
        {"text_config": {"_attn_implementation_internal": "x"}},
    ],
)
def test_a_config_that_names_code_to_fetch_is_refused(
    entry: dict[str, object], tiny_bert_dir: Path, copy_of: Copy, tmp_path: Path
) -> None:
    folder = copy_of(tiny_bert_dir)
    edit(folder / "config.json", **entry)
    with pytest.raises(ModelError, match="names code to fetch"):
        loaded(folder, tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model_type": 3}', '{"model_type": "bert"}'])
def test_a_damaged_config_is_refused(text: str, tiny_bert_dir: Path, copy_of: Copy, tmp_path: Path) -> None:
    folder = copy_of(tiny_bert_dir)
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match="config"):
        loaded(folder, tmp_path)


def test_quantized_weights_are_refused(tiny_bert_dir: Path, copy_of: Copy, tmp_path: Path) -> None:
    folder = copy_of(tiny_bert_dir)
    edit(folder / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(ModelError, match="quantized already"):
        loaded(folder, tmp_path)


def test_a_missing_tokenizer_is_refused(tiny_bert_dir: Path, copy_of: Copy, tmp_path: Path) -> None:
    folder = copy_of(tiny_bert_dir)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        loaded(folder, tmp_path)


def test_a_missing_image_preprocessor_is_refused(tiny_vit_dir: Path, copy_of: Copy, tmp_path: Path) -> None:
    folder = copy_of(tiny_vit_dir)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"has no preprocessor_config\.json"):
        loaded(folder, tmp_path)


def test_a_tokenizer_of_another_vocabulary_is_refused(
    tiny_bert_dir: Path, make_bert: Callable[..., Path], copy_of: Copy, tmp_path: Path
) -> None:
    folder = copy_of(tiny_bert_dir)
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][:90].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", vocab_size=90)
    with pytest.raises(ModelError, match="the model knows 90 tokens"):
        loaded(folder, tmp_path)


def test_a_slow_tokenizer_is_converted_to_a_file_in_the_scratch_folder(
    tiny_bert_dir: Path, copy_of: Copy, tmp_path: Path
) -> None:
    folder = copy_of(tiny_bert_dir)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n")
    edit(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    scratch = tmp_path / "scratch"
    model = loaded(folder, scratch)
    assert model.files[0] == scratch / "tokenizer.json"
    samples = [Sample("the quick brown fox")]
    fast = loaded(tiny_bert_dir, scratch).preprocessor.batch(samples)
    assert (model.preprocessor.batch(samples)["input_ids"] == fast["input_ids"]).all()


def test_paths_of_the_training_machine_are_not_shipped(
    tiny_bert_dir: Path, copy_of: Copy, tmp_path: Path
) -> None:
    folder = copy_of(tiny_bert_dir)
    edit(folder / "config.json", _name_or_path="/home/someone/model")
    edit(folder / "tokenizer_config.json", name_or_path="C:\\Users\\someone\\model")
    model = loaded(folder, tmp_path / "scratch")
    assert "someone" not in json.dumps(model.config)
    assert all("someone" not in file.read_text() for file in model.files)


def test_the_longest_text_is_the_tokenizers_then_what_was_asked_for(
    tiny_bert_dir: Path, tmp_path: Path
) -> None:
    assert loaded(tiny_bert_dir, tmp_path).history[0].facts["max_length"] == 64
    assert loaded(tiny_bert_dir, tmp_path, max_length=16).history[0].facts["max_length"] == 16
    with pytest.raises(RecipeError, match="more than the 64 positions"):
        loaded(tiny_bert_dir, tmp_path, max_length=65)
    with pytest.raises(RecipeError, match="no room"):
        loaded(tiny_bert_dir, tmp_path, max_length=2)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("text-classificaton", "unknown task"),
        ("sentence-embedding", "needs a sentence-transformers directory"),
        ("image-classification", "cannot do the task"),
    ],
)
def test_a_task_that_cannot_be_is_refused(
    task: str, message: str, tiny_bert_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        loaded(tiny_bert_dir, tmp_path, task)


def test_the_digest_follows_the_weights_and_the_configuration(
    tiny_bert_dir: Path, copy_of: Copy, tmp_path: Path
) -> None:
    folder = copy_of(tiny_bert_dir)
    first = loaded(tiny_bert_dir, tmp_path).source_sha256
    assert loaded(folder, tmp_path).source_sha256 == first
    edit(folder / "config.json", hidden_act="relu")
    assert loaded(folder, tmp_path).source_sha256 != first


def test_nothing_is_printed(tiny_bert_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loaded(tiny_bert_dir, tmp_path)
    assert capfd.readouterr() == ("", "")
