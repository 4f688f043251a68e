"""What every preprocessor checks about samples and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit.data import Kind, Sample, kind_of
from edgekit.errors import DataError, nearest

IGNORED = -100
"""The label of a position that does not count. Source: the default `ignore_index` of
`torch.nn.CrossEntropyLoss`, which data sets of this field follow."""

_SAID = {"text": "text", "image": "images", "arrays": "arrays"}
_WANTED = {
    "text": "Give texts as .txt, .jsonl or .csv.",
    "image": "Give a folder of images.",
    "arrays": "Give an .npz with one array per model input.",
}


def require_kind(samples: Sequence[Sample], *kinds: Kind) -> None:
    """Refuse samples that are none of `kinds`; the first is what the message names.

    Raises:
        DataError: A sample is something else.
    """
    for sample in samples:
        found = kind_of(sample.value)
        if found not in kinds:
            raise DataError(
                f"the data is {_SAID[found]}, the model wants {_SAID[kinds[0]]}", _WANTED[kinds[0]]
            )


def class_indices(labels: Sequence[Any], label2id: Mapping[str, int]) -> np.ndarray:
    """Return the class indices of labels that are names or indices.

    Args:
        labels: Names of classes, indices, or indices written as text.
        label2id: Class name -> index; where it is empty, any index is taken.

    Returns:
        int64, one per label.

    Raises:
        DataError: A label is not one that the model knows.
    """
    return np.array([_class_index(label, label2id) for label in labels], np.int64)


def _class_index(label: Any, label2id: Mapping[str, int]) -> int:
    if isinstance(label, str) and label in label2id:
        return label2id[label]
    known = set(label2id.values()) | {IGNORED}
    counts = isinstance(label, int | np.integer) and not isinstance(label, bool)
    if counts or (isinstance(label, str) and label.lstrip("-").isdecimal()):
        index = int(label)
    else:
        hint = nearest(str(label), label2id) if label2id else "The model names no classes: give indices."
        raise DataError(f"the model knows no class {label!r}", hint)
    if index in known or (not label2id and index >= 0):
        return index
    hint = f"Its classes are 0 to {len(label2id) - 1}." if label2id else "Classes count from 0."
    raise DataError(f"the model knows no class {index}", hint)
