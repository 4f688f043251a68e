"""One number whose gradient tells how much a model's outputs move, without labels.

The loss between a model and itself has a gradient of exactly zero, so it tells nothing. What is taken instead
is the Fisher information: of outputs in random directions, which is the Gauss-Newton matrix, or of labels
that are drawn from the model itself.

Source: Martens 2020, New Insights and Perspectives on the Natural Gradient Method, section 5.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from edgekit.compress.base import real_rows
from edgekit.model import TorchModel

DRAWS = ("text-classification", "token-classification", "image-classification", "text-generation")
"""Tasks whose outputs are logits of one choice, which a label can be drawn from."""


def probe(
    model: TorchModel,
    output: torch.Tensor,
    inputs: Mapping[str, torch.Tensor],
    generator: torch.Generator,
) -> torch.Tensor:
    """Return one number per batch; its gradient is a random one of the outputs'.

    For logits it is Σ log p(y), y drawn from p; for other outputs f it is Σ u·f, u normal. Padding counts
    for nothing.

    Args:
        model: Whose output it is; its task says whether it holds logits.
        output: [batch, ...], with gradients.
        inputs: Of the model.
        generator: Of what is random.
    """
    if model.task in DRAWS and output.shape[-1] > 1:
        logs = output.log_softmax(-1)
        chances = logs.detach().exp().reshape(-1, logs.shape[-1])
        drawn = torch.multinomial(chances, 1, generator=generator).reshape(*logs.shape[:-1], 1)
        values = logs.gather(-1, drawn)
    else:
        values = output * torch.randn(output.shape, generator=generator)
    return real_rows(values, inputs).sum()
