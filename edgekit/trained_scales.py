"""`TrainedScales`: the codes that a student was trained with, from the training to the quantizer.

A file of them lies beside the weights that they belong to. Weights of matrix products and rows in 8 bits have
no choice of their own, their scales follow from the weights: they are here so that the quantizer can tell
whether a graph's weights are still those that were trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import ModelError
from edgekit.profile import Quantization
from edgekit.store import storage_errors, writing

FILE = "trained_scales.npz"
"""Lies in a model's directory where its last training steps had the codes of a target in them."""

_SCHEMA = 1


@dataclass(frozen=True)
class CodeRules:
    """What of a target decides about codes; scales trained for one serve every target of the same rules.

    Whether activations are `uint8` or `int8` does not count: the codes are as many, and stand for the same.

    Attributes:
        activation_symmetric: The zero point is the middle.
        per_channel: A scale for each output channel.
        reduce_range: Weights cannot overflow 16-bit lanes.
    """

    activation_symmetric: bool
    per_channel: bool
    reduce_range: bool

    @classmethod
    def of(cls, rules: Quantization) -> CodeRules:
        """Take them from a profile's rules."""
        return cls(rules.activation_symmetric, rules.per_channel, rules.reduce_range)


@dataclass(frozen=True)
class ProductScales:
    """Codes of one matrix product, `activation @ weight`.

    Attributes:
        step: The activation's scale.
        zero: The activation's zero point, counted from the lowest code.
        weight: Scales of the output channels, float32 [channels].
    """

    step: float
    zero: int
    weight: np.ndarray


@dataclass(frozen=True)
class TableScales:
    """Codes of one embedding table.

    Attributes:
        scale: float32, [rows] for 8 bits, [rows, blocks] for 4.
        zero_point: Of the blocks, uint8 [rows, blocks]; None where there are none of their own.
    """

    scale: np.ndarray
    zero_point: np.ndarray | None = None

    @property
    def form(self) -> str:
        """`int8` or `int4`, as `[quantize] embeddings` says it."""
        return "int8" if self.scale.ndim == 1 else "int4"


@dataclass(frozen=True)
class TrainedScales:
    """The codes that a student was trained with.

    Attributes:
        target: Name of the profile that they were taken from.
        rules: What of it they follow.
        products: Module path -> codes of its product.
        tables: Module path -> codes of its table.
    """

    target: str
    rules: CodeRules
    products: Mapping[str, ProductScales] = field(default_factory=dict)
    tables: Mapping[str, TableScales] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the file in one step."""
        arrays: dict[str, np.ndarray] = {}
        products: dict[str, list[Any]] = {}
        for name, product in self.products.items():
            products[name] = [float(product.step), product.zero]
            arrays[f"product/{name}"] = product.weight
        for name, table in self.tables.items():
            arrays[f"table/{name}"] = table.scale
            if table.zero_point is not None:
                arrays[f"zero/{name}"] = table.zero_point
        header = {
            "schema": _SCHEMA,
            "target": self.target,
            "rules": asdict(self.rules),
            "products": products,
            "tables": list(self.tables),
        }
        with writing(path) as aside, storage_errors(path), aside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, header=np.array(json.dumps(header)), **arrays)

    @classmethod
    def load(cls, path: Path) -> TrainedScales:
        """Read what `save` wrote.

        Raises:
            ModelError: The file is damaged or of another version.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                header = json.loads(str(data["header"]))
                if header["schema"] != _SCHEMA:
                    raise ModelError(f"{path}: schema {header['schema']} is not {_SCHEMA}")
                products = {
                    str(name): ProductScales(float(step), int(zero), data[f"product/{name}"])
                    for name, (step, zero) in header["products"].items()
                }
                zeros = {name for name in header["tables"] if f"zero/{name}" in data.files}
                tables = {
                    str(name): TableScales(
                        data[f"table/{name}"], data[f"zero/{name}"] if name in zeros else None
                    )
                    for name in header["tables"]
                }
            return cls(str(header["target"]), CodeRules(**header["rules"]), products, tables)
        except ModelError:
            raise
        except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds for a damaged file
            raise ModelError(
                f"{path} is damaged: {' '.join(str(error).split()) or type(error).__name__}",
                "Delete it to quantize the model as any other, or distill it again.",
            ) from None
