"""Streaming readers of the user's data, and their audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One item of the user's data.

    Attributes:
        value: A text, a path of an image, or input name -> array without the batch axis.
        label: A class index or name, or a sequence of them for token classification; None where there is
            no label.
    """

    value: Any
    label: Any = None
