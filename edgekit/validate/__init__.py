"""Parity, latency, size and memory -> Verdict."""

from edgekit.validate.parity import check_float
from edgekit.validate.verdict import validate

__all__ = ["check_float", "validate"]
