"""Weight holders that compute through a bound operator, under the checkpoint's keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stepvideo_core.dispatch.plan import DispatchPlan
from stepvideo_core.ops import LINEAR, LinearSite


class Projection(nn.Module):
    """A linear layer without bias: key `weight` [out, in]."""

    def __init__(self, plan: DispatchPlan, site: str, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.linear = plan.bind(
            LINEAR, LinearSite(name=site, in_features=in_features, out_features=out_features)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x, self.weight, None)


class RMSNormWeight(nn.Module):
    """Holds an RMSNorm weight; the norm itself is often fused into something larger."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
