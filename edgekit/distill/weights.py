"""Which losses a task has, and what each counts where nobody says."""

from __future__ import annotations

from edgekit.distillation import LossOptions
from edgekit.errors import RecipeError

USUAL: dict[str, dict[str, float]] = {
    "sentence-embedding": {"cosine": 1.0, "similarity": 0.0, "anchors": 0.0, "contrastive": 0.0},
    "feature-extraction": {"cosine": 1.0},
    "text-classification": {"soft": 1.0, "hard": 0.5, "reverse": 0.0},
    "token-classification": {"soft": 1.0, "hard": 0.5, "reverse": 0.0},
    "image-classification": {"soft": 1.0, "hard": 0.5, "reverse": 0.0},
    "multi-label-text-classification": {"soft": 1.0},
    "multi-label-image-classification": {"soft": 1.0},
    "text-generation": {"soft": 1.0, "hard": 0.0, "reverse": 0.0},
}
"""Task -> the losses on its outputs, with what each counts where the options say nothing.

Similarities within a batch count nothing: at a temperature of 0.05 they outweigh the cosine. A student of
all-MiniLM-L6-v2 with two layers, at a rate of 1e-4, brought 1 - cosine from 0.191 to 0.153 in 12,800 samples
without them, and to 0.188 in 25,600 with them, where its rank correlation on other texts was lower as well.

Next tokens are learnt from the teacher alone, as the student is to stay close to it and not to the text.
Source: Muralidharan et al. 2024, arXiv:2407.14679 (Minitron), whose best practice is the teacher's logits.
"""

ON_LAYERS: dict[str, float] = {"hidden": 0.1, "relations": 0.0}
"""Losses on the layers of transformers, for every task, likewise."""

COMPARISONS = frozenset({"similarity", "anchors"})
"""Losses that ask how texts resemble each other, and rise from where `comparisons_from` says."""

_NEED_LABELS = ("hard", "contrastive")
_GRADES = ("soft", "reverse")
"""What a teacher says of texts that a student wrote."""


def weights_of(task: str, options: LossOptions, *, labelled: bool, layered: bool) -> dict[str, float]:
    """Return what each loss counts; those that count nothing are left out.

    Args:
        task: Of teacher and student.
        options: What was asked for.
        labelled: The data has labels.
        layered: The layers of teacher and student are known.

    Raises:
        RecipeError: A loss was asked for that this task, these models or this data do not have, or nothing is
            left to learn from.
    """
    if task not in USUAL:
        raise RecipeError(
            f"there are no losses for the task {task}", f"Models can be distilled for: {', '.join(USUAL)}."
        )
    usual = {**USUAL[task], **(ON_LAYERS if layered else {})}
    labelled = labelled or task == "text-generation"  # a text labels itself
    found: dict[str, float] = {}
    for name in (*{key for table in USUAL.values() for key in table}, *ON_LAYERS):
        asked = getattr(options, name)
        wanted = bool(asked) and name in options.model_fields_set
        if wanted and name not in usual:
            where = "models whose layers edgekit does not know" if name in ON_LAYERS else task
            raise RecipeError(
                f"[distill.losses] {name} is nothing for {where}", f"Possible are: {', '.join(usual)}."
            )
        if wanted and name in _NEED_LABELS and not labelled:
            raise RecipeError(
                f"[distill.losses] {name} needs labels, and the data has none",
                "Name their column: label_column in [distill], or --label-column.",
            )
        if name in usual and (labelled or name not in _NEED_LABELS):
            found[name] = usual[name] if asked is None else asked
    weights = {name: found[name] for name in usual if found.get(name)}
    if not weights:
        raise RecipeError("every loss counts nothing: there is nothing to learn from", "Leave one above 0.")
    if options.comparisons_from is not None and not COMPARISONS & weights.keys():
        raise RecipeError(
            "[distill.losses] comparisons_from is there, and no loss that compares texts",
            "Give similarity or anchors a weight, or leave it out.",
        )
    if options.on_policy and task != "text-generation":
        raise RecipeError(
            f"[distill.losses] on_policy is nothing for {task}",
            "Only language models write texts themselves.",
        )
    if options.on_policy and not any(name in weights for name in _GRADES):
        raise RecipeError(
            "[distill.losses] on_policy needs a loss by which the teacher grades what the student wrote",
            f"Leave {' or '.join(_GRADES)} above 0.",
        )
    return weights
