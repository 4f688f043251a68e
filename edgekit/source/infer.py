"""Which task a checkpoint is for, and which transformers class loads it for a task."""

from __future__ import annotations

from typing import Any

from edgekit.errors import ModelError, RecipeError, nearest
from edgekit.source.config import architectures

# Task -> (the transformers class that loads it, the output it uses; None: every output).
TRANSFORMERS_TASKS: dict[str, tuple[str, str | None]] = {
    "feature-extraction": ("AutoModel", "last_hidden_state"),
    "text-classification": ("AutoModelForSequenceClassification", "logits"),
    "token-classification": ("AutoModelForTokenClassification", "logits"),
    "image-classification": ("AutoModelForImageClassification", "logits"),
    "multi-label-text-classification": ("AutoModelForSequenceClassification", "logits"),
    "multi-label-image-classification": ("AutoModelForImageClassification", "logits"),
    "text-generation": ("AutoModelForCausalLM", "logits"),
    "generic": ("", None),
}


def infer_task(config: dict[str, Any]) -> str:
    """Return the task of a config's architecture.

    Raises:
        ModelError: The config names no class that the installed transformers has.
        RecipeError: The class is for a task that edgekit does not know.
    """
    from optimum.exporters.tasks import TasksManager

    name = model_class(config).__name__
    try:
        task = TasksManager.infer_task_from_model(model_class(config))
    except (ValueError, KeyError):  # it does not know every class, e.g. DeiT's
        task = _task_of_class(model_class(config))
    multi_label = f"multi-label-{task}"
    if config.get("problem_type") == "multi_label_classification" and multi_label in TRANSFORMERS_TASKS:
        return multi_label
    if task in TRANSFORMERS_TASKS:
        return str(task)
    raise RecipeError(
        f"{name} is a model for {task}, which is not supported"
        if task
        else f"the task of {name} cannot be inferred",
        "Force one: --task feature-extraction exports its hidden states, --task generic all its outputs; "
        f"supported: sentence-embedding, {', '.join(TRANSFORMERS_TASKS)}.",
    )


def _task_of_class(cls: Any) -> str | None:
    """Return the task whose loader in transformers takes a model class, or None."""
    import transformers

    for task, (loader, _) in TRANSFORMERS_TASKS.items():
        found = getattr(transformers, loader)._model_mapping.get(cls.config_class, None) if loader else None
        if cls in (found if isinstance(found, tuple) else (found,)):
            return task
    return None


def check_task(task: str) -> None:
    """Check that a Hugging Face directory can be exported for a task.

    Raises:
        RecipeError: It cannot.
    """
    if task == "sentence-embedding":
        raise RecipeError(
            "sentence-embedding needs a sentence-transformers directory (modules.json says how to pool)",
            "Save the model with SentenceTransformer.save, or use --task feature-extraction.",
        )
    if task not in TRANSFORMERS_TASKS:
        raise RecipeError(f"unknown task '{task}'", nearest(task, TRANSFORMERS_TASKS))


def model_class(config: dict[str, Any]) -> Any:
    """Return the transformers class that a config names.

    Raises:
        ModelError: It names none, or one that the installed transformers does not have.
    """
    import transformers

    names = architectures(config)
    for name in names:
        found = getattr(transformers, name, None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    if not names:
        raise ModelError("config.json names no architecture, so its task cannot be inferred", "Give --task.")
    raise ModelError(
        f"transformers {transformers.__version__} has no class {names[0]}", "Install a newer transformers."
    )


def loader_class(config: dict[str, Any], task: str) -> Any:
    """Return the class whose `from_pretrained` loads the checkpoint for a task.

    Raises:
        RecipeError: transformers has no class for this model type and task.
    """
    import transformers

    name, _ = TRANSFORMERS_TASKS[task]
    if not name:
        return model_class(config)
    loader = getattr(transformers, name)
    known = {key.model_type for key in loader._model_mapping}
    if config["model_type"] not in known:
        raise RecipeError(
            f"a model of type '{config['model_type']}' cannot do the task '{task}'",
            "Leave --task out to use the task that the checkpoint was trained for.",
        )
    return loader
