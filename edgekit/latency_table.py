"""`LatencyTable`: how long parts of a model take at each width, measured where they will run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LatencyTable:
    """Measured times of one layer's parts by their width.

    Attributes:
        ffn_ms: Neurons of a feed-forward block -> milliseconds, both its products and what lies between.
        heads_ms: Attention heads -> milliseconds of the projections, scores, softmax and context.
        pairs_ms: (in, rank, out) of a matrix product -> milliseconds; rank 0 is the one whole matrix.
        batch: Samples at once when it was measured.
        sequence: Tokens of each.
        kind: What was measured, e.g. `int8 in ONNX Runtime 1.31.1, one thread`.
    """

    ffn_ms: Mapping[int, float] = field(default_factory=dict)
    heads_ms: Mapping[int, float] = field(default_factory=dict)
    pairs_ms: Mapping[tuple[int, int, int], float] = field(default_factory=dict)
    batch: int = 1
    sequence: int = 128
    kind: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON values."""
        return {
            "ffn_ms": {str(width): ms for width, ms in self.ffn_ms.items()},
            "heads_ms": {str(heads): ms for heads, ms in self.heads_ms.items()},
            "pairs_ms": {"x".join(map(str, shape)): ms for shape, ms in self.pairs_ms.items()},
            "batch": self.batch,
            "sequence": self.sequence,
            "kind": self.kind,
        }


@dataclass(frozen=True)
class TableRequest:
    """What a table has to hold for one model: the sizes that are fixed and the widths to try.

    Attributes:
        hidden: Width of what runs from layer to layer.
        head_dim: Width of one head.
        heads: Head counts to measure.
        kv_share: Heads that share one key and value.
        ffn: Feed-forward widths to measure.
        gated: Whether the block has a gate beside the first product.
        activation: Name of the activation, as transformers calls it.
        pairs: (in, rank, out) to measure; rank 0 is the whole matrix.
    """

    hidden: int
    head_dim: int
    heads: tuple[int, ...] = ()
    kv_share: int = 1
    ffn: tuple[int, ...] = ()
    gated: bool = False
    activation: str = "gelu"
    pairs: tuple[tuple[int, int, int], ...] = ()
