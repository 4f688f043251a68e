"""A model's `config.json`: read, refused where it asks for foreign code, cleaned for shipping."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from edgekit.errors import ModelError
from edgekit.source.checkpoint import read_json


def read_config(folder: Path) -> dict[str, Any]:
    """Return `config.json`, refused where loading it could run code that came with the model.

    Raises:
        ModelError: The file is damaged, its model type is unknown to the installed transformers, its class
            exists only as remote code, it names attention code to fetch, or the weights are quantized.
    """
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = read_json(folder / "config.json")
    model_type, classes = config.get("model_type"), architectures(config)
    known = isinstance(model_type, str) and model_type in CONFIG_MAPPING
    if config.get("auto_map") and not (known and all(hasattr(transformers, name) for name in classes)):
        raise ModelError(
            f"{folder} needs remote code (auto_map in config.json), which edgekit never runs",
            "Import the model's code yourself and give it as package.module:factory.",
        )
    if not known:
        raise ModelError(
            f"{folder}: transformers {transformers.__version__} does not know the model type {model_type!r}",
            "Install a newer transformers, or give the model as package.module:factory.",
        )
    for key, value in _entries(config):
        # Source: CVE-2026-4372, config-driven code loading through `_attn_implementation_internal`.
        if key.endswith("_implementation_internal") or (
            key.endswith("_implementation") and isinstance(value, str) and "/" in value
        ):
            raise ModelError(
                f"{folder}: config.json names code to fetch ({key} = {value!r})",
                "Remove the key from config.json.",
            )
    if config.get("quantization_config"):
        raise ModelError(
            f"{folder} holds weights that are quantized already", "Give the original float checkpoint."
        )
    return config


def architectures(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the class names that a config lists."""
    names = config.get("architectures")
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def shippable(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config without entries that hold a path of the machine it was made on."""

    def is_path(value: Any) -> bool:
        return isinstance(value, str) and (
            PurePosixPath(value).is_absolute()
            or PureWindowsPath(value).is_absolute()
            or value.startswith("~")
        )

    return {
        key: shippable(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if not is_path(value)
    }


def _entries(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        yield key, value
        if isinstance(value, dict):
            yield from _entries(value)
