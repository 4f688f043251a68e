"""What the original model gives on held-out samples, and how much of it a compressed one retains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgekit.data import Sample
from edgekit.errors import ModelError
from edgekit.golden import Golden
from edgekit.model import TorchModel
from edgekit.tasks import task_named
from edgekit.tasks.batches import sample_batches
from edgekit.to_onnx import record_golden


@dataclass(frozen=True)
class Reference:
    """The original's outputs on held-out samples.

    Attributes:
        samples: The held-out samples.
        golden: The original's inputs and outputs, in `sample_batches`.
        batch: The only batch size, for a graph of one shape.
    """

    samples: tuple[Sample, ...]
    golden: Golden
    batch: int | None = None

    @classmethod
    def of(cls, original: TorchModel, samples: Sequence[Sample], batch: int | None = None) -> Reference:
        """Run the original over the samples."""
        batches = tuple(sample_batches(original.preprocessor, samples, batch=batch))
        return cls(tuple(samples), record_golden(original, batches), batch)

    def golden_for(self, own: Golden) -> Golden:
        """Return a compressed model's inputs with the original's outputs.

        Args:
            own: What the compressed model gives in `golden_batches` of the same samples. Batches whose
                outputs are not shaped like the original's are left out: a new tokenizer cut their texts into
                other tokens, each with an output of its own.

        Raises:
            ModelError: No batch could be compared.
        """
        pairs = zip(own.batches, self.golden.batches, strict=False)  # own ends in batches of other lengths
        kept = tuple(
            replace(mine, outputs=theirs.outputs)
            for mine, theirs in pairs
            if all(mine.outputs[name].shape == value.shape for name, value in theirs.outputs.items())
        )
        if not kept:
            raise ModelError(
                "no output of the compressed model can be compared with the original's: its tokenizer cuts "
                "every held-out text into other tokens, and each token has an output of its own",
                "Leave [compress.vocabulary] out for this task, or keep a larger vocabulary.",
            )
        return Golden(own.task, kept)

    def quality(self, model: TorchModel) -> dict[str, float]:
        """Return the task's measures of a model against the original, by check name."""
        batches = tuple(sample_batches(model.preprocessor, self.samples, batch=self.batch))
        own = record_golden(model, batches)
        golden = self.golden_for(own)
        found = [
            batch.outputs
            for batch, theirs in zip(own.batches, self.golden.batches, strict=True)
            if all(batch.outputs[name].shape == value.shape for name, value in theirs.outputs.items())
        ]
        checks = task_named(model.task).compare(golden, found).checks
        return {check.name: check.measured for check in checks if check.measured is not None}
