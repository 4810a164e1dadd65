"""The rounding rule of all operators: float32 inside (float64 for float64), one rounding out."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """x in the dtype that arithmetic is done in."""
    return x if x.dtype == torch.float64 else x.float()
