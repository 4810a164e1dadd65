"""The matrix products of the blocks: nine tenths of a step's arithmetic outside the attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from stepvideo_core.ops.contract import OpContract, Site
from stepvideo_core.ops.cost import Cost, tensor_bytes


class Linear(Protocol):
    """x W^T + b."""

    def __call__(self, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        """Project the last axis.

        x: [..., I], any strides. weight_OI: [O, I] in x's dtype, as checkpoints have it.
        Returns [..., O] in x's dtype, accumulated in float32 at least (float64 for float64).
        """
        ...


@dataclass(frozen=True, kw_only=True)
class LinearSite(Site):
    """Traits of a projection."""

    in_features: int
    out_features: int
    bias: bool = False


def _linear_cost(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Cost:
    out_features, in_features = weight_OI.shape
    rows = x.numel() // in_features
    return Cost(
        flops=2 * rows * in_features * out_features,
        num_bytes=tensor_bytes(x, weight_OI, bias_O) + rows * out_features * x.element_size(),
    )


LINEAR = OpContract[Linear](name="linear", call=Linear.__call__, cost=_linear_cost)
