"""scikit-learn's handwritten digits: 1797 images of 8x8 pixels, inside the package, no download."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

NAMES = {digit: str(digit) for digit in range(10)}


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training and test images, float32 [n, 8, 8] in 0..1, and their labels, int64 [n]."""
    digits = load_digits()
    images, labels = (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)
    x, x_test, y, y_test = train_test_split(images, labels, test_size=600, stratify=labels, random_state=0)
    return x, x_test, y, y_test


def as_png(image: np.ndarray) -> Image.Image:
    """Return an image in 0..1 [8, 8] as the PNG file that an app would have."""
    return Image.fromarray(np.rint(image * 255).astype(np.uint8))


def save_images(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write one PNG per image into a sub-folder named for its digit."""
    shutil.rmtree(folder, ignore_errors=True)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        as_png(image).save(folder / f"{label}/{index:04}.png")


def pixel_values(images: np.ndarray, side: int) -> torch.Tensor:
    """Images in 0..1 [n, 8, 8] → what `save_model`'s steps make of their PNG files, [n, 1, side, side]."""
    large = [as_png(image).resize((side, side), Image.Resampling.BILINEAR) for image in images]
    return torch.from_numpy(np.stack(large).astype(np.float32) / 255 * 2 - 1)[:, None]


def save_model(model: nn.Module, folder: Path, side: int) -> None:
    """Write a Hugging Face directory whose preprocessor resizes to `side` pixels and normalizes to -1..1."""
    steps = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True, "size": {"height": side, "width": side}, "resample": Image.Resampling.BILINEAR,
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.5], "image_std": [0.5],
    }  # fmt: skip
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(steps, indent=2))


def fit(model: nn.Module, images: torch.Tensor, labels: np.ndarray, epochs: int, max_lr: float) -> None:
    """Train with AdamW and one cycle of the learning rate, in batches of 64."""
    targets, batch = torch.from_numpy(labels), 64
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=max_lr, total_steps=steps)
    for _ in range(epochs):
        # A rest of a few images would be a poor batch to take a batch norm's statistics from.
        for chosen in torch.randperm(len(images))[: len(images) // batch * batch].split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[chosen]).logits, targets[chosen]).backward()
            optimizer.step()
            schedule.step()
