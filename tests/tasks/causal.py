"""Tiny causal language models with tokenizers, as Hugging Face directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

VOCABULARY = 300


def save_causal(kind: str, folder: Path) -> Path:
    """Write a small random model of a family, with weights large enough that it has opinions."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from benchmarks import tiny

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 64,
    }  # fmt: skip
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.2}
    if kind == "gpt2":
        sizes = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
    names = {"llama": "Llama", "gpt2": "GPT2", "qwen2": "Qwen2"}
    config = getattr(transformers, f"{names[kind]}Config")(**sizes, **special)
    head = "GPT2LMHeadModel" if kind == "gpt2" else f"{names[kind]}ForCausalLM"
    model = getattr(transformers, head)(config).eval()
    tiny.roughen(model)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_words(), trainer)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    return folder


def write_texts(path: Path, count: int = 200) -> Path:
    """Write random texts in the models' words."""
    import numpy as np

    random, words = np.random.default_rng(0), _words()
    lines = [" ".join(random.choice(words, random.integers(2, 9))) for _ in range(count)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _words() -> list[str]:
    return [f"word{index}" for index in range(100)]
