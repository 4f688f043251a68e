"""In which number format a forward computes; weights and what is kept of the teacher stay as they are."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]


def computing_in(precision: Precision, device: str) -> torch.autocast:
    """Return a context in which matrix products are computed in a precision; `fp32` changes nothing."""
    low = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device, low, enabled=precision != "fp32")
