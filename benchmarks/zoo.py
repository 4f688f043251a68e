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

from benchmarks.tiny import ENCODER, SPECIAL, image_processor, roughen, save_tokenizer
from edgekit.data import Sample

if TYPE_CHECKING:
    import torch

SEED = 0
MAX_LENGTH = 48
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
        wide: What of `config` is otherwise where speed is measured: layers as wide as in real models, fewer.
        timed: Height and width of images there.
    """

    name: str
    model: str
    config: dict[str, Any]
    takes: Literal["text", "image", "features"] = "text"
    task: str | None = "feature-extraction"
    image_size: int = 32
    processor: dict[str, Any] = field(default_factory=dict)
    wide: dict[str, Any] = field(default_factory=dict)
    timed: int = 224


_OFFSET_POSITIONS = {**ENCODER, "pad_token_id": 0, "max_position_embeddings": 72}
_VIT = {key: value for key, value in ENCODER.items() if key != "max_position_embeddings"}
_PATCHES = {**_VIT, "image_size": 32, "patch_size": 8}
LONG = 128
_WIDE_VIT = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
_WIDE = {**_WIDE_VIT, "max_position_embeddings": LONG + 8}
_MOBILEVIT_SIZES = {
    "hidden_sizes": [32, 40, 48],
    "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 64],
    "num_attention_heads": 4,
    "image_size": 64,
    "output_stride": 32,
}

ARCHITECTURES = (
    Architecture(
        "BERT",
        "BertModel",
        ENCODER,
        wide=_WIDE,
    ),
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
        wide={"max_position_embeddings": LONG, "dim": 768, "n_heads": 12, "hidden_dim": 3072},
    ),
    Architecture(
        "RoBERTa",
        "RobertaForSequenceClassification",
        _OFFSET_POSITIONS,
        task="text-classification",
        wide=_WIDE,
    ),
    Architecture(
        "XLM-R",
        "XLMRobertaForTokenClassification",
        _OFFSET_POSITIONS,
        task="token-classification",
        wide=_WIDE,
    ),
    Architecture(
        "ModernBERT",
        "ModernBertModel",
        {
            **ENCODER,
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
        wide={**_WIDE, "intermediate_size": 1152, "local_attention": 128},
    ),
    Architecture(
        "DeBERTa-v3",
        "DebertaV2ForSequenceClassification",
        {
            **ENCODER,
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
        wide=_WIDE,
    ),
    Architecture(
        "ALBERT",
        "AlbertModel",
        {**ENCODER, "embedding_size": 16},
        wide={**_WIDE, "embedding_size": 128},
    ),
    Architecture(
        "MPNet",
        "MPNetModel",
        _OFFSET_POSITIONS,
        wide=_WIDE,
    ),
    Architecture(
        "ELECTRA",
        "ElectraForSequenceClassification",
        {**ENCODER, "embedding_size": 16},
        task="text-classification",
        wide={
            "max_position_embeddings": LONG,
            "hidden_size": 256,
            "num_attention_heads": 4,
            "intermediate_size": 1024,
            "embedding_size": 128,
        },
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
        wide={"d_model": 768, "d_kv": 64, "d_ff": 2048, "num_heads": 12},
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
        wide={
            "d_model": 512,
            "encoder_attention_heads": 8,
            "encoder_ffn_dim": 2048,
            "num_mel_bins": 80,
            "max_source_positions": 150,
        },
    ),
    Architecture(
        "ViT",
        "ViTForImageClassification",
        _PATCHES,
        takes="image",
        task=None,
        wide={**_WIDE_VIT, "image_size": 224, "patch_size": 16},
    ),
    Architecture(
        "DeiT",
        "DeiTForImageClassification",
        _PATCHES,
        takes="image",
        task=None,
        wide={**_WIDE_VIT, "image_size": 224, "patch_size": 16},
    ),
    Architecture(
        "MobileNetV2",
        "MobileNetV2ForImageClassification",
        {"depth_multiplier": 0.25, "image_size": 32, "min_depth": 8, "initializer_range": 0.3},
        takes="image",
        task=None,
        wide={"depth_multiplier": 1.0, "image_size": 224},
    ),
    Architecture(
        "ResNet",
        "ResNetForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 2], "layer_type": "bottleneck"},
        takes="image",
        task=None,
        wide={"embedding_size": 64, "hidden_sizes": [256, 512], "depths": [1, 2]},
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
        wide={"hidden_sizes": [96, 192], "depths": [1, 2]},
    ),
    Architecture(
        "MobileViT",
        "MobileViTForImageClassification",
        {**_MOBILEVIT_SIZES, "initializer_range": 0.3},
        takes="image",
        task=None,
        image_size=64,
        processor={"do_normalize": False, "do_flip_channel_order": True},
        wide={
            "hidden_sizes": [144, 192, 240],
            "neck_hidden_sizes": [16, 32, 64, 96, 128, 160, 640],
            "image_size": 256,
        },
        timed=256,
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
        wide={"width_coefficient": 1.0, "image_size": 224, "hidden_dim": 1280},
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
        factory = "whisper_encoder" if architecture == named(architecture.name) else "wide_whisper_encoder"
        return f"{__name__}:{factory}"
    config = dict(architecture.config)
    if architecture.takes == "text":
        words = _save_tokenizer(folder, texts)
        config["vocab_size"] = max(words, config.get("vocab_size", 0))
    model_class = getattr(transformers, architecture.model)
    config |= {"id2label": _LABELS, "label2id": {name: index for index, name in _LABELS.items()}}
    _seeded(lambda: model_class(model_class.config_class(**config))).save_pretrained(folder)
    if architecture.takes == "image":
        processor = image_processor(architecture.image_size, **architecture.processor)
        (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return str(folder)


def whisper_encoder() -> tuple[torch.nn.Module, torch.Tensor]:
    """Return the encoder of a Whisper and log-mel features [batch, bins, frames]."""
    return _whisper_encoder(named("Whisper encoder").config)


def wide_whisper_encoder() -> tuple[torch.nn.Module, torch.Tensor]:
    """Return the same with layers as wide as in Whisper base."""
    architecture = named("Whisper encoder")
    return _whisper_encoder(architecture.config | architecture.wide)


def _whisper_encoder(config: dict[str, Any]) -> tuple[torch.nn.Module, torch.Tensor]:
    import torch
    import transformers

    model = _seeded(lambda: transformers.WhisperModel(transformers.WhisperConfig(**config)).encoder)
    bins, frames = _spectrum(config)
    return model.eval(), torch.linspace(-1, 1, 2 * bins * frames).reshape(2, bins, frames)


def _spectrum(config: dict[str, Any]) -> tuple[int, int]:
    return config["num_mel_bins"], 2 * config["max_source_positions"]


def samples(architecture: Architecture, texts: tuple[str, ...], count: int) -> tuple[Sample, ...]:
    """Return samples for a model: texts, or arrays that are smooth in space as images and spectra are."""
    if architecture.takes == "text":
        return tuple(Sample(text) for text in texts[:count])
    features = architecture.takes == "features"
    shape = _spectrum(architecture.config) if features else (3, *2 * [architecture.image_size])
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
    return roughen(make().eval())


def _save_tokenizer(folder: Path, texts: tuple[str, ...]) -> int:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    vocabulary = SPECIAL | {word: index for index, word in enumerate(words, len(SPECIAL))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return save_tokenizer(tokenizer, folder, max_length=MAX_LENGTH)
