"""The loss waterfall: what each stage left of the original's quality, on the same held-out samples.

From the model as it was loaded, through every technique, to the file that ships and the places where it ran.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.report import wording
from edgekit.report.document import Document

_RISES = ("kl_mean", "accuracy_drop", "perplexity_ratio", "max_relative_error")
"""Measures of which more is worse."""

_NOT_SHOWN = ("accuracy_float",)
_MOST = 4


@dataclass(frozen=True)
class Stage:
    """One row: a stage, and how close the outputs are to the original's after it.

    Attributes:
        name: The technique, `quantized`, or the runner.
        did: What it did, in a sentence; empty for a runner.
        parameters: Of the model after it; None where they are not the question.
        values: (name of the measure, value) in the task's order.
        spent: Part of the first measure that this stage cost; negative where it won some back.
    """

    name: str
    did: str
    parameters: int | None
    values: tuple[tuple[str, float], ...]
    spent: float | None

    @property
    def figures(self) -> tuple[tuple[str, str], ...]:
        """The values with their measures' short names, as text."""
        return tuple((wording.SHORT.get(n, n.replace("_", " ")), f"{v:.4f}") for n, v in self.values)


def stages(history: Sequence[Mapping[str, Any]]) -> tuple[Stage, ...]:
    """Return a row per technique; empty where the model was not compressed.

    Args:
        history: Records in JSON form.
    """
    rows: list[Stage] = []
    for record in history:
        facts = record.get("facts") or {}
        quality = facts.get("quality")
        if record.get("stage") not in ("compress", "distill") or not quality:
            continue
        after = facts.get("parameters_after")
        rows.append(_stage(str(record["step"]), str(record["did"]), after, quality, rows))
    return tuple(rows)


def waterfall(document: Document) -> tuple[Stage, ...]:
    """Return the whole way of one report: techniques, the shipped file here, then where else it ran."""
    rows = list(stages(document["history"]))
    if not rows:
        return ()
    wanted = [name for name, _ in rows[0].values]
    rows.append(
        _stage(
            "quantized", "The file that ships, run here.", None, _measures(document["verdict"], wanted), rows
        )
    )
    shipped = rows[-1]
    for execution in document["verdict"]["executions"]:
        values = _measures(execution, wanted)
        if execution.get("outcome") == "ran" and values:
            rows.append(_stage(str(execution["runner"]), "", None, values, [shipped]))
    return tuple(rows)


def _measures(entry: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, float]:
    found = {check["name"]: wording.number(check["measured"]) for check in entry["checks"]}
    return {name: value for name in wanted if (value := found.get(name)) is not None}


def _stage(
    name: str, did: str, parameters: int | None, quality: Mapping[str, Any], before: Sequence[Stage]
) -> Stage:
    values = tuple(
        (measure, value)
        for measure, raw in quality.items()
        if measure not in _NOT_SHOWN and (value := wording.number(raw)) is not None
    )[:_MOST]
    if not values:
        return Stage(name, did, parameters, (), None)
    measure, value = values[0]
    sign = -1 if measure in _RISES else 1
    whole = 0.0 if measure in _RISES else 1.0
    earlier = dict(before[-1].values).get(measure, whole) if before else whole
    return Stage(name, did, parameters, values, sign * (earlier - value))
