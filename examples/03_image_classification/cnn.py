"""A small residual network of one's own, and the factory that edgekit calls: `cnn:trained`."""

from pathlib import Path

import numpy as np
import torch
from digits import split
from torch import nn

BUILD = Path("build")


class Block(nn.Module):
    """Two convolutions with batch norm, and a way around them."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


class Cnn(nn.Module):
    """Images [batch, 1, 8, 8] → logits [batch, 10]."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            Block(32), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            Block(64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.layers(pixel_values)


def trained() -> tuple[nn.Module, torch.Tensor]:
    """Return the trained network and an example input."""
    model = Cnn()
    model.load_state_dict(torch.load(BUILD / "cnn.pt", weights_only=True))
    return model, torch.zeros(2, 1, 8, 8)


def train() -> None:
    """Train for ten seconds, and write the weights and the data as edgekit reads it."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # matrices this small gain nothing from more
    x, x_test, y, y_test = split()
    BUILD.mkdir(exist_ok=True)
    np.savez(BUILD / "train.npz", pixel_values=x[:, None], labels=y)
    np.savez(BUILD / "test.npz", pixel_values=x_test[:, None], labels=y_test)
    images, labels, epochs, batch = torch.from_numpy(x[:, None]), torch.from_numpy(y), 15, 64
    model = Cnn()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = epochs * -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    torch.save(model.state_dict(), BUILD / "cnn.pt")


if __name__ == "__main__":
    train()
