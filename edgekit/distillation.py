"""What `[distill]` in a recipe may say: who learns, from which samples, by which losses, for how long.

The formulas of the losses are where they are computed, in `edgekit.distill.losses`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.profile import PositiveInt

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""What a loss counts; 0 leaves it out."""

Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FreshOptions(_Table):
    """A student of the teacher's family with random weights; what is left out is the teacher's.

    Attributes:
        layers: How many.
        hidden: Width between the layers.
        heads: Attention heads of each layer.
        ffn: Neurons of each feed-forward block.
    """

    layers: PositiveInt | None = None
    hidden: PositiveInt | None = None
    heads: PositiveInt | None = None
    ffn: PositiveInt | None = None


class ChangeOptions(_Table):
    """Changes to the student that only training can pay for.

    Attributes:
        activation: Of the feed-forward blocks; `relu` costs nothing behind an 8-bit product.
        heads: Attention heads that the same matrices are split into: fewer are wider.
        norms: `one-per-layer` drops the norm behind attention of a layer that ends with another.
    """

    activation: Literal["relu", "gelu", "gelu_new", "silu"] | None = None
    heads: PositiveInt | None = None
    norms: Literal["one-per-layer"] | None = None


class FinishOptions(_Table):
    """More steps in which the student computes with a target's 8-bit codes, and learns to live with them.

    Attributes:
        target: Whose codes; None takes the request's first target.
        steps: Optimizer steps.
        learning_rate: At the end of the warm-up.
    """

    target: str | None = None
    steps: PositiveInt = 500
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5e-5


class LossOptions(_Table):
    """What each loss counts; None takes what suits the task.

    Attributes:
        soft: The teacher's probabilities of classes or next tokens.
        temperature: By which both sides' logits are divided for it.
        top: For next tokens: how many of the teacher's most likely ones are kept, the rest as one.
        hard: The labels, where the data has some; for next tokens the text itself.
        reverse: KL the other way round, which keeps a small student off what the teacher deems unlikely.
        on_policy: For next tokens: share of the batches whose texts the student writes itself, from the
            beginnings of samples; the teacher runs along and grades every token by `soft` and `reverse`.
        cosine: 1 - cosine of embeddings.
        similarity: How similar the texts of a batch are to each other, as a distribution.
        anchors: How similar a text is to others' vectors by the teacher, as a distribution.
        anchor_samples: How many of those vectors each step draws from the teacher's outputs.
        similarity_temperature: Of both distributions.
        comparisons_from: Share of the training after which `similarity` and `anchors` rise from nothing to
            their weights, until its end, and batches of neighbours begin: first close to the teacher, then
            told apart. None lets them count from the first step.
        contrastive: Each text nearer to its pair than to the others' pairs.
        contrastive_temperature: Of that choice.
        hidden: What the layers give.
        relations: How tokens relate by queries, keys and values.
        relation_heads: Parts that the projections are split into for it, on both sides.
        layers_until: Share of the training after which `hidden` and `relations` have faded to nothing; from
            there on the teacher no longer runs along.
    """

    soft: Weight | None = None
    temperature: Temperature = 2.0
    top: PositiveInt = 64
    hard: Weight | None = None
    reverse: Weight = 0.0
    on_policy: Annotated[float, Field(ge=0, le=1)] = 0.0
    cosine: Weight | None = None
    similarity: Weight | None = None
    anchors: Weight | None = None
    anchor_samples: PositiveInt = 8192
    similarity_temperature: Temperature = 0.05
    comparisons_from: Annotated[float, Field(ge=0, lt=1)] | None = None
    contrastive: Weight = 0.0
    contrastive_temperature: Temperature = 0.05
    hidden: Weight | None = None
    relations: Weight = 0.0
    relation_heads: PositiveInt = 12
    layers_until: Annotated[float, Field(gt=0, le=1)] = 0.5


class DistillOptions(_Table):
    """Train a smaller model to give what the teacher gives.

    Attributes:
        student: Directory of the model that learns; None takes the model as `[compress]` left it.
        fresh: Or one with random weights.
        changes: What is changed about it before it learns.
        data: Samples to learn from; None takes the calibration's. No labels are needed.
        column: Column or key that holds the sample.
        label_column: Column or key that holds the label, or the text's pair for `losses.contrastive`.
        samples: How many of them at most.
        held_out: How many more are kept apart to choose the best checkpoint by.
        epochs: How often each sample is seen; used where `steps` is not given.
        steps: Optimizer steps; 0 leaves the student to `finish`.
        batch: Samples of a forward; losses within a batch compare so many.
        accumulate: Forwards of an optimizer step.
        neighbours: A step's texts are near each other by the teacher's embeddings, for the losses that
            compare texts: random ones hardly resemble each other.
        learning_rate: At the end of the warm-up.
        warm_up: Share of the steps in which it rises from zero.
        decay: How it falls to zero afterwards.
        weight_decay: Of matrices, as AdamW has it.
        beta2: AdamW's decay of squared gradients. 0.999 remembers a thousand steps; where a loss joins on
            the way and brings larger gradients, 0.98 keeps its steps from being too long.
        ema: Decay of the running mean of the weights that is evaluated and kept; 0 keeps the weights.
        precision: `bf16` and `fp16` where the hardware has them; `auto` is bf16 on a GPU and fp32 elsewhere.
        evaluate_every: Steps between evaluations; None makes 20 of them.
        patience: Stop after so many evaluations without gain, how it was before training aside; 0 never does.
        cache: Folder for the teacher's outputs, kept for other students; None keeps them while this one
            learns.
        losses: What each loss counts.
        finish: Train on with the codes of an 8-bit target; None does not.
    """

    student: str | None = None
    fresh: FreshOptions | None = None
    changes: ChangeOptions = ChangeOptions()
    data: str | None = None
    column: str | None = None
    label_column: str | None = None
    samples: PositiveInt = 200_000
    held_out: PositiveInt = 256
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3.0
    steps: Annotated[int, Field(ge=0)] | None = None
    batch: PositiveInt = 64
    accumulate: PositiveInt = 1
    neighbours: bool = False
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3e-4
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.05
    decay: Literal["linear", "cosine"] = "linear"
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    evaluate_every: PositiveInt | None = None
    patience: Annotated[int, Field(ge=0)] = 5
    cache: str | None = None
    losses: LossOptions = LossOptions()
    finish: FinishOptions | None = None
