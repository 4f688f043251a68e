"""Packages on every runner that is ready here: what `edgekit validate PACKAGE --on all` finds, kept.

Run from the checkout, after `edgekit runners install all`:
    python -m benchmarks.matrix build/bench/cpu-x86-portable build/digits/arm64 ...
What `export --keep-float` leaves beside the packages is timed, or counted, against them.
Writes benchmarks/results/matrix.json (packages that are not given stay); then: make docs
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from edgekit.machine import read_machine, versions
from edgekit.package import open_package
from edgekit.report.document import completed, strict_json
from edgekit.report.matrix import matrix_rows
from edgekit.revalidation import revalidate
from edgekit.runners.table import RUNNERS, kits
from edgekit.store import dump_json, write_text

OUTPUT = Path(__file__).parent / "results" / "matrix.json"


def measure(path: Path) -> dict[str, Any]:
    """Return the matrix of one package, with the seconds that it took."""
    package, begin = open_package(path), time.perf_counter()
    floats = sorted(path.parent.glob("float-opset*.onnx"))
    verdict = revalidate(
        path,
        on=("all",),
        float_path=floats[0] if floats else None,
        progress=lambda stage, message, share: print(message, flush=True),
    )
    return {
        "model": package.manifest["model"]["name"],
        "target": package.profile.name,
        "seconds": time.perf_counter() - begin,
        "executions": strict_json([row.to_json() for row in verdict.executions]),
    }


def runners_table() -> list[tuple[str, ...]]:
    """Return one row per runner for the documentation: name, level, what it is, its kit."""
    return [
        (f"`{runner.name}`", runner.level, runner.title, f"`{runner.kit.name}`" if runner.kit else "–")
        for runner in RUNNERS
    ]


def kits_table() -> list[tuple[str, ...]]:
    """Return one row per kit: name, what is in it, size of the downloads."""
    return [(f"`{kit.name}`", kit.title, f"{kit.download_bytes / 1e6:.1f} MB") for kit in kits()]


def matrix_sections(results: dict[str, Any]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Return (title, rows) per measured package; a row is what the report says of a runner."""
    found = []
    for entry in results["packages"]:
        document = completed({"verdict": {"target": entry["target"], "executions": entry["executions"]}})
        rows = [
            (
                f"`{row.runner}`",
                row.level,
                row.state if row.outcome == "ran" else row.outcome,
                ", ".join(finding.text for _, finding in row.quality) or "–",
                row.native,
                "; ".join(row.misses) or "–",
                "; ".join(row.speed) or "–",
                row.memory,
                row.runtime,
                f"{seconds:.1f} s",
            )
            for row, seconds in zip(
                matrix_rows(document), (e["seconds"] for e in entry["executions"]), strict=True
            )
        ]
        title = f"{entry['model']} for `{entry['target']}`: {len(rows)} runners in {entry['seconds']:.0f} s"
        found.append((title, rows))
    return found


def main(paths: list[Path]) -> None:
    """Measure packages and keep what was found."""
    kept = json.loads(OUTPUT.read_text(encoding="utf-8"))["packages"] if OUTPUT.is_file() else []
    fresh = [measure(path) for path in paths]
    names = {(entry["model"], entry["target"]) for entry in fresh}
    old = [entry for entry in kept if (entry["model"], entry["target"]) not in names]
    machine = {"machine": read_machine().to_json(), "versions": versions()}
    write_text(OUTPUT, dump_json({**machine, "packages": [*old, *fresh]}))


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
