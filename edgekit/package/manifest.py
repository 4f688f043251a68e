"""`manifest.json`: what a package is, how it was made, and a digest of every file in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edgekit.errors import PackageError
from edgekit.model import Signature
from edgekit.profile import TargetProfile
from edgekit.record import Footprint
from edgekit.store import sha256_file

SCHEMA_VERSION = 1
NAME = "manifest.json"
_AGAIN = "Export the model again."


class _File(BaseModel):
    sha256: str
    bytes: int


class _Layout(BaseModel):
    """What reading a manifest relies on; there is more in it."""

    files: dict[str, _File]
    graphs: dict[str, str]
    profile: dict[str, Any]
    signature: dict[str, Any]
    float: dict[str, Any]
    model: dict[str, Any]
    target: str
    preprocessing: dict[str, Any] = {}


@dataclass(frozen=True)
class Package:
    """A package on disk whose files are the ones that were written.

    Attributes:
        path: The folder.
        manifest: The parsed `manifest.json`.
    """

    path: Path
    manifest: Mapping[str, Any]

    @property
    def model(self) -> Path:
        """The graph to run.

        Raises:
            PackageError: The manifest names none.
        """
        if "model" not in self.manifest["graphs"]:
            raise PackageError(f"{self.path / NAME} names no graph 'model'", _AGAIN)
        return self.path / str(self.manifest["graphs"]["model"])

    @property
    def golden(self) -> Path:
        """Recorded inputs with the float model's outputs."""
        return self.path / "golden.npz"

    @property
    def signature(self) -> Signature:
        """Inputs and outputs of the graph."""
        return Signature.from_json(self.manifest["signature"])

    @property
    def profile(self) -> TargetProfile:
        """The target's rules as they were applied."""
        try:
            return TargetProfile.model_validate(self.manifest["profile"])
        except ValidationError as error:
            raise PackageError(
                f"{self.path / NAME}: this edgekit cannot read its profile: {error.errors()[0]['msg']}",
                "Validate it with the edgekit version that wrote it.",
            ) from None

    @property
    def max_length(self) -> int | None:
        """Longest token sequence that the graph takes; None where it takes no text."""
        truncation = self.manifest.get("preprocessing", {}).get("truncation")
        length = truncation.get("max_length") if isinstance(truncation, dict) else None
        return length if isinstance(length, int) and length > 0 else None

    @property
    def float_size(self) -> Footprint:
        """Size of the float graph that the package was made from."""
        sizes = {key: self.manifest["float"].get(key) for key in ("file_bytes", "compressed_bytes")}
        if not all(isinstance(size, int) and size > 0 for size in sizes.values()):
            raise PackageError(f"{self.path / NAME} does not say how large the float graph is", _AGAIN)
        return Footprint(**sizes)


def file_digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Return every file below a folder but the manifest: relative name -> SHA-256 and bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        for path in files
    }


def open_package(path: Path) -> Package:
    """Return the package in a folder, after checking that every file is the one that was written.

    Raises:
        PackageError: No manifest, another schema, or a file that is missing, changed or does not belong.
    """
    manifest_path = path / NAME
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise PackageError(
            f"{path} is not a package: it has no {NAME}",
            "Give a folder that `edgekit export` made, OUTPUT/TARGET.",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise PackageError(f"{manifest_path} cannot be read: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        found = manifest.get("schema_version") if isinstance(manifest, dict) else type(manifest).__name__
        raise PackageError(f"{manifest_path} has schema version {found}, this edgekit reads {SCHEMA_VERSION}")
    try:
        layout = _Layout.model_validate(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        said = f"has no '{key}'" if first["type"] == "missing" else f"makes no sense: {key}: {first['msg']}"
        raise PackageError(f"{manifest_path} {said}", _AGAIN) from None
    for file in layout.graphs.values():
        if file not in layout.files:
            raise PackageError(f"the manifest of {path} names a graph that is not in it: {file}", _AGAIN)
    _check_files(path, manifest["files"])
    return Package(path, manifest)


def _check_files(path: Path, recorded: Mapping[str, Mapping[str, Any]]) -> None:
    hint = "The package was changed after it was made; export the model again."
    found = file_digests(path)
    for name, entry in recorded.items():
        if name not in found:
            raise PackageError(f"{path} lacks {name}", hint)
        if found[name]["sha256"] != entry["sha256"]:
            raise PackageError(f"{path / name} is not the file that was packaged (its SHA-256 differs)", hint)
    extra = sorted(found.keys() - recorded.keys())
    if extra:
        raise PackageError(f"{path / extra[0]} does not belong to the package", hint)
