"""What the original model gives on held-out samples, and how much of it a compressed one retains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit.data import Sample
from edgekit.errors import ModelError
from edgekit.golden import Golden, GoldenBatch
from edgekit.model import TorchModel
from edgekit.tasks import task_named
from edgekit.tasks.base import Outputs, Preprocessor
from edgekit.tasks.batches import sample_batches
from edgekit.tasks.text import columns_kept
from edgekit.to_onnx import record_golden


@dataclass(frozen=True)
class Reference:
    """The original's outputs on held-out samples.

    Attributes:
        samples: The held-out samples.
        golden: The original's inputs and outputs, in `sample_batches`.
        preprocessor: What makes its inputs.
        batch: The only batch size, for a graph of one shape.
    """

    samples: tuple[Sample, ...]
    golden: Golden
    preprocessor: Preprocessor
    batch: int | None = None

    @classmethod
    def of(cls, original: TorchModel, samples: Sequence[Sample], batch: int | None = None) -> Reference:
        """Run the original over the samples."""
        batches = tuple(sample_batches(original.preprocessor, samples, batch=batch))
        return cls(tuple(samples), record_golden(original, batches), original.preprocessor, batch)

    def golden_for(self, own: Golden, preprocessor: Preprocessor) -> Golden:
        """Return a compressed model's inputs with the original's outputs.

        Of next tokens, those that a trimmed vocabulary kept.

        Args:
            own: What the compressed model gives in `golden_batches` of the same samples. Batches whose
                outputs are not shaped like the original's are left out: a new tokenizer cut their texts into
                other tokens, each with an output of its own.
            preprocessor: What makes its inputs.

        Raises:
            ModelError: No batch could be compared.
        """
        return self._pairs(own, preprocessor)[0]

    def quality(self, model: TorchModel) -> dict[str, float]:
        """Return the task's measures of a model against the original, by check name."""
        batches = tuple(sample_batches(model.preprocessor, self.samples, batch=self.batch))
        golden, found = self._pairs(record_golden(model, batches), model.preprocessor)
        checks = task_named(model.task).compare(golden, found).checks
        return {check.name: check.measured for check in checks if check.measured is not None}

    def _pairs(self, own: Golden, preprocessor: Preprocessor) -> tuple[Golden, list[Outputs]]:
        """Return a model's inputs with the original's outputs, and its own outputs, where they compare."""
        # own may end in batches of other lengths
        paired = zip(own.batches, self._batches(preprocessor), strict=False)
        alike = [(mine, theirs) for mine, theirs in paired if _alike(mine, theirs)]
        if not alike:
            raise ModelError(
                "no output of the compressed model can be compared with the original's: its tokenizer cuts "
                "every held-out text into other tokens, and each token has an output of its own",
                "Leave [compress.vocabulary] out for this task, or keep a larger vocabulary.",
            )
        kept = tuple(replace(mine, outputs=theirs.outputs) for mine, theirs in alike)
        return Golden(own.task, kept), [mine.outputs for mine, _ in alike]

    def _batches(self, preprocessor: Preprocessor) -> tuple[GoldenBatch, ...]:
        columns = columns_kept(self.preprocessor, preprocessor)
        if columns is None or self.golden.task != "text-generation":
            return self.golden.batches
        return tuple(
            replace(batch, outputs={name: value[..., columns] for name, value in batch.outputs.items()})
            for batch in self.golden.batches
        )


def _alike(mine: GoldenBatch, theirs: GoldenBatch) -> bool:
    """Return whether each position of one batch is the same one in the other."""
    if any(mine.outputs[name].shape != value.shape for name, value in theirs.outputs.items()):
        return False
    along = any(value.ndim > 2 for value in theirs.outputs.values())
    first, second = (batch.inputs.get("attention_mask") for batch in (mine, theirs))
    return not along or first is None or second is None or np.array_equal(first, second)
