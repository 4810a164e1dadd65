"""RMSNorm over the last axis, and GroupNorm with SiLU over video activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from stepvideo_core.ops.contract import OpContract, Site
from stepvideo_core.ops.cost import Cost, tensor_bytes


class RMSNorm(Protocol):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis."""

    def __call__(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Normalise rows.

        x: [..., D], any strides. weight: [D] in x's dtype.
        Returns x's shape and dtype. Statistics, quotient and product in float32 (float64 for
        float64 inputs), rounded once.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class RMSNormSite(Site):
    """Traits of an RMSNorm call place: the width of a row."""

    width: int


def _rms_norm_cost(x: Tensor, weight: Tensor, eps: float) -> Cost:
    return Cost(num_bytes=2 * tensor_bytes(x) + tensor_bytes(weight))


RMS_NORM = OpContract[RMSNorm](name="rms_norm", call=RMSNorm.__call__, cost=_rms_norm_cost)


class GroupNormSiLU(Protocol):
    """GroupNorm, optionally SiLU, optionally with zero frames written in front."""

    def __call__(
        self,
        x_BCTHW: Tensor,
        weight_C: Tensor,
        bias_C: Tensor,
        num_groups: int,
        eps: float,
        per_frame: bool,
        silu: bool,
        front_frames: int,
    ) -> Tensor:
        """Normalise groups of channels.

        x_BCTHW: [B, C, T, H, W] in any memory format.
        per_frame: statistics over (C / num_groups, H, W) of each frame; otherwise over
            (C / num_groups, T, H, W).
        silu: apply x * sigmoid(x) to the result.
        front_frames: all-zero frames that the result carries in front of its T frames, so that
            the causal convolution behind needs no padding copy. They are zeros of the result,
            not normalised zeros.

        Returns [B, C, front_frames + T, H, W] in x's dtype, memory format free. Statistics and
        arithmetic in float32 (float64 for float64 inputs), rounded once.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class GroupNormSite(Site):
    """Traits of a GroupNorm call place."""

    channels: int
    num_groups: int
    per_frame: bool
    silu: bool


def _group_norm_silu_cost(
    x_BCTHW: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    num_groups: int,
    eps: float,
    per_frame: bool,
    silu: bool,
    front_frames: int,
) -> Cost:
    """The front frames are written, the statistics take no second reading into account."""
    frames = x_BCTHW.shape[2]
    written = tensor_bytes(x_BCTHW) * (frames + front_frames) // frames
    return Cost(num_bytes=tensor_bytes(x_BCTHW, weight_C, bias_C) + written)


GROUP_NORM_SILU = OpContract[GroupNormSiLU](
    name="group_norm_silu", call=GroupNormSiLU.__call__, cost=_group_norm_silu_cost
)
