"""A small vision transformer, saved as a Hugging Face directory, and the digits as folders of PNG files."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from digits import split
from PIL import Image
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

BUILD = Path("build")
SIDE = 16  # pixels; the app's images are resized to it by the steps in preprocessor_config.json
STEPS = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True, "size": {"height": SIDE, "width": SIDE}, "resample": 2,
    "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [0.5], "image_std": [0.5],
}  # fmt: skip


def save_images(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write one PNG per image into a sub-folder named for its digit."""
    shutil.rmtree(folder, ignore_errors=True)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(folder / f"{label}/{index:04}.png")


def pixel_values(images: np.ndarray) -> torch.Tensor:
    """Images in 0..1 [n, 8, 8] → what STEPS make of their PNG files, [n, 1, SIDE, SIDE]."""
    large = [
        Image.fromarray(np.rint(image * 255).astype(np.uint8)).resize((SIDE, SIDE), 2) for image in images
    ]
    return torch.from_numpy(np.stack(large).astype(np.float32) / 255 * 2 - 1)[:, None]


def train() -> None:
    """Train for half a minute, and write the directory and the images."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # matrices this small gain nothing from more
    x, x_test, y, y_test = split()
    save_images(BUILD / "train", x, y)
    save_images(BUILD / "test", x_test, y_test)
    names = {digit: str(digit) for digit in range(10)}
    config = ViTConfig(
        image_size=SIDE, patch_size=4, num_channels=1, hidden_size=64, num_hidden_layers=3,
        num_attention_heads=4, intermediate_size=128,
        id2label=names, label2id={name: digit for digit, name in names.items()},
    )  # fmt: skip
    model = ViTForImageClassification(config).train()
    images, labels, epochs, batch = pixel_values(x), torch.from_numpy(y), 30, 64
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = epochs * -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.003, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[chosen]).logits, labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    model.save_pretrained(BUILD / "digits-vit")
    (BUILD / "digits-vit/preprocessor_config.json").write_text(json.dumps(STEPS, indent=2))


if __name__ == "__main__":
    train()
