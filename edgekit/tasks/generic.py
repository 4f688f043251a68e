"""Any module: outputs without a known meaning, compared as signals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.golden import Golden
from edgekit.record import Check, OutputError
from edgekit.tasks.base import Comparison, Gate, Modality, Outputs, gated
from edgekit.tasks.measures import max_relative_error, sample_pairs, sqnr_db

_SQNR = Gate(
    "sqnr_db",
    "Signal to quantization noise, worst output",
    ">=",
    20.0,
    "at 20 dB the error's norm is a tenth of the signal's; the cosine of 0.998 that well-placed int8 reaches "
    "on all-MiniLM-L6-v2 is 24 dB",
    "dB",
)


@dataclass(frozen=True)
class Generic:
    """Every output counts, by its signal-to-quantization-noise ratio."""

    name: str = "generic"
    modality: Modality | None = None
    gates: tuple[Gate, ...] = (_SQNR,)
    shown: tuple[str, ...] = ("max_relative_error",)

    def compare(self, golden: Golden, outputs: Sequence[Outputs]) -> Comparison:
        """Compare every output; the worst one gates, each one is shown under `<name>.<output>`."""
        (gate,) = self.gates
        ratios: list[float] = []
        shown: list[Check] = []
        errors: list[OutputError] = []
        for name in golden.output_names:
            pairs = sample_pairs(golden, outputs, name)
            reference = np.concatenate([np.ravel(pair.reference) for pair in pairs])
            other = np.concatenate([np.ravel(pair.other) for pair in pairs])
            ratios.append(sqnr_db(reference, other))
            if len(golden.output_names) > 1:
                title = f"Signal to quantization noise of '{name}'"
                shown.append(Check(f"sqnr_db.{name}", title, ratios[-1], "dB"))
            shown.append(
                Check(
                    f"max_relative_error.{name}",
                    f"Largest error of '{name}', relative to its largest value",
                    max_relative_error(reference, other),
                    comparison="<=",
                )
            )
            errors.append(
                OutputError(name, "sqnr_db", tuple(sorted(sqnr_db(p.reference, p.other) for p in pairs)))
            )
        return Comparison((gated(gate, float(np.min(ratios))), *shown), tuple(errors))

    def within(self, max_drop: float, *, labelled: bool) -> dict[str, float]:
        """Return the threshold of an allowed loss: the error's norm as a share of the output's."""
        return {"sqnr_db": -20 * math.log10(max_drop)}
