"""Texts that a causal language model writes itself, from the beginnings of given ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from edgekit.model import TorchModel

Written = dict[str, torch.Tensor]
"""A model's inputs [rows, length], on the CPU; the attention mask is 0 behind the token that ends a text."""


def prompts(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the beginnings of a batch's texts, all of the same length: half of the shortest text's.

    With one length nothing is padded in front of what is written.

    Args:
        inputs: `input_ids` and `attention_mask`, both [rows, sequence].

    Returns:
        int64 [rows, at least 1].
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    shortest = int(mask.sum(dim=1).min())
    length = max(1, shortest // 2)
    return torch.stack([row[real][:length] for row, real in zip(ids, mask, strict=True)])


@torch.no_grad()
def written(model: TorchModel, begun: torch.Tensor, length: int) -> Written:
    """Let a model go on with texts, each token drawn from its own probabilities by torch's generator.

    Keys and values are kept from token to token where the model can, which changes nothing but the time.

    Source: Agarwal et al. 2024, arXiv:2306.13649 (GKD), which draws at a temperature of 1.

    Args:
        model: Gives logits for the token after each one.
        begun: int64 [rows, tokens], the prompts, without padding.
        length: Tokens of the texts with their prompts; one that the model ends itself is shorter.
    """
    device = next(model.module.parameters()).device
    following = _Following(model)
    ends = torch.tensor(_ends(model), dtype=torch.int64, device=device)
    ids = begun.to(device)
    mask = torch.ones_like(ids)
    alive = torch.ones(len(ids), 1, dtype=torch.bool, device=device)
    padding: Any = getattr(model.preprocessor, "padding")  # noqa: B009  only texts are written
    while ids.shape[1] < length and bool(alive.any()):
        chances = torch.softmax(following(ids).float(), dim=-1)
        drawn = torch.multinomial(chances, 1)
        ids = torch.cat([ids, torch.where(alive, drawn, padding.id)], dim=1)
        mask = torch.cat([mask, alive.long()], dim=1)
        alive &= ~torch.isin(drawn, ends)
    ids, mask = ids.cpu(), mask.cpu()
    columns = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: columns[name] for name in model.input_names}


class _Following:
    """Texts so far [rows, tokens] → logits of the next token [rows, vocabulary]."""

    def __init__(self, model: TorchModel) -> None:
        self._module = model.module
        self._inner: nn.Module | None = None
        self._past: Any = None
        self._done = 0
        if "use_cache" in getattr(model.module, "constants", {}):
            self._inner = model.module.get_submodule("model")

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        if self._inner is None:
            whole = self._module(input_ids=ids, attention_mask=torch.ones_like(ids))
            logits = next(iter(whole.values())) if isinstance(whole, Mapping) else whole[0]
        else:
            new = ids[:, self._done :]
            returned = self._inner(
                input_ids=new, past_key_values=self._past, use_cache=True, return_dict=True
            )
            logits, self._past, self._done = returned.logits, returned.past_key_values, ids.shape[1]
        return logits[:, -1]


def _ends(model: TorchModel) -> list[int]:
    """Return the tokens after which a text is over."""
    try:
        config: Any = getattr(model.module.get_submodule("model"), "config", None)
    except AttributeError:
        return []
    found = getattr(config, "eos_token_id", None)
    return [] if found is None else list(found) if isinstance(found, (list, tuple)) else [found]
