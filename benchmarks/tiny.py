"""What makes a tiny model with random weights stand for a trained one; the zoo and the tests build on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPECIAL = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
"""Special token -> its number in every vocabulary here."""

ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    # Trained models spread their outputs; with the default of 0.02 every input would look the same.
    "initializer_range": 0.3,
}
"""Sizes of a small encoder, as most configurations of transformers call them."""


def labelled(*names: str) -> dict[str, dict[Any, Any]]:
    """Return the entries of a configuration that name the classes."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: n for n, name in enumerate(names)}}


def roughen(model: Any) -> Any:
    """Move biases, norms and running statistics off their zeros and ones, in place, as training would."""
    import torch

    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.ndim == 1 and tensor.is_floating_point():
                spread = 0.1 * torch.randn_like(tensor)
                tensor += spread.abs() if "var" in name else spread
    return model


def image_processor(size: int, **others: Any) -> dict[str, Any]:
    """Return what an image preprocessor's file says: square images, scaled to -1 to 1."""
    return {
        "do_resize": True,
        "size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        **others,
    }


def save_tokenizer(tokenizer: Any, folder: Path, *, max_length: int) -> int:
    """Save a tokenizer as BERT's are, `[CLS]` and `[SEP]` around texts; return its vocabulary's size.

    Args:
        tokenizer: A `tokenizers.Tokenizer` that has the special tokens.
        folder: Where to.
        max_length: Of the model, in tokens.
    """
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, SPECIAL[token]) for token in ("[CLS]", "[SEP]")],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{f"{token.strip('[]').lower()}_token": token for token in SPECIAL},
        model_max_length=max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    return int(tokenizer.get_vocab_size())
