"""What a finish for 8 bits is worth: a student trained with a target's codes, or in float and then quantized.

The student is the one of the ablation of `benchmarks.distillation`, before it learns. Rows are packages for
`cpu-x86`, judged in ONNX Runtime by how close they are to all-MiniLM-L6-v2 on English of other packages than
the texts that taught them.

Run from the checkout, after make demo and python -m tools.corpus build/corpus:
OMP_NUM_THREADS=1 python -m benchmarks.distillation_finish [ROW ...]
Writes benchmarks/results/distillation_finish.json (rows that were not named stay); then: make docs
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.compression import BUILD, PAIRS, ROOT, embedded, embedded_by, retrieval_texts
from benchmarks.distillation import ABLATION, SHORT, ablated_table, start_of
from benchmarks.quality import compare as compare_quality
from benchmarks.rows import refuse_unknown
from benchmarks.students import kept_rows, write_results
from edgekit import export
from edgekit.model import ModelRef
from edgekit.recipe import Recipe, recipe_from_table
from edgekit.source import load
from tools.demo import prepare

OUTPUT = Path(__file__).parent / "results" / "distillation_finish.json"

SIZES = {"steps": 75, "batch": 64, "learning_rate": 5e-5, "pairs": PAIRS}

ROWS: dict[str, tuple[bool, str]] = {
    "trained on in float, then quantized": (False, "int8"),
    "finished": (True, "int8"),
    "trained on in float, then quantized, table in 4 bits": (False, "int4"),
    "finished, table in 4 bits": (True, "int4"),
}
"""Row -> whether it is trained with the codes, and how embeddings are stored."""


def recipe_of(name: str, student: Path) -> Recipe:
    """Return the request of a row: the ablated recipe, with another student and other steps."""
    finishes, embeddings = ROWS[name]
    steps = {"steps": SIZES["steps"], "learning_rate": SIZES["learning_rate"]}
    training = {"steps": 0, "finish": steps} if finishes else steps
    changes: dict[str, Any] = {
        "gates": {"cosine_mean": 0.5, "cosine_p05": 0.3, "rank_correlation": 0.3, "clip_rate": 0.1},
        "distill": {
            **SHORT,
            "batch": SIZES["batch"],
            "student": str(student),
            "cache": str(ABLATION / "teacher"),
            **training,
        },
        "quantize": {"embeddings": embeddings},
    }
    return recipe_from_table(ablated_table(changes))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the rows that are named, or all, and keep the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rows", nargs="*")
    options = parser.parse_args(arguments)
    refuse_unknown(parser, options.rows, ROWS)
    rows = kept_rows(OUTPUT, SIZES)
    prepare(ROOT / "build")
    student = start_of("cosine alone")
    assert student is not None
    texts = retrieval_texts(PAIRS)
    with tempfile.TemporaryDirectory() as scratch:
        original = load(ModelRef(str(ROOT / "build" / "all-MiniLM-L6-v2")), None, scratch=Path(scratch))
        reference = embedded(original, texts)
    for name in options.rows or ROWS:
        folder = BUILD / "finish" / name.replace(", ", "-").replace(" ", "-")
        export(recipe_of(name, student), folder, force=True)
        rows[name] = compare_quality(reference, embedded_by(folder / "cpu-x86", texts))
        print(name, rows[name], flush=True)
        write_results(
            OUTPUT,
            "OMP_NUM_THREADS=1 python -m benchmarks.distillation_finish",
            SIZES,
            rows=rows,
            teacher=compare_quality(reference, reference),
        )


if __name__ == "__main__":
    main()
