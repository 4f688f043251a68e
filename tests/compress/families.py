"""Tiny transformers of every family that edgekit knows from inside, wrapped as `edgekit.source` would."""

from __future__ import annotations

from typing import Any

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
TEXT = {"vocab_size": 60, "max_position_embeddings": 32, "initializer_range": 0.3, "pad_token_id": 0}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertModel", {**SIZES, **TEXT}),
    "roberta": ("RobertaModel", {**SIZES, **TEXT, **TOKENS}),
    "electra": ("ElectraModel", {**SIZES, **TEXT, "embedding_size": 16}),
    "distilbert": (
        "DistilBertModel",
        {**TEXT, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48},
    ),
    "mpnet": ("MPNetModel", {**SIZES, **TEXT, **TOKENS}),
    "modernbert": (
        "ModernBertModel",
        {**SIZES, **TEXT, **TOKENS, "cls_token_id": 1, "sep_token_id": 2, "global_attn_every_n_layers": 2},
    ),
    "vit": ("ViTModel", {**SIZES, "image_size": 16, "patch_size": 4, "initializer_range": 0.3}),
    "deit": ("DeiTModel", {**SIZES, "image_size": 16, "patch_size": 4, "initializer_range": 0.3}),
    "llama": ("LlamaForCausalLM", {**SIZES, **TEXT, **TOKENS, "num_key_value_heads": 2}),
    "mistral": ("MistralModel", {**SIZES, **TEXT, **TOKENS, "num_key_value_heads": 2}),
    "qwen2": ("Qwen2Model", {**SIZES, **TEXT, **TOKENS, "num_key_value_heads": 2}),
    "qwen3": ("Qwen3Model", {**SIZES, **TEXT, **TOKENS, "num_key_value_heads": 2, "head_dim": 8}),
    "gpt2": (
        "GPT2LMHeadModel",
        {**TEXT, **TOKENS, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 48, "n_positions": 32},
    ),
}
"""Model type -> (class, configuration); heads of 8, so 4 of them, shared by two where they can be."""


def tiny_transformer(kind: str) -> Any:
    """Return a wrapped random model of a family: `TorchModel`, its module takes the example inputs."""
    import numpy as np
    import torch
    import transformers

    from benchmarks import tiny
    from edgekit.model import TorchModel
    from edgekit.source.wrap import Selected

    class_name, config = CONFIGS[kind]
    cls = getattr(transformers, class_name)
    torch.manual_seed(0)
    model = cls._from_config(cls.config_class(**config), attn_implementation="eager").eval()
    tiny.roughen(model)
    if kind in ("vit", "deit"):
        examples = {"pixel_values": np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)}
    else:
        ids = np.random.default_rng(0).integers(3, 60, (2, 9))
        mask = np.ones_like(ids)
        mask[1, 6:] = 0
        examples = {"input_ids": ids, "attention_mask": mask}
    output = "logits" if class_name.endswith(("CausalLM", "LMHeadModel")) else "last_hidden_state"
    constants = {"return_dict": True}
    if kind in ("llama", "mistral", "qwen2", "qwen3", "gpt2"):
        constants["use_cache"] = False
    return TorchModel(
        module=Selected(model, {output: output}, constants).eval(),
        task="feature-extraction",
        input_names=tuple(examples),
        output_names=(output,),
        example_inputs=examples,
        dynamic_axes={},
        preprocessor=None,  # nothing here reads samples
        from_transformers=True,
        name=kind,
    )


def run_example(model: Any) -> Any:
    """Return the first output of a model on its example inputs."""
    import torch

    with torch.no_grad():
        inputs = {name: torch.from_numpy(value) for name, value in model.example_inputs.items()}
        return next(iter(model.module(**inputs).values()))
