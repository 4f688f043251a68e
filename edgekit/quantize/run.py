"""How one calibration is run: what it may take from a file, leave in a file, and use of the memory."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import RecipeError
from edgekit.model import OnnxModel
from edgekit.quantize.calibrate import Calibration, calibrate, reuse
from edgekit.quantize.observe import Batch
from edgekit.store import refuse_unwritable


@dataclass(frozen=True)
class CalibrationRun:
    """What changes how calibration is done and not what comes of it; so no recipe holds it.

    Attributes:
        statistics: Take the statistics from this file instead of running the model.
        save_statistics: Keep them in this file, with checkpoints on the way; go on from it where it is there.
        max_memory_mb: Most memory to add, in 10**6 bytes.
    """

    statistics: Path | None = None
    save_statistics: Path | None = None
    max_memory_mb: float | None = None

    def refuse_unusable(self, output: Path, *, graphs: int, quantizes: bool) -> None:
        """Refuse what cannot be done, before work is spent on it.

        Args:
            output: The output folder.
            graphs: Float graphs that the targets need.
            quantizes: Whether anything is calibrated at all.

        Raises:
            RecipeError: The files contradict each other, the output or the targets.
            StorageError: `save_statistics` could not be written.
        """
        flags = {"--statistics": self.statistics, "--save-statistics": self.save_statistics}
        given = [flag for flag, path in flags.items() if path is not None]
        if len(given) == 2:
            raise RecipeError(
                "--statistics and --save-statistics are both given",
                "--save-statistics FILE also goes on from FILE, and is done where FILE is complete.",
            )
        if self.max_memory_mb is not None and not self.max_memory_mb > 0:
            raise RecipeError(f"--max-memory {self.max_memory_mb:g} is not a number of MB above 0")
        if given and not quantizes:
            raise RecipeError(f"{given[0]} has no meaning where nothing is quantized", "Leave it out.")
        if given and graphs > 1:
            raise RecipeError(
                f"the targets need {graphs} float graphs, and a statistics file is of one",
                "Export targets of different opsets apart, with a file each.",
            )
        if self.save_statistics is not None:
            if self.save_statistics.is_dir():
                raise RecipeError(f"--save-statistics {self.save_statistics} is a folder", "Name a file.")
            if self.save_statistics.resolve().is_relative_to(output.resolve()):
                raise RecipeError(
                    f"the statistics file {self.save_statistics} lies in the output, which is replaced",
                    "Keep it beside the output.",
                )
            refuse_unwritable(self.save_statistics)


def run_calibration(
    model: OnnxModel,
    batches: Iterable[Batch],
    run: CalibrationRun,
    scratch: Path,
    *,
    every_tensor: bool = False,
) -> Calibration:
    """Calibrate as `run` says.

    Args:
        model: The float graph.
        batches: Inputs; can be read more than once.
        run: What to take, to keep, and to use.
        scratch: Folder for statistics that wait for the next pass; must outlive the result.
        every_tensor: As `calibrate`.

    Raises:
        DataError: As `calibrate` and `reuse`.
        RecipeError: The memory is too small.
    """
    if run.statistics is not None:
        return reuse(model, batches, run.statistics)
    if run.save_statistics is not None or run.max_memory_mb is None:
        return calibrate(
            model,
            batches,
            statistics=run.save_statistics,
            max_memory_mb=run.max_memory_mb,
            every_tensor=every_tensor,
        )
    return calibrate(
        model,
        batches,
        statistics=scratch / "statistics.npz",
        checkpoint_batches=sys.maxsize,  # nobody could go on from a scratch file
        max_memory_mb=run.max_memory_mb,
        every_tensor=every_tensor,
    )
