"""The float graph against PyTorch: an export is right, or the run stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgekit.golden import Golden
from edgekit.record import Check
from edgekit.tasks.base import Gate, Outputs, gated
from edgekit.tasks.measures import cosines, max_relative_error, sample_pairs

FLOAT_GATES = (
    Gate(
        "float_nonfinite",
        "NaN or infinite values",
        "<=",
        0,
        "PyTorch gave finite values, so one here is an operator that was converted wrongly",
    ),
    Gate(
        "float_max_relative_error",
        "Largest error relative to the largest value",
        "<=",
        1e-3,
        "rounding in another order moves six transformer layers by about 1e-5 (all-MiniLM-L6-v2); "
        "a wrong axis, mask or constant moves them far more",
    ),
    Gate(
        "float_cosine",
        "Cosine similarity to PyTorch",
        ">=",
        0.99999,
        "the largest error does not see a small one that is everywhere; 0.99999 allows 0.4 % of the norm",
    ),
)


def float_checks(
    golden: Golden,
    outputs: Sequence[Outputs],
    label: str = "",
    override: Mapping[str, float] | None = None,
) -> tuple[Check, ...]:
    """Compare the float graph's outputs with the golden, all batches together; padding does not count.

    Args:
        golden: What PyTorch gave.
        outputs: One mapping per batch of the golden.
        label: How the graph was run, e.g. "optimized"; becomes part of the names and titles.
        override: Gate name (without label and output) -> threshold.

    Returns:
        Three checks per output, named `gate.label.output`.

    Raises:
        ModelError: An output is missing or its shape is not the golden's.
    """
    checks: list[Check] = []
    for name in golden.output_names:
        pairs = sample_pairs(golden, outputs, name)
        reference = np.concatenate([np.ravel(pair.reference) for pair in pairs])
        other = np.concatenate([np.ravel(pair.other) for pair in pairs])
        measured = (
            int(np.count_nonzero(~np.isfinite(other))),
            max_relative_error(reference, other),
            float(cosines(reference[None], other[None])[0]),
        )
        where = f"{label}, '{name}'" if label else f"'{name}'"
        for gate, value in zip(FLOAT_GATES, measured, strict=True):
            check = gated(gate, value).with_budget(override or {})
            parts = [gate.name, label, name]
            checks.append(
                Check(
                    ".".join(part for part in parts if part),
                    f"Float graph ({where}): {gate.title}",
                    check.measured,
                    check.unit,
                    check.comparison,
                    check.budget,
                    check.why,
                )
            )
    return tuple(checks)
