"""Put finished packages of examples/recipes under examples/models, each with its report, card and licence.

Run from the checkout, after python -m benchmarks.distillation:
python -m tools.publish_models minilm-b minilm-c
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from edgekit import open_package
from edgekit.errors import EdgekitError
from edgekit.store import write_text, writing_folder

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "examples" / "models"
BUILD = ROOT / "build" / "compression"
RESULTS = ROOT / "benchmarks" / "results" / "distillation.json"
SOURCES = ROOT / "build" / "corpus" / "sources.json"

CARD = "model_card.md.j2"


def card(
    name: str,
    results: Mapping[str, Any],
    sources: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    golden: int,
) -> str:
    """Return a model card.

    Args:
        name: Of the recipe.
        results: Of `benchmarks.distillation`.
        sources: What the corpora were made from.
        history: Of the package.
        golden: How many texts the package carries.
    """
    training = next(record["facts"] for record in history if record["step"] == "distillation")
    environment = Environment(loader=FileSystemLoader(ROOT / "tools"), undefined=StrictUndefined)
    return environment.get_template(CARD).render(
        **results,
        name=name,
        row=results["rows"][name],
        speed_up=next(s["speedup"] for s in results["speeds"][name] if s["shape"] == "1x128"),
        lessons=training["samples"],
        golden=golden,
        sources=sources,
    )


def publish(name: str, results: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> None:
    """Replace a model of examples/models by what its recipe made.

    Raises:
        PackageError: The recipe's package is not there, or a file of it is not the one that was written.
    """
    package = open_package(BUILD / name / "cpu-x86")
    with writing_folder(MODELS / name, force=True) as folder:
        shutil.copytree(package.path, folder / "cpu-x86")
        shutil.copy2(BUILD / name / "report.html", folder)
        shutil.copy2(ROOT / "LICENSE", folder)
        report = json.loads((package.path / "report.json").read_text(encoding="utf-8"))
        golden = report["data"]["validation"]["held_out"]
        said = card(name, results, sources, package.manifest["history"], golden)
        write_text(folder / "MODEL_CARD.md", said)


def main(arguments: Sequence[str] | None = None) -> None:
    """Publish the models that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", metavar="RECIPE")
    names = parser.parse_args(arguments).names
    results, sources = (json.loads(path.read_text(encoding="utf-8")) for path in (RESULTS, SOURCES))
    for name in names:
        if name not in results["rows"]:
            parser.error(f"{name} was not measured; run: python -m benchmarks.distillation {name}")
        try:
            publish(name, results, sources)
        except EdgekitError as error:
            sys.exit(f"error: {error}")
        print(MODELS.relative_to(ROOT) / name)


if __name__ == "__main__":
    main()
