"""What `[compress]` in a recipe may say: one table per technique, in the order in which they run.

The order is explained where it is written, in `edgekit.compress`. `choose = "random"` and `"every-kth"` are
controls: what a technique has to beat at equal size.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.profile import PositiveInt

Share = Annotated[float, Field(gt=0, lt=1)]
"""A part of the whole, 0.5 being half of it."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AdapterOptions(_Table):
    """Merge LoRA adapters into the weights that they adapt.

    Attributes:
        paths: Folders that PEFT wrote, merged in this order.
    """

    paths: Annotated[tuple[str, ...], Field(min_length=1)]


class VocabularyOptions(_Table):
    """Keep the tokens that a corpus needs.

    Attributes:
        tokens: How many to keep, special tokens and single characters included.
        coverage: Keep as many as make up this share of the corpus' tokens; used where `tokens` is not given.
        data: The corpus, `.txt`, `.jsonl` or `.csv`; None takes `[compress] data`.
        column: Column or key that holds the text.
        choose: `frequency` in the corpus, or `random`.
    """

    tokens: PositiveInt | None = None
    coverage: Share = 0.999
    data: str | None = None
    column: str | None = None
    choose: Literal["frequency", "random"] = "frequency"


class PositionOptions(_Table):
    """Drop the rows of the table of positions that no text reaches.

    Attributes:
        keep: Tokens of the longest text; `limit` is what the model's texts are cut to.
    """

    keep: PositiveInt | Literal["limit"] = "limit"


class EmbeddingOptions(_Table):
    """Replace the table of token embeddings by a product of two.

    Attributes:
        rank: Width of the narrower table.
        weighting: Count each token's error by its `frequency` in the data, or all the same (`uniform`).
    """

    rank: PositiveInt
    weighting: Literal["frequency", "uniform"] = "frequency"


class LayerOptions(_Table):
    """Drop whole layers.

    Attributes:
        keep: How many, or the indices of those that stay.
        choose: `similarity` of the outputs to the original's, over all subsets where they are few and greedy
            where they are many; `influence` of each block on what runs through it; or one of the controls.
        repair: Fit the layers that stay to do the work of those that went, by least squares.
    """

    keep: PositiveInt | tuple[Annotated[int, Field(ge=0)], ...]
    choose: Literal["similarity", "influence", "every-kth", "first", "random"] = "similarity"
    repair: bool = True


class WidthOptions(_Table):
    """Remove attention heads and neurons of the feed-forward blocks, then repair what follows them.

    Exactly one of the three ways to say how much: `ffn` and `heads`, or a share of the layers' time or
    multiply-adds, shared out over all layers at once.

    Attributes:
        ffn: Neurons that stay in each feed-forward block: one number for all, or one for each layer.
        heads: Attention heads that stay, likewise; whole groups of them where they share keys and values.
        time: Share of the layers' time that may remain, by a table measured in ONNX Runtime in int8.
        multiply_adds: Share of the layers' multiply-adds that may remain.
        importance: What the worth of a head or neuron is judged by: `surgeon`, what the outputs lose once the
            others make up for it as well as they can; `fisher`, what they lose at once; `activation`,
            `magnitude`; `random` is the control.
        multiple: Widths of feed-forward blocks are multiples of it, which is what kernels like.
        repair: Fit the layer after the removed ones anew by least squares, where held-out error falls.
    """

    ffn: PositiveInt | tuple[PositiveInt, ...] | None = None
    heads: PositiveInt | tuple[PositiveInt, ...] | None = None
    time: Share | None = None
    multiply_adds: Share | None = None
    importance: Literal["surgeon", "fisher", "activation", "magnitude", "random"] = "surgeon"
    multiple: PositiveInt = 64
    repair: bool = True


class ChannelOptions(_Table):
    """Remove channels of convolutions, and repair the layers after them.

    Attributes:
        multiply_adds: Share of the model's multiply-adds that may remain.
        importance: What a channel's worth is judged by; `random` is the control.
        multiple: Channel counts are multiples of it.
        repair: Fit the layers behind anew by least squares, and the norms' statistics.
    """

    multiply_adds: Share
    importance: Literal["fisher", "activation", "magnitude", "random"] = "fisher"
    multiple: PositiveInt = 8
    repair: bool = True


class LowRankOptions(_Table):
    """Replace weight matrices by products of two narrower ones.

    Attributes:
        parameters: Share of the factorizable layers' parameters that may remain.
        weighting: What the error is weighted by: the `activation`s of the data, also by the `fisher`
            information that the outputs have of each row, or nothing (`plain`, a control).
        multiple: Ranks are multiples of it.
        measured: Keep a pair only where it is faster than the one matrix in ONNX Runtime in int8.
        exclude: Names of modules (shell patterns) that stay whole.
    """

    parameters: Share
    weighting: Literal["activation", "fisher", "plain"] = "fisher"
    multiple: PositiveInt = 32
    measured: bool = True
    exclude: tuple[str, ...] = ()


class SparsityOptions(_Table):
    """Set weights to zero. ONNX Runtime runs no faster for it: what shrinks is the compressed download.

    Attributes:
        share: Share of the weights to remove.
        method: By `magnitude`; by magnitude times activation (`wanda`); the same with the remaining weights
            making up for it (`sparsegpt`); or `random`, the control.
        pattern: Anywhere, or two of each four.
    """

    share: Share = 0.5
    method: Literal["magnitude", "wanda", "sparsegpt", "random"] = "sparsegpt"
    pattern: Literal["unstructured", "2:4"] = "unstructured"


class CompressOptions(_Table):
    """What makes the model smaller before it is exported; a technique without a table does not run.

    Attributes:
        data: Samples that the techniques look at; None takes the calibration's. No labels are needed.
        column: Column or key that holds the sample.
        samples: How many of them at most; a quarter chooses between candidates, the rest fits.
    """

    data: str | None = None
    column: str | None = None
    samples: PositiveInt = 512
    adapters: AdapterOptions | None = None
    vocabulary: VocabularyOptions | None = None
    positions: PositionOptions | None = None
    embeddings: EmbeddingOptions | None = None
    layers: LayerOptions | None = None
    width: WidthOptions | None = None
    channels: ChannelOptions | None = None
    low_rank: LowRankOptions | None = None
    sparsity: SparsityOptions | None = None

    @property
    def techniques(self) -> tuple[str, ...]:
        """Names of the techniques that are asked for, in the order in which they run."""
        return tuple(name for name in TECHNIQUES if getattr(self, name) is not None)


TECHNIQUES = (
    "adapters",
    "vocabulary",
    "positions",
    "embeddings",
    "layers",
    "width",
    "channels",
    "low_rank",
    "sparsity",
)
"""Keys of `[compress]` that name a technique, in the order in which they run."""
