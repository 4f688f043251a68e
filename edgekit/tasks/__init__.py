"""What models are for: the table of tasks."""

from __future__ import annotations

from edgekit.errors import RecipeError, nearest
from edgekit.golden import Golden
from edgekit.recipe import Recipe
from edgekit.tasks.base import Task
from edgekit.tasks.classification import Classification
from edgekit.tasks.embedding import FeatureExtraction, SentenceEmbedding
from edgekit.tasks.generation import TextGeneration
from edgekit.tasks.generic import Generic
from edgekit.tasks.multi_label import MultiLabel
from edgekit.tasks.samples import IGNORED

TASKS: dict[str, Task] = {
    "sentence-embedding": SentenceEmbedding(),
    "feature-extraction": FeatureExtraction(),
    "text-classification": Classification("text-classification", "text"),
    "token-classification": Classification("token-classification", "text"),
    "image-classification": Classification("image-classification", "image"),
    "multi-label-text-classification": MultiLabel("multi-label-text-classification", "text"),
    "multi-label-image-classification": MultiLabel("multi-label-image-classification", "image"),
    "text-generation": TextGeneration(),
    "generic": Generic(),
}


def task_named(name: str) -> Task:
    """Return the task of a name.

    Raises:
        RecipeError: There is no such task; the nearest name is given.
    """
    if name not in TASKS:
        raise RecipeError(f"unknown task '{name}'", nearest(name, TASKS))
    return TASKS[name]


def request_gates(recipe: Recipe, golden: Golden) -> dict[str, float]:
    """Return the thresholds that a request sets, by check name; a gate of its own comes before `max_drop`.

    Args:
        recipe: The request.
        golden: What the outputs will be compared with: its task, and whether it has labels.
    """
    allowed = recipe.quantize.max_drop
    if allowed is None:
        return dict(recipe.gates)
    labels = [batch.labels for batch in golden.batches if batch.labels is not None]
    labelled = any(bool((values != IGNORED).any()) for values in labels)
    return {**task_named(golden.task).within(allowed, labelled=labelled), **recipe.gates}
