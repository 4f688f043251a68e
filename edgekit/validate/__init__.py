"""Parity, latency, size and memory -> Verdict; kernels and their times -> Explanation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit.validate.parity import check_float
from edgekit.validate.verdict import validate

if TYPE_CHECKING:
    from edgekit.validate.explanation import Explanation, explain

__all__ = ["Explanation", "check_float", "explain", "validate"]


def __getattr__(name: str) -> Any:
    """Import what explains when it is first used: it loads onnx, which the memory probe must not hold."""
    if name not in ("Explanation", "explain"):
        raise AttributeError(f"module 'edgekit.validate' has no attribute '{name}'")
    from edgekit.validate import explanation

    return getattr(explanation, name)
