"""Projections through torch, which is cuBLAS on an NVIDIA device."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from stepvideo_core.ops import LINEAR, OpImpl
from stepvideo_cuda.toolbox import Toolbox


def torch_linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """torch's linear; the matrix products of these shapes are cuBLAS's best ground."""
    return F.linear(x, weight_OI, bias_O)


def implementations(toolbox: Toolbox) -> list[OpImpl[Any]]:
    return [OpImpl(op=LINEAR, name="torch", fn=torch_linear)]
