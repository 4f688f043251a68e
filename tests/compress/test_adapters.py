"""A merged model is the adapted one: PEFT itself is what it is compared with."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from edgekit.compress.adapters import merge_adapters
from edgekit.compression import AdapterOptions
from edgekit.errors import ModelError, RecipeError
from edgekit.structure import difference
from tests.compress.families import run_example, tiny_transformer
from tests.compress.samples import with_data

TARGETS = {
    "bert": ["query", "value", "output.dense"],
    "llama": ["q_proj", "v_proj", "down_proj"],
    "gpt2": ["c_attn", "c_proj"],
    "vit": ["q_proj", "fc1"],
}


def _adapted(model, folder, **config):
    """Save a random adapter of the model's module with PEFT; return what the adapted model says."""
    torch.manual_seed(1)
    adapted = copy.deepcopy(model)
    config = {"target_modules": TARGETS.get(model.name), "r": 4, "lora_alpha": 6, **config}
    peft = get_peft_model(adapted.module.model, LoraConfig(init_lora_weights=False, **config)).eval()
    with torch.no_grad():
        for name, values in peft.named_parameters():
            trained_whole = "lora_magnitude" in name or "modules_to_save" in name or name.endswith("bias")
            if values.requires_grad and trained_whole:
                values += 0.1 * torch.randn_like(values)
    peft.save_pretrained(folder)
    adapted.module.model = peft
    return run_example(adapted)


def _merge(model, tmp_path, *folders):
    model, data = with_data(model, tmp_path, fit=2, judge=2)
    return merge_adapters(model, AdapterOptions(paths=tuple(map(str, folders))), data)


CASES = [
    *((kind, {}) for kind in TARGETS),
    ("bert", {"use_rslora": True}),
    ("bert", {"use_dora": True}),
    ("gpt2", {"use_dora": True, "fan_in_fan_out": True}),
    ("bert", {"rank_pattern": {"layer.1.*query": 2}, "alpha_pattern": {"value": 3}}),
    ("bert", {"bias": "lora_only"}),
    ("bert", {"bias": "all"}),
    ("bert", {"lora_bias": True}),
    ("bert", {"target_modules": ["word_embeddings", "key"]}),
    ("llama", {"modules_to_save": ["lm_head"]}),
]


@pytest.mark.parametrize(("kind", "config"), CASES, ids=lambda value: str(value))
def test_a_merged_model_says_what_the_adapted_one_says(kind, config, tmp_path) -> None:
    model = tiny_transformer(kind)
    wanted, before = _adapted(model, tmp_path / "lora", **config), run_example(model)
    merged = _merge(model, tmp_path, tmp_path / "lora")
    assert (wanted - before).abs().max() > 1e-2, "the adapter changes something"
    torch.testing.assert_close(run_example(merged), wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(run_example(model), before)
    assert difference(model.module.model, merged.module.model).empty


def test_a_head_that_shared_the_adapted_embeddings_keeps_its_own(tmp_path) -> None:
    model = tiny_transformer("gpt2")
    assert model.module.model.config.tie_word_embeddings
    wanted = _adapted(model, tmp_path / "lora", target_modules=["wte"])
    merged = _merge(model, tmp_path, tmp_path / "lora")
    torch.testing.assert_close(run_example(merged), wanted, rtol=1e-4, atol=1e-4)
    assert not merged.module.model.config.tie_word_embeddings
    assert model.module.model.config.tie_word_embeddings


def test_adapters_are_merged_one_after_the_other(tmp_path) -> None:
    model = tiny_transformer("bert")
    _adapted(model, tmp_path / "first")
    once = _merge(model, tmp_path, tmp_path / "first")
    wanted = _adapted(once, tmp_path / "second", use_dora=True, target_modules=["key"])
    both = _merge(model, tmp_path, tmp_path / "first", tmp_path / "second")
    torch.testing.assert_close(run_example(both), wanted, rtol=1e-4, atol=1e-4)
    facts = both.history[-1].facts["adapters"]
    assert [fact["name"] for fact in facts] == ["first", "second"]
    assert facts[0]["ranks"] == [4]
    assert len(facts[0]["sha256"]) == 64


def test_an_adapter_of_the_model_inside_a_head_fits_with_and_without_it(tmp_path) -> None:
    model = tiny_transformer("llama")
    folder = tmp_path / "lora"
    wanted = _adapted(model, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    shorter = {name.replace("base_model.model.model.", "base_model.model."): t for name, t in tensors.items()}
    assert shorter.keys() != tensors.keys()
    save_file(shorter, folder / "adapter_model.safetensors")
    torch.testing.assert_close(run_example(_merge(model, tmp_path, folder)), wanted, rtol=1e-4, atol=1e-4)


def _edit(folder, **changes) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


class TestRefusals:
    @pytest.fixture
    def folder(self, tmp_path):
        _adapted(tiny_transformer("bert"), tmp_path / "lora")
        return tmp_path / "lora"

    def _refused(self, folder, match, error=ModelError, kind="bert") -> str:
        with pytest.raises(error, match=match) as caught:
            _merge(tiny_transformer(kind), folder.parent, folder)
        return caught.value.hint

    def test_a_folder_that_is_not_there(self, tmp_path) -> None:
        self._refused(tmp_path / "none", "adapters.paths: there is no folder", RecipeError)

    def test_a_folder_that_peft_did_not_write(self, tmp_path) -> None:
        (tmp_path / "other").mkdir()
        self._refused(tmp_path / "other", "no adapter_config.json")

    def test_another_kind_of_adapter_says_which_work(self, folder) -> None:
        _edit(folder, peft_type="IA3")
        assert "LoRA adapters can" in self._refused(folder, "is a IA3 adapter")

    def test_more_than_lora(self, folder) -> None:
        _edit(folder, layer_replication=[[0, 2]])
        self._refused(folder, "sets layer_replication: it is more than LoRA")

    def test_adapters_that_changed_the_base(self, folder) -> None:
        _edit(folder, init_lora_weights="pissa")
        self._refused(folder, "init_lora_weights = 'pissa'")

    def test_a_pickle(self, folder) -> None:
        (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
        self._refused(folder, "pickle .adapter_model.bin.")

    def test_weights_that_are_missing_or_damaged(self, folder) -> None:
        path = folder / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes()[:100])
        self._refused(folder, "adapter_model.safetensors is damaged")
        path.unlink()
        self._refused(folder, "has no adapter_model.safetensors")

    def test_a_configuration_that_is_damaged(self, folder) -> None:
        (folder / "adapter_config.json").write_text("[")
        self._refused(folder, "adapter_config.json is damaged")

    def test_another_architecture_names_the_part(self, folder) -> None:
        _edit(folder, base_model_name_or_path="somebody/bert")
        hint = self._refused(folder, r"adapts encoder\.layer\.0.* which this LlamaForCausalLM", kind="llama")
        assert "somebody/bert" in hint

    def test_another_size_names_the_part(self, folder) -> None:
        path = folder / "adapter_model.safetensors"
        tensors = {name: t[:, :-1].clone() if "lora_A" in name else t for name, t in load_file(path).items()}
        save_file(tensors, path)
        self._refused(folder, r"does not fit: encoder\.layer\.0\..* is 32×\d+ here and 32×\d+ in the adapter")

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            (lambda t: {n: v for n, v in t.items() if "lora_B" not in n}, "has no lora_B"),
            (lambda t: {n: torch.full_like(v, float("nan")) for n, v in t.items()}, "holds NaN"),
            (lambda t: {**t, "base_model.model.x.lora_C.weight": torch.ones(1)}, "lora_C.weight is nothing"),
            (
                lambda t: {**t, "base_model.model.pooler.dense.gain": torch.ones(1)},
                "pooler.dense has no gain",
            ),
        ],
        ids=["half", "nan", "unknown", "no such weight"],
    )
    def test_tensors_that_make_no_adapter(self, folder, change, match) -> None:
        path = folder / "adapter_model.safetensors"
        save_file(change(load_file(path)), path)
        self._refused(folder, match)
