"""A small MobileNetV2, saved as a Hugging Face directory, and the digits as folders of PNG files."""

import argparse
from pathlib import Path

import torch
from digits import NAMES, fit, pixel_values, save_images, save_model, split
from torch import nn
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

BUILD = Path("build")
SIDE = 96  # pixels; five strides of 2 leave a 3x3 map


def new(side: int) -> nn.Module:
    """Return an untrained network for images [batch, 1, side, side]."""
    config = MobileNetV2Config(
        num_channels=1, image_size=side, depth_multiplier=0.35, classifier_dropout_prob=0.2,
        id2label=NAMES, label2id={name: digit for digit, name in NAMES.items()},
    )  # fmt: skip
    return MobileNetV2ForImageClassification(config)


def train(side: int, epochs: int, start: Path | None, to: Path) -> None:
    """Train for some minutes, and write the directory and the images."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x, x_test, y, y_test = split()
    save_images(BUILD / "train", x, y)
    save_images(BUILD / "test", x_test, y_test)
    model = (MobileNetV2ForImageClassification.from_pretrained(start) if start else new(side)).train()
    model.config.image_size = side
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # transformers' 0.997 is TensorFlow's, which counts the other way round
    fit(model, pixel_values(x, side), y, epochs, max_lr=0.001 if start else 0.005)
    save_model(model.eval(), to, side)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=SIDE, help="pixels of an image's side")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--start", type=Path, help="directory of a trained one to go on from")
    parser.add_argument("--to", type=Path, default=BUILD / "digits-mobilenet")
    given = parser.parse_args()
    train(given.side, given.epochs, given.start, given.to)
