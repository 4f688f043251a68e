"""Write the generated docs, or with `--check` fail when one is out of date.

`docs/targets.md` comes from the profiles, `docs/cli.md` from the commands' help, `docs/architectures.md`,
`docs/benchmarks.md`, and the tables in `README.md`, `docs/runners.md`, `docs/compression.md` and
`docs/distillation.md` from `benchmarks/results/`.

Run from the checkout: python -m tools.make_docs [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from benchmarks.architectures_page import page as architectures_page
from benchmarks.compression_page import compression_tables, digits_section
from benchmarks.distillation_page import (
    classifier_section,
    controls_section,
    distillation_tables,
    finish_section,
    llama_section,
)
from benchmarks.distillation_page import digits_section as taught_digits_section
from benchmarks.machine_pages import embeddings_section, memory_section, rewrites_section, sparsity_section
from benchmarks.matrix import kits_table, matrix_sections, runners_table
from benchmarks.page import page as benchmarks_page
from benchmarks.student_shapes_page import shapes_section
from edgekit.cli import cli
from edgekit.cli.targets import readable_value, short_types
from edgekit.profile import TargetProfile, available, load_profile
from edgekit.store import write_text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "minilm_cpu.json"
ARCHITECTURES = ROOT / "benchmarks" / "results" / "architectures.json"
MEMORY = ROOT / "benchmarks" / "results" / "memory.json"
MATRIX = ROOT / "benchmarks" / "results" / "matrix.json"
REWRITES = ROOT / "benchmarks" / "results" / "rewrites.json"
EMBEDDINGS = ROOT / "benchmarks" / "results" / "embeddings.json"
SPARSITY = ROOT / "benchmarks" / "results" / "sparsity.json"
COMPRESSION = ROOT / "benchmarks" / "results" / "compression.json"
DIGITS = ROOT / "benchmarks" / "results" / "compression_digits.json"
COMPETITORS = ROOT / "benchmarks" / "results" / "competitors.json"

TARGETS_INTRODUCTION = """# Targets

<!-- Written by tools/make_docs.py from targets/*.toml; do not edit. -->

A target is one TOML file in `targets/`; its stem is the name that `--target` takes. `edgekit targets` prints
this table, `edgekit targets show NAME` one profile whole. A file of your own works the same way
(`--target ./mine.toml`), and `extends = "arm64"` inherits everything that it does not set.
"""

CLI_INTRODUCTION = """# Commands

<!-- Written by tools/make_docs.py from the commands' own help; do not edit. -->

Exit codes: 0 good, 1 a gate failed, 2 usage or bad input, 3 environment, 130 interrupted; 70 is a defect of
edgekit.
"""


def targets_page(profiles: list[TargetProfile]) -> str:
    """Return the page: one table of all targets, then each one's values with their sources."""
    overview = _table(
        ("target", "for", "types", "per channel", "saturation-safe", "ISA", "opset / IR", "ONNX Runtime"),
        [
            (
                f"[`{p.name}`](#{p.name})",
                p.title,
                short_types(p),
                readable_value(p.quantization.per_channel),
                readable_value(p.quantization.reduce_range),
                p.hardware.isa,
                f"{p.onnx.opset} / {p.onnx.ir_version}",
                f"≥ {p.onnx.min_runtime}",
            )
            for p in profiles
        ],
    )
    return "\n".join([TARGETS_INTRODUCTION, overview, *map(_section, profiles)])


def _section(profile: TargetProfile) -> str:
    written = profile.model_dump(mode="json", exclude_unset=True, exclude={"sources"})
    resolved = profile.model_dump(mode="json", exclude={"sources"})
    rows = [
        (f"`{section}.{key}`", readable_value(value), profile.sources.get(f"{section}.{key}", ""))
        for section, values in resolved.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if key in written.get(section, {}) or f"{section}.{key}" in profile.sources
    ]
    table = _table(("value", "is", "because"), rows)
    return f"\n## {profile.name}\n\n{profile.title}. {profile.status}\n\n{table}"


def commands_page(root: click.Command) -> str:
    """Return the page: the help of every command, as the terminal shows it."""
    sections = [
        f"## {context.command_path}\n\n```text\n{context.get_help().rstrip()}\n```\n"
        for context in contexts(root)
    ]
    return "\n".join([CLI_INTRODUCTION, *sections])


def contexts(
    command: click.Command, name: str = "edgekit", parent: click.Context | None = None
) -> Iterator[click.Context]:
    """Yield a context of every command, groups before what is in them; its help is 100 columns wide."""
    settings = {"terminal_width": 100, "max_content_width": 100, **command.context_settings}
    context = click.Context(command, parent=parent, info_name=name, **settings)
    yield context
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from contexts(found, inner, context)


def with_figures(readme: str, results: Mapping[str, Any]) -> str:
    """Return the README with its table of figures written anew from a benchmark's results."""
    shapes = list(dict.fromkeys(p["shape"] for t in results["targets"] for p in t["latency"]))
    head = ("target", "file", "cosine, mean", "5th percentile", "rank correlation")
    rows = [_figures(target, shapes) for target in results["targets"]]
    table = _table((*head, *(f"speed-up at {shape}" for shape in shapes)), rows)
    machine, versions, starts = results["machine"], results["versions"], results["help_seconds"]
    vnni = " with AVX512-VNNI" if "avx512_vnni" in (machine["features"] or ()) else ""
    about = (
        f"\nAgainst the PyTorch fp32 model ({results['float_bytes'] / 1e6:.1f} MB as ONNX), on"
        f" {results['held_out']} texts that calibration did not see. Speed-up over ONNX Runtime"
        f" fp32 of the graph as exported, one thread, batch x tokens, 95 % interval in brackets."
        f" {machine['cpu']}{vnni}, {machine['cores']} cores; onnxruntime {versions['onnxruntime']},"
        f" torch {versions['torch']}, transformers {versions['transformers']}."
        f" `edgekit --help` takes {starts['median']:.2f} s. Make them again with `make bench`.\n"
    )
    return _with_block(readme, "figures", f"\n{table}{about}")


def with_runners(page: str, results: Mapping[str, Any]) -> str:
    """Return the page about runners with its tables written anew: runners, kits, measured packages."""
    parts = [
        _table(("runner", "level", "what it is", "kit"), runners_table()),
        _table(("kit", "what is in it", "to fetch"), kits_table()),
        f"Measured on {results['machine']['cpu']}, {results['machine']['cores']} cores, by"
        " `python -m benchmarks.matrix PACKAGE...`:\n",
    ]
    head = ("runner", "level", "state", "quality", "against this CPU", "missed", "speed or instructions")
    for title, rows in matrix_sections(dict(results)):
        parts.append(f"### {title}\n\n{_table((*head, 'memory', 'ONNX Runtime', 'took'), rows)}")
    return _with_block(page, "runners", "\n" + "\n".join(parts))


def with_compression(page: str, results: Mapping[str, Any], digits: Mapping[str, Any]) -> str:
    """Return the page about compression with its tables written anew."""
    tables = f"{compression_tables(results)}{digits_section(digits)}"
    return _with_block(page, "compression", tables)


def with_distillation(page: str, folder: Path) -> str:
    """Return the page about distillation with its tables written anew; what was not measured is left out."""
    sections = {
        "distillation": distillation_tables,
        "distillation_controls": controls_section,
        "distillation_digits": taught_digits_section,
        "distillation_classifier": classifier_section,
        "distillation_llama": llama_section,
        "distillation_finish": finish_section,
        "student_shapes": shapes_section,
    }
    found = {name: folder / f"{name}.json" for name in sections}
    tables = "".join(
        sections[name](json.loads(path.read_text(encoding="utf-8")))
        for name, path in found.items()
        if path.exists()
    )
    return _with_block(page, "distillation", tables)


def _with_block(page: str, name: str, content: str) -> str:
    """Return a page with what lies between a block's two comments written anew."""
    block = re.compile(rf"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    filled, count = block.subn(lambda found: f"{found[1]}{content}\n{found[2]}", page)
    assert count == 1, f"the page has one block of {name}"
    return filled


def _figures(target: Mapping[str, Any], shapes: list[str]) -> tuple[str, ...]:
    timed = {point["shape"]: point for point in target["latency"]}
    measured = target["checks"]
    speed = [
        f"{timed[s]['speedup']:.2f}x ({timed[s]['speedup_low']:.2f}–{timed[s]['speedup_high']:.2f})"
        if s in timed
        else "not measured here"
        for s in shapes
    ]
    quality = (f"{measured[name]:.4f}" for name in ("cosine_mean", "cosine_p05", "rank_correlation"))
    return f"`{target['name']}`", f"{target['file_bytes'] / 1e6:.1f} MB", *quality, *speed


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in escaped)


def pages(readme: str, runners: str, compression: str, distillation: str) -> dict[str, str]:
    """Return every generated page: path from the checkout's root -> text.

    Args:
        readme: The README as it is; all but its table of figures is kept.
        runners: The page about runners as it is; all but its tables is kept.
        compression: The page about compression likewise.
        distillation: The page about distillation likewise.
    """
    return {
        "docs/targets.md": targets_page([load_profile(name) for name in available()]),
        "docs/cli.md": commands_page(cli),
        "docs/architectures.md": architectures_page(json.loads(ARCHITECTURES.read_text(encoding="utf-8"))),
        "docs/benchmarks.md": benchmarks_page(json.loads(COMPETITORS.read_text(encoding="utf-8")))
        + rewrites_section(json.loads(REWRITES.read_text(encoding="utf-8")))
        + embeddings_section(json.loads(EMBEDDINGS.read_text(encoding="utf-8")))
        + sparsity_section(json.loads(SPARSITY.read_text(encoding="utf-8")))
        + memory_section(json.loads(MEMORY.read_text(encoding="utf-8"))),
        "docs/runners.md": with_runners(runners, json.loads(MATRIX.read_text(encoding="utf-8"))),
        "docs/compression.md": with_compression(
            compression,
            json.loads(COMPRESSION.read_text(encoding="utf-8")),
            json.loads(DIGITS.read_text(encoding="utf-8")),
        ),
        "docs/distillation.md": with_distillation(
            distillation,
            RESULTS.parent,
        ),
        "README.md": with_figures(readme, json.loads(RESULTS.read_text(encoding="utf-8"))),
    }


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Write the pages under `root`, or check them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is stale")
    options = parser.parse_args(arguments)
    edited = ("README.md", "docs/runners.md", "docs/compression.md", "docs/distillation.md")
    kept = [(root / name).read_text(encoding="utf-8") for name in edited]
    stale = 0
    for name, text in pages(*kept).items():
        path = root / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if options.check:
            print(f"{name} is out of date: run make docs", file=sys.stderr)
            stale += 1
        else:
            write_text(path, text)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
