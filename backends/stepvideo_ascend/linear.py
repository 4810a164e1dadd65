"""Projections through torch, which is aclnn's matrix product on an NPU."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from stepvideo_ascend.toolbox import Toolbox
from stepvideo_core.ops import LINEAR, OpImpl


def torch_linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """torch's linear: one matmul, or one addmm with the bias.

    The vendor's own npu_linear is for two axes only and brings nothing.
    """
    return F.linear(x, weight_OI, bias_O)


def implementations(toolbox: Toolbox) -> list[OpImpl[Any]]:
    return [OpImpl(op=LINEAR, name="torch", fn=torch_linear, why_not=toolbox.why_not)]
