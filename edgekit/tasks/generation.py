"""Causal language models: logits [batch, sequence, vocabulary] for the token after each one.

Only whole texts in one graph: there is no cache of keys and values, so an app that generates runs the text
so far again for every token. What this task is for is scoring, ranking, completing by a few tokens, and
seeing what quantization and compression do to a language model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.golden import Golden
from edgekit.record import Check, OutputError
from edgekit.tasks.base import Comparison, Gate, Modality, Outputs, gated
from edgekit.tasks.measures import kl_divergences, mean, sample_pairs

_AGREEMENT = Gate(
    "top1_agreement",
    "Same most likely next token as the float model",
    ">=",
    0.95,
    "many next tokens are near ties, which int8 may decide the other way; more than one in 20 changes what "
    "greedy decoding writes within a sentence",
)
_KL = Gate(
    "kl_mean",
    "Distance of the next token's probabilities, mean KL",
    "<=",
    0.02,
    "at 0.02 nats the probabilities differ by at most 10 points in sum (Pinsker's inequality), and the "
    "perplexity on what the float model itself would write rises by 2 %",
    "nats",
)
_PERPLEXITY = Gate(
    "perplexity_ratio",
    "Perplexity over the float model's",
    "<=",
    1.02,
    "each token of the user's texts may become 2 % less likely, which is what the gate of the KL allows on "
    "the model's own texts",
)


@dataclass(frozen=True)
class TextGeneration:
    """The next token after each one of a text; the labels are the text's own tokens."""

    name: str = "text-generation"
    modality: Modality | None = "text"
    gates: tuple[Gate, ...] = (_AGREEMENT, _KL, _PERPLEXITY)
    shown: tuple[str, ...] = ("perplexity_float", "perplexity_quantized")

    def compare(self, golden: Golden, outputs: Sequence[Outputs]) -> Comparison:
        """Compare by equal most likely tokens, by KL, and by the perplexity of the user's texts.

        Padding does not count. Without two tokens in a row there are no checks of perplexity.
        """
        agreement, kl, ratio = self.gates
        name = golden.output_names[0]
        pairs = sample_pairs(golden, outputs, name)
        divergences = [kl_divergences(pair.reference, pair.other) for pair in pairs]
        same = [_same_choice(pair.reference, pair.other) for pair in pairs]
        texts = _tokens(golden)
        losses = [
            (surprisals(pair.reference, ids), surprisals(pair.other, ids))
            for pair, ids in zip(pairs, texts, strict=True)
        ]
        checks = [gated(agreement, mean(np.concatenate(same))), gated(kl, mean(np.concatenate(divergences)))]
        before, after = (np.concatenate([loss[side] for loss in losses]) for side in (0, 1))
        if len(before):
            said = f"on {len(before)} tokens of the user's texts"
            checks += [
                Check(
                    "perplexity_float",
                    "Perplexity of the float model",
                    _power(mean(before)),
                    "",
                    "<=",
                    why=said,
                ),
                Check(
                    "perplexity_quantized",
                    "Perplexity of this model",
                    _power(mean(after)),
                    "",
                    "<=",
                    why=said,
                ),
                gated(ratio, _power(mean(after) - mean(before))),
            ]
        per_sample = sorted(map(mean, divergences))
        return Comparison(tuple(checks), (OutputError(name, "kl_nats", tuple(per_sample)),))

    def within(self, max_drop: float, *, labelled: bool) -> dict[str, float]:
        """Return the thresholds of an allowed loss: of the texts' probability per token."""
        return {"perplexity_ratio": 1 / (1 - max_drop)}


def surprisals(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return -log p of each token of a text but the first, in nats.

    Args:
        logits: [tokens, vocabulary]; row i is about token i + 1.
        ids: [tokens].
    """
    rows = logits[:-1]
    with np.errstate(invalid="ignore"):
        top = rows.max(axis=-1, initial=-math.inf)
        total = top + np.log(np.exp(rows - top[:, None]).sum(axis=-1))
    return np.asarray(total - rows[np.arange(len(rows)), ids[1:]])


def _same_choice(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return 1 where the most likely tokens are the same, NaN where a logit is not finite."""
    finite = np.isfinite(reference).all(axis=-1) & np.isfinite(other).all(axis=-1)
    same = reference.argmax(axis=-1) == other.argmax(axis=-1)
    return np.where(finite, same.astype(np.float64), math.nan)


def _tokens(golden: Golden) -> list[np.ndarray]:
    """Return the tokens of each text, without padding, in the order of `sample_pairs`."""
    texts = []
    for batch in golden.batches:
        ids = batch.inputs["input_ids"]
        mask = batch.inputs.get("attention_mask", np.ones_like(ids)).astype(bool)
        texts += [row[keep] for row, keep in zip(ids, mask, strict=True)]
    return texts


def _power(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf  # beyond it a float64 overflows
