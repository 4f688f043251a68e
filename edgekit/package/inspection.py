"""What is in a package: its graphs, its target, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import PackageError
from edgekit.package.manifest import open_package
from edgekit.validate.inspection import Inspection, inspect_file


@dataclass(frozen=True)
class PackageInspection:
    """What is in a package whose files are the ones that were written.

    Attributes:
        path: The folder.
        name: Name of the model.
        task: What it is for.
        target: Name of the profile it was made for.
        min_runtime: Oldest ONNX Runtime release that loads it; empty where the manifest does not say.
        graphs: Graph name -> what is in its file.
        files: File name -> bytes.
        history: Every step since the model was loaded, as the manifest records them.
    """

    path: Path
    name: str
    task: str
    target: str
    min_runtime: str
    graphs: Mapping[str, Inspection]
    files: Mapping[str, int]
    history: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the inspection as JSON values."""
        return {
            "path": str(self.path),
            "name": self.name,
            "task": self.task,
            "target": self.target,
            "min_runtime": self.min_runtime,
            "graphs": {name: graph.to_json() for name, graph in self.graphs.items()},
            "files": dict(self.files),
            "history": [dict(record) for record in self.history],
        }


def inspect_package(path: Path) -> PackageInspection:
    """Return what is in a package.

    Raises:
        PackageError: No manifest, a file that is missing or changed, or a manifest that makes no sense.
        ModelError: A graph is not ONNX.
    """
    manifest = open_package(path).manifest
    try:
        files = {str(name): int(entry["bytes"]) for name, entry in manifest["files"].items()}
        graphs = {str(name): str(file) for name, file in manifest["graphs"].items()}
        model, target = manifest["model"], str(manifest["target"])
        name, task = str(model["name"]), str(model.get("task", ""))
        history = tuple(dict(record) for record in manifest.get("history", ()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        detail = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        raise PackageError(
            f"the manifest of {path} makes no sense: {detail}", "Export the model again."
        ) from None
    return PackageInspection(
        path=path,
        name=name,
        task=task,
        target=target,
        min_runtime=str(manifest.get("min_runtime", "")),
        graphs={graph: inspect_file(path / file) for graph, file in graphs.items()},
        files=files,
        history=history,
    )
