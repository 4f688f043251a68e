"""What models are for: the table of tasks."""

from __future__ import annotations

from edgekit.errors import RecipeError, nearest
from edgekit.tasks.base import Task
from edgekit.tasks.classification import Classification
from edgekit.tasks.embedding import FeatureExtraction, SentenceEmbedding
from edgekit.tasks.generic import Generic

TASKS: dict[str, Task] = {
    "sentence-embedding": SentenceEmbedding(),
    "feature-extraction": FeatureExtraction(),
    "text-classification": Classification("text-classification", "text"),
    "token-classification": Classification("token-classification", "text"),
    "image-classification": Classification("image-classification", "image"),
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
