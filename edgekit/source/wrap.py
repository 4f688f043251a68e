"""Modules that wrap a loaded model so that only the outputs of one task come out, by name.

Each keeps the model in an attribute called `model`; the exporter takes that prefix off the weights' names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from edgekit.errors import ModelError


class Selected(nn.Module):
    """A model of which some outputs are used.

    Args:
        model: The model; its outputs are a mapping, a tuple or one tensor.
        outputs: Output name -> its key or position in what the model returns.
        constants: Keyword arguments that are the same in every call.
    """

    def __init__(
        self, model: nn.Module, outputs: Mapping[str, str | int], constants: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.model = model
        self.outputs = dict(outputs)
        self.constants = dict(constants)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the selected outputs in order."""
        returned = named(self.model(**inputs, **self.constants))
        return {name: returned[key] for name, key in self.outputs.items()}


class SentenceEmbedder(nn.Module):
    """A token model with the sentence-transformers modules that make one vector of its tokens.

    Args:
        model: Gives `last_hidden_state` [batch, sequence, hidden].
        heads: Pooling, dense, normalize, ... in running order.
        dimensions: Keep the first so many dimensions; None keeps all.
    """

    def __init__(self, model: nn.Module, heads: Sequence[nn.Module], dimensions: int | None) -> None:
        super().__init__()
        self.model = model
        self.heads = nn.ModuleList(heads)
        self.dimensions = dimensions

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Token inputs [batch, sequence] → `sentence_embedding` [batch, dimensions]."""
        features: dict[str, Any] = dict(inputs)
        features["token_embeddings"] = self.model(**inputs)["last_hidden_state"]
        for head in self.heads:
            features = head(features)
        return {"sentence_embedding": features["sentence_embedding"][:, : self.dimensions]}


def named(returned: Any) -> dict[str | int, Any]:
    """Return what a forward gave as key or position -> value; one tensor is position 0.

    Raises:
        ModelError: It is neither a tensor, a mapping, nor a sequence.
    """
    if isinstance(returned, torch.Tensor):
        return {0: returned}
    if isinstance(returned, Mapping):
        return dict(returned)
    if isinstance(returned, (tuple, list)):
        return dict(enumerate(returned))
    raise ModelError(
        f"the model returns {type(returned).__name__}, not tensors",
        "Its forward has to return a tensor, a tuple of tensors, or a dict of tensors.",
    )


def run(
    module: nn.Module, inputs: Mapping[str, torch.Tensor], constants: Mapping[str, Any] | None = None
) -> Any:
    """Run a module once without gradients.

    Args:
        module: The module.
        inputs: Keyword name -> tensor.
        constants: Further keyword arguments.

    Raises:
        ModelError: The forward fails; its error is passed on in one line.
    """
    try:
        with torch.no_grad():
            return module(**inputs, **(constants or {}))
    except (Exception, SystemExit) as error:  # user code may raise anything
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in inputs.items())
        line = next((text.strip() for text in str(error).splitlines() if text.strip()), "")
        raise ModelError(
            f"the model fails on inputs ({shapes}): {type(error).__name__}: {line[:300]}"
        ) from error
