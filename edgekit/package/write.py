"""Verdict + OnnxModel -> Package: a folder that an app can load."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.errors import GateError
from edgekit.golden import Golden
from edgekit.model import OnnxModel
from edgekit.package.htp_context import write_htp_context
from edgekit.package.manifest import NAME, SCHEMA_VERSION, Package, file_digests
from edgekit.package.ort_format import check_ort_format, write_ort_format
from edgekit.package.readme import readme
from edgekit.profile import TargetProfile
from edgekit.recipe import Recipe, to_toml
from edgekit.record import Clock, StepRecord, Verdict
from edgekit.store import dump_json, write_text


@dataclass(frozen=True)
class Contents:
    """What goes into a package beside the graph.

    Attributes:
        name: Readable name of the model.
        task: Name of its task.
        source_sha256: Digest of the weights that it was made from.
        preprocessing: What an app has to do before the graph, as JSON values.
        files: Tokenizer and preprocessor files, copied as they are.
        config: The model's configuration, written as config.json.
        recipe: The resolved request.
        versions: Package -> version of what made it.
    """

    name: str
    task: str
    source_sha256: str
    preprocessing: Mapping[str, Any]
    files: tuple[Path, ...]
    config: Mapping[str, Any]
    recipe: Recipe
    versions: Mapping[str, str]


def write_package(
    folder: Path,
    model: OnnxModel,
    golden: Path,
    profile: TargetProfile,
    verdict: Verdict,
    contents: Contents,
) -> tuple[Package, tuple[StepRecord, ...]]:
    """Fill an empty folder with the package, all but `report.json`; see `seal`.

    Args:
        folder: Exists and is empty; becomes the package.
        model: The graph to ship.
        golden: Its golden file.
        profile: The target.
        verdict: Must have passed.
        contents: What goes beside the graph.

    Returns:
        The package, and what packaging did.

    Raises:
        GateError: The verdict did not pass: such a package is never written.
    """
    if not verdict.passed:
        raise GateError(f"{profile.name}: {verdict.failed[0].title} missed its budget; no package is written")
    clock, records = Clock(), []
    shutil.copyfile(model.only.path, folder / "model.onnx")
    shutil.copyfile(golden, folder / "golden.npz")
    for file in contents.files:
        if file.name != "config.json":
            shutil.copyfile(file, folder / file.name)
    if contents.config:
        write_text(folder / "config.json", dump_json(dict(contents.config)))
    write_text(folder / "recipe.toml", to_toml(contents.recipe))
    if profile.packaging.ort_format:
        platform = profile.packaging.ort_platform
        budgets = {check.name: check.budget for check in verdict.checks if check.budget is not None}
        records.append(write_ort_format(folder / "model.onnx", folder, platform=platform))
        records.append(check_ort_format(folder, Golden.load(golden), budgets))
    archs = profile.packaging.htp_archs
    records.extend(write_htp_context(folder / "model.onnx", folder, arch) for arch in archs)
    records.append(clock.record("package", "folder", f"wrote the package for {profile.name}"))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "edgekit_version": __version__,
        "model": {"name": contents.name, "task": contents.task, "source_sha256": contents.source_sha256},
        "target": profile.name,
        "profile": profile.model_dump(mode="json"),
        "graphs": {"model": "model.onnx"},
        "signature": model.only.signature.to_json(),
        "opset": model.opset,
        "ir_version": model.ir_version,
        "min_runtime": profile.onnx.min_runtime,
        "preprocessing": dict(contents.preprocessing),
        "float": {
            "file_bytes": verdict.float_size.file_bytes,
            "compressed_bytes": verdict.float_size.compressed_bytes,
        },
        "versions": dict(contents.versions),
        "verified": {
            "level": verdict.level,
            "executions": [row.to_json(measured=False) for row in verdict.executions],
        },
        "history": [record.to_json(measured=False) for record in (*model.history, *records)],
        "files": file_digests(folder),
    }
    write_text(folder / "README.md", readme(manifest, profile, verdict.checks))
    return Package(folder, manifest), tuple(records)


def seal(package: Package, report: Mapping[str, Any]) -> Package:
    """Write `report.json`, then the manifest with the digest of every file; return the finished package."""
    write_text(package.path / "report.json", dump_json(dict(report)))
    manifest = {**package.manifest, "files": file_digests(package.path)}
    write_text(package.path / NAME, dump_json(manifest))
    return Package(package.path, manifest)
