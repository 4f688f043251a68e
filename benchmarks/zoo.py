"""One small model with random weights of each architecture that edgekit promises, and samples for it.

The weights say nothing, so accuracy is not the point: the graphs have every operator, branch and axis that
the trained models of the same class have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekit.data import Sample

if TYPE_CHECKING:
    import torch

SEED = 0
MAX_LENGTH = 48
_SPECIAL = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
_LABELS = {0: "circle", 1: "square", 2: "star"}


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        name: As people call it.
        model: Class of transformers; its configuration class is the model's own.
        config: What makes it small, or what it needs to be itself.
        takes: What its samples are.
        task: Name of the task; None infers it.
        image_size: Height and width of its images.
        processor: Image preprocessor of its checkpoints.
    """

    name: str
    model: str
    config: dict[str, Any]
    takes: Literal["text", "image", "features"] = "text"
    task: str | None = "feature-extraction"
    image_size: int = 32
    processor: dict[str, Any] = field(default_factory=dict)


_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    # Trained models spread their outputs; with the default of 0.02 every input would look the same.
    "initializer_range": 0.3,
}
_OFFSET_POSITIONS = {**_ENCODER, "pad_token_id": 0, "max_position_embeddings": 72}
_VIT = {key: value for key, value in _ENCODER.items() if key != "max_position_embeddings"}
_PATCHES = {**_VIT, "image_size": 32, "patch_size": 8}
_MOBILEVIT_SIZES = {
    "hidden_sizes": [32, 40, 48],
    "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 64],
    "num_attention_heads": 4,
    "image_size": 64,
    "output_stride": 32,
}

ARCHITECTURES = (
    Architecture("BERT", "BertModel", _ENCODER),
    Architecture(
        "DistilBERT",
        "DistilBertForSequenceClassification",
        {
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": 64,
            "initializer_range": 0.3,
        },
        task="text-classification",
    ),
    Architecture(
        "RoBERTa", "RobertaForSequenceClassification", _OFFSET_POSITIONS, task="text-classification"
    ),
    Architecture("XLM-R", "XLMRobertaForTokenClassification", _OFFSET_POSITIONS, task="token-classification"),
    Architecture(
        "ModernBERT",
        "ModernBertModel",
        {
            **_ENCODER,
            "num_hidden_layers": 3,
            "global_attn_every_n_layers": 3,
            "local_attention": 8,
            "initializer_cutoff_factor": 2.0,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "cls_token_id": 2,
            "sep_token_id": 3,
        },
    ),
    Architecture(
        "DeBERTa-v3",
        "DebertaV2ForSequenceClassification",
        {
            **_ENCODER,
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "type_vocab_size": 0,
            "max_relative_positions": -1,
        },
        task="text-classification",
    ),
    Architecture("ALBERT", "AlbertModel", {**_ENCODER, "embedding_size": 16}),
    Architecture("MPNet", "MPNetModel", _OFFSET_POSITIONS),
    Architecture(
        "ELECTRA",
        "ElectraForSequenceClassification",
        {**_ENCODER, "embedding_size": 16},
        task="text-classification",
    ),
    Architecture(
        "T5 encoder",
        "T5EncoderModel",
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "feed_forward_proj": "gated-gelu",
            "pad_token_id": 0,
        },
        task="generic",
    ),
    Architecture(
        "Whisper encoder",
        "WhisperModel",
        {
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_layers": 1,
            "decoder_attention_heads": 4,
            "decoder_ffn_dim": 64,
            "num_mel_bins": 16,
            "max_source_positions": 24,
            "vocab_size": 64,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
            "init_std": 0.3,
        },
        takes="features",
        task=None,
    ),
    Architecture("ViT", "ViTForImageClassification", _PATCHES, takes="image", task=None),
    Architecture("DeiT", "DeiTForImageClassification", _PATCHES, takes="image", task=None),
    Architecture(
        "MobileNetV2",
        "MobileNetV2ForImageClassification",
        {"depth_multiplier": 0.25, "image_size": 32, "min_depth": 8, "initializer_range": 0.3},
        takes="image",
        task=None,
    ),
    Architecture(
        "ResNet",
        "ResNetForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 2], "layer_type": "bottleneck"},
        takes="image",
        task=None,
    ),
    Architecture(
        "ConvNeXt",
        "ConvNextForImageClassification",
        {
            "hidden_sizes": [16, 32],
            "depths": [1, 2],
            "num_stages": 2,
            "initializer_range": 0.3,
            "layer_scale_init_value": 0.5,
        },
        takes="image",
        task=None,
    ),
    Architecture(
        "MobileViT",
        "MobileViTForImageClassification",
        {**_MOBILEVIT_SIZES, "initializer_range": 0.3},
        takes="image",
        task=None,
        image_size=64,
        processor={"do_normalize": False, "do_flip_channel_order": True},
    ),
    Architecture(
        "EfficientNet",
        "EfficientNetForImageClassification",
        {
            "width_coefficient": 0.25,
            "depth_coefficient": 0.1,
            "image_size": 32,
            "hidden_dim": 320,
            "initializer_range": 0.3,
        },
        takes="image",
        task=None,
        processor={"include_top": True},
    ),
)


def named(name: str) -> Architecture:
    """Return the architecture of a name."""
    return next(architecture for architecture in ARCHITECTURES if architecture.name == name)


def save(architecture: Architecture, folder: Path, texts: tuple[str, ...]) -> str:
    """Save a model with its tokenizer or image preprocessor; return what to give as MODEL.

    Args:
        architecture: Which.
        folder: Where to.
        texts: The tokenizer knows the words of these.
    """
    import transformers

    if architecture.takes == "features":
        return f"{__name__}:{architecture.name.lower().replace(' ', '_')}"
    config = dict(architecture.config)
    if architecture.takes == "text":
        config["vocab_size"] = _save_tokenizer(folder, texts)
    model_class = getattr(transformers, architecture.model)
    config |= {"id2label": _LABELS, "label2id": {name: index for index, name in _LABELS.items()}}
    _seeded(lambda: model_class(model_class.config_class(**config))).save_pretrained(folder)
    if architecture.takes == "image":
        size = architecture.image_size
        processor = {
            "do_resize": True,
            "size": {"height": size, "width": size},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            **architecture.processor,
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return str(folder)


def whisper_encoder() -> tuple[torch.nn.Module, torch.Tensor]:
    """Return the encoder of a Whisper and log-mel features [batch, bins, frames]."""
    import torch
    import transformers

    config = transformers.WhisperConfig(**named("Whisper encoder").config)
    model = _seeded(lambda: transformers.WhisperModel(config).encoder)
    return model.eval(), torch.linspace(-1, 1, 2 * 16 * 48).reshape(2, 16, 48)


def samples(architecture: Architecture, texts: tuple[str, ...], count: int) -> tuple[Sample, ...]:
    """Return samples for a model: texts, or arrays that are smooth in space as images and spectra are."""
    if architecture.takes == "text":
        return tuple(Sample(text) for text in texts[:count])
    shape = (16, 48) if architecture.takes == "features" else (3, *2 * [architecture.image_size])
    name = "input_features" if architecture.takes == "features" else "pixel_values"
    random = np.random.default_rng(SEED)
    return tuple(Sample({name: _smooth(random, shape)}) for _ in range(count))


def _smooth(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    waves = [np.linspace(0, random.uniform(1, 12), size) + random.uniform(0, 6) for size in shape]
    grid = sum(
        np.sin(wave).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        for axis, wave in enumerate(waves)
    )
    noise = random.normal(0, 0.2, shape)
    return (np.asarray(grid) / len(shape) + noise).astype(np.float32)


def _seeded(make: Callable[[], Any]) -> Any:
    """Return a model in eval mode whose vectors and running statistics are off their zeros and ones."""
    import torch

    torch.manual_seed(SEED)
    model = make().eval()
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.ndim == 1 and tensor.is_floating_point():
                spread = 0.1 * torch.randn_like(tensor)
                tensor += spread.abs() if "var" in name else spread
    return model


def _save_tokenizer(folder: Path, texts: tuple[str, ...]) -> int:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    vocabulary = dict(_SPECIAL) | {word: index for index, word in enumerate(words, len(_SPECIAL))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, _SPECIAL[token]) for token in ("[CLS]", "[SEP]")],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    return len(vocabulary)
