"""Write `docs/targets.md` from the profiles, or with `--check` fail when it is out of date.

Run from the checkout: python tools/make_docs.py [--check]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgekit.cli.targets import readable_value, short_types
from edgekit.profile import TargetProfile, available, load_profile
from edgekit.store import write_text

ROOT = Path(__file__).parents[1]
INTRODUCTION = """# Targets

<!-- Written by tools/make_docs.py from targets/*.toml; do not edit. -->

A target is one TOML file in `targets/`; its stem is the name that `--target` takes. `edgekit targets` prints
this table, `edgekit targets show NAME` one profile whole. A file of your own works the same way
(`--target ./mine.toml`), and `extends = "arm64"` inherits everything that it does not set.
"""


def targets_page(profiles: list[TargetProfile]) -> str:
    """Return the page: one table of all targets, then each one's values with their sources."""
    overview = _table(
        ("target", "for", "types", "per channel", "7-bit weights", "ISA", "opset / IR", "ONNX Runtime"),
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
    return "\n".join([INTRODUCTION, overview, *map(_section, profiles)])


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


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in escaped)


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or check it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is stale")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "targets.md", help="the file to write")
    options = parser.parse_args(arguments)
    text = targets_page([load_profile(name) for name in available()])
    if not options.check:
        write_text(options.page, text)
        return 0
    if not options.page.is_file() or options.page.read_text(encoding="utf-8") != text:
        print(f"{options.page} is out of date: run python tools/make_docs.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
