"""A small vision transformer, saved as a Hugging Face directory, and the digits as folders of PNG files."""

from pathlib import Path

import torch
from digits import NAMES, fit, pixel_values, save_images, save_model, split
from transformers import ViTConfig, ViTForImageClassification

BUILD = Path("build")
SIDE = 16  # pixels; the app's images are resized to it by the steps in preprocessor_config.json


def train() -> None:
    """Train for half a minute, and write the directory and the images."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # matrices this small gain nothing from more
    x, x_test, y, y_test = split()
    save_images(BUILD / "train", x, y)
    save_images(BUILD / "test", x_test, y_test)
    config = ViTConfig(
        image_size=SIDE, patch_size=4, num_channels=1, hidden_size=64, num_hidden_layers=3,
        num_attention_heads=4, intermediate_size=128,
        id2label=NAMES, label2id={name: digit for digit, name in NAMES.items()},
    )  # fmt: skip
    model = ViTForImageClassification(config).train()
    fit(model, pixel_values(x, SIDE), y, epochs=30, max_lr=0.003)
    save_model(model, BUILD / "digits-vit", SIDE)


if __name__ == "__main__":
    train()
