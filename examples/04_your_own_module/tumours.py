"""A network of one's own on a table of numbers; `tumours:trained` is the factory that edgekit calls.

The data are the 569 biopsies of scikit-learn's bundled breast-cancer set: 30 measurements of cell nuclei
each, and whether the tumour was benign.
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn

BUILD = Path("build")


class Mlp(nn.Module):
    """Measurements [batch, 30] → probability of a benign tumour, [batch, 1].

    The standardization of the columns is part of the graph, so an app gives the raw measurements.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(30))
        self.register_buffer("std", torch.ones(30))
        self.layers = nn.Sequential(
            nn.Linear(30, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 1)
        )

    def forward(self, measurements: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.layers((measurements - self.mean) / self.std)
        return {"benign": torch.sigmoid(logits)}


def trained() -> tuple[nn.Module, torch.Tensor]:
    """Return the trained network and an example input: all that edgekit asks for."""
    model = Mlp()
    model.load_state_dict(torch.load(BUILD / "mlp.pt", weights_only=True))
    return model, torch.zeros(2, 30)


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training and test measurements, float32 [n, 30], and whether each is benign, [n]."""
    data = load_breast_cancer()
    x, y = data.data.astype(np.float32), data.target.astype(np.float32)
    x, x_test, y, y_test = train_test_split(x, y, test_size=200, stratify=y, random_state=0)
    return x, x_test, y, y_test


def train() -> None:
    """Train for some seconds, and write the weights and the samples."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # matrices this small gain nothing from more
    x, x_test, y, _ = split()
    BUILD.mkdir(exist_ok=True)
    np.savez(BUILD / "train.npz", measurements=x)
    np.savez(BUILD / "test.npz", measurements=x_test)
    model, inputs, targets = Mlp(), torch.from_numpy(x), torch.from_numpy(y)[:, None]
    model.mean.copy_(inputs.mean(0))
    model.std.copy_(inputs.std(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy(model(inputs)["benign"], targets).backward()
        optimizer.step()
    torch.save(model.state_dict(), BUILD / "mlp.pt")


if __name__ == "__main__":
    train()
