"""`TargetReport`: everything that report.json says about one model on one target."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import __version__
from edgekit.errors import PackageError
from edgekit.machine import Machine
from edgekit.model import Signature
from edgekit.profile import TargetProfile
from edgekit.record import StepRecord, Verdict

if TYPE_CHECKING:
    from edgekit.validate.candidates import Candidate
    from edgekit.validate.explanation import Explanation

SCHEMA_VERSION = 1

Document = Mapping[str, Any]
"""The JSON form of a `TargetReport`; what every renderer takes."""

_SHAPE: dict[str, Any] = {
    "schema_version": SCHEMA_VERSION,
    "edgekit_version": "",
    "model": {"name": "model", "task": "", "source_sha256": ""},
    "profile": {"name": "", "title": "", "status": "", "sources": {}, "policy": {}},
    "signature": {"inputs": [], "outputs": []},
    "machine": {},
    "versions": {},
    "verdict": {
        "target": "",
        "checks": [],
        "latency": [],
        "latency_note": "",
        "float_size": {},
        "quantized_size": {},
        "output_errors": [],
        "notes": [],
        "executions": [],
        "level": "unverified",
        "passed": None,
    },
    "history": [],
    "data": None,
    "explanation": None,
    "candidates": [],
    "command": "",
}

_KINDS: dict[type, str] = {dict: "object", list: "list", str: "string"}


@dataclass(frozen=True)
class TargetReport:
    """One model on one target: what was made, how, from what, and how it measured.

    Attributes:
        model_name: Short readable name of the model.
        task: Name of the task.
        source_sha256: Digest of the weights and configuration.
        profile: The target's rules as they were applied.
        signature: Inputs and outputs of the shipped graph.
        machine: Where it was measured.
        versions: Package -> version.
        verdict: Every measured value.
        history: Every step since the model was loaded.
        command: The command line that makes this again.
        data: The audit of calibration and validation data, as JSON values; None where there was none.
        explanation: Where the time of the shipped graph goes; None where nothing was timed.
        candidates: The forms that it could ship in, side by side; empty where they were not asked for.
    """

    model_name: str
    task: str
    source_sha256: str
    profile: TargetProfile
    signature: Signature
    machine: Machine
    versions: Mapping[str, str]
    verdict: Verdict
    history: tuple[StepRecord, ...]
    command: str
    data: Mapping[str, Any] | None = None
    explanation: Explanation | None = None
    candidates: tuple[Candidate, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the report as strict JSON values; NaN and infinities become strings such as `Infinity`."""
        strict = strict_json(
            {
                "schema_version": SCHEMA_VERSION,
                "edgekit_version": __version__,
                "model": {"name": self.model_name, "task": self.task, "source_sha256": self.source_sha256},
                "profile": self.profile.model_dump(mode="json"),
                "signature": self.signature.to_json(),
                "machine": self.machine.to_json(),
                "versions": dict(self.versions),
                "verdict": self.verdict.to_json(),
                "history": [record.to_json() for record in self.history],
                "data": self.data,
                "explanation": self.explanation.to_json(every_node=False) if self.explanation else None,
                "candidates": [candidate.to_json() for candidate in self.candidates],
                "command": self.command,
            }
        )
        assert isinstance(strict, dict)
        return strict


def load_reports(path: Path) -> list[dict[str, Any]]:
    """Return the reports in a saved report.json, each complete enough for every renderer.

    Args:
        path: A package's report.json (one target), or the one beside the packages (all of them).

    Raises:
        PackageError: The file is missing, is not JSON, or is not a report that this version reads.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackageError(
            f"report not found: {path}", "Check the path, or export the model again."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PackageError(f"report {path} is not valid JSON: {error}", "Export the model again.") from None
    except OSError as error:
        raise PackageError(f"report {path} cannot be read: {error.strerror}") from None
    entries = table.get("targets", [table]) if isinstance(table, dict) else None
    if not isinstance(entries, list) or not all(isinstance(e, dict) and "verdict" in e for e in entries):
        raise PackageError(f"{path} is not an edgekit report", "Give the report.json of a package.")
    for entry in entries:
        schema = entry.get("schema_version")
        if schema != SCHEMA_VERSION:
            raise PackageError(
                f"report {path} has schema version {schema!r}, this edgekit reads {SCHEMA_VERSION}",
                "Read it with the edgekit version that wrote it.",
            )
    return [completed(entry) for entry in entries]


def completed(document: Document) -> dict[str, Any]:
    """Return a report in JSON form with every key that renderers look at; unknown keys are kept.

    Raises:
        PackageError: A key holds a value of another kind than a report has there.
    """
    return _with_defaults(document, _SHAPE)


def _with_defaults(value: Mapping[str, Any], shape: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(value)
    for key, default in shape.items():
        found = out.get(key)
        kind = type(default)
        if found is not None and kind in (dict, list, str) and not isinstance(found, kind):
            raise PackageError(
                f"the report's '{key}' is not a JSON {_KINDS[kind]}", "Export the model again."
            )
        if isinstance(default, dict):
            out[key] = _with_defaults(found or {}, default)
        elif found is None:
            out[key] = default
    return out


def strict_json(value: Any) -> Any:
    """Return `value` in types that strict JSON has: lists for tuples, strings for NaN and infinities."""
    if isinstance(value, Mapping):
        return {str(key): strict_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
