"""GroupNorm with SiLU and front frames, with an analytic backward pass.

torch's own backward in bfloat16 with channels innermost takes about ten times as long as its
forward on a CPU, which made it a third of a training step of the autoencoder. Here both passes work
on as many frames at once as stay in the cache, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from stepvideo_reference.precision import wide

_CACHED_ELEMENTS = 1 << 18  # 1 MiB in float32


class _GroupNormSiLU(torch.autograd.Function):
    """On [B, N, P, C]: statistics of each of the N units over its P positions and a group.

    Per unit and channel the norm is x * scale + shift. All that the backward pass needs of a unit
    are two sums per channel, of dy and of dy * x.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x_BNPC: Tensor,
        weight_C: Tensor,
        bias_C: Tensor,
        num_groups: int,
        eps: float,
        silu: bool,
        front_units: int,
    ) -> Tensor:
        batch, units, positions, channels = x_BNPC.shape
        out = x_BNPC.new_empty((batch, front_units + units, positions, channels))
        out[:, :front_units] = 0
        weight_C, bias_C = wide(weight_C), wide(bias_C)
        mean_BNC, rstd_BNC = (weight_C.new_empty((batch, units, channels)) for _ in range(2))
        for sample, first, last in _chunks(x_BNPC):
            x_NPC = wide(x_BNPC[sample, first:last])
            mean_NC, rstd_NC = _statistics(x_NPC, num_groups, eps)
            scale_NC = rstd_NC * weight_C
            shift_NC = bias_C - mean_NC * scale_NC
            y_NPC = torch.addcmul(shift_NC[:, None], x_NPC, scale_NC[:, None])
            if silu:
                y_NPC = F.silu(y_NPC, inplace=True)
            out[sample, front_units + first : front_units + last] = y_NPC
            mean_BNC[sample, first:last], rstd_BNC[sample, first:last] = mean_NC, rstd_NC
        ctx.save_for_backward(x_BNPC, weight_C, bias_C, mean_BNC, rstd_BNC)
        ctx.num_groups, ctx.silu, ctx.front_units = num_groups, silu, front_units  # type: ignore[attr-defined]
        return out

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, grad_BNPC: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        x_BNPC, weight_C, bias_C, mean_BNC, rstd_BNC = ctx.saved_tensors  # type: ignore[attr-defined]
        front, groups = ctx.front_units, ctx.num_groups  # type: ignore[attr-defined]
        grad_x_BNPC = torch.empty_like(x_BNPC)
        grad_weight_C, grad_bias_C = torch.zeros_like(weight_C), torch.zeros_like(bias_C)
        for sample, first, last in _chunks(x_BNPC):
            x_NPC = wide(x_BNPC[sample, first:last])
            dy_NPC = wide(grad_BNPC[sample, front + first : front + last])
            mean_NC, rstd_NC = mean_BNC[sample, first:last], rstd_BNC[sample, first:last]
            scale_NC = rstd_NC * weight_C
            if ctx.silu:  # type: ignore[attr-defined]
                shift_NC = bias_C - mean_NC * scale_NC
                y_NPC = torch.addcmul(shift_NC[:, None], x_NPC, scale_NC[:, None])
                dy_NPC = torch.ops.aten.silu_backward(dy_NPC, y_NPC)
            sum_NC = dy_NPC.sum(dim=1)
            # Sum of dy times the normalised input.
            moment_NC = ((dy_NPC * x_NPC).sum(dim=1) - mean_NC * sum_NC) * rstd_NC
            grad_bias_C += sum_NC.sum(dim=0)
            grad_weight_C += moment_NC.sum(dim=0)
            positions = x_NPC.shape[1]
            mean_dy_NC = _group_mean(sum_NC * weight_C, groups) / positions
            mean_moment_NC = _group_mean(moment_NC * weight_C, groups) / positions
            of_x_NC = -mean_moment_NC * rstd_NC.square()
            constant_NC = -mean_dy_NC * rstd_NC - mean_NC * of_x_NC
            dx_NPC = torch.addcmul(constant_NC[:, None], dy_NPC, scale_NC[:, None])
            grad_x_BNPC[sample, first:last] = dx_NPC.addcmul_(x_NPC, of_x_NC[:, None])
        return grad_x_BNPC, grad_weight_C, grad_bias_C, None, None, None, None


def trainable_group_norm_silu(
    x_BCTHW: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    num_groups: int,
    eps: float,
    per_frame: bool,
    silu: bool,
    front_frames: int,
) -> Tensor:
    """GROUP_NORM_SILU with a fast backward pass; statistics and gradients in float32 at least."""
    batch, channels, frames, height, width = x_BCTHW.shape
    x_BTHWC = x_BCTHW.permute(0, 2, 3, 4, 1).contiguous()
    units = frames if per_frame else 1
    x_BNPC = x_BTHWC.view(batch, units, -1, channels)
    front_units = front_frames if per_frame else 0
    out_BNPC: Tensor = _GroupNormSiLU.apply(  # type: ignore[no-untyped-call]
        x_BNPC, weight_C, bias_C, num_groups, eps, silu, front_units
    )
    out = out_BNPC.view(batch, -1, height, width, channels).permute(0, 4, 1, 2, 3)
    if front_frames and not per_frame:
        out = F.pad(out, (0, 0, 0, 0, front_frames, 0))
    return out


def _chunks(x_BNPC: Tensor) -> Iterator[tuple[int, int, int]]:
    """(sample, first unit, last unit + 1) of pieces that stay in the cache."""
    batch, units, positions, channels = x_BNPC.shape
    step = max(1, _CACHED_ELEMENTS // (positions * channels))
    for sample in range(batch):
        for first in range(0, units, step):
            yield sample, first, min(first + step, units)


def _statistics(x_NPC: Tensor, num_groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / standard deviation of each channel's group, [N, C]."""
    mean_NC = _group_mean(x_NPC.mean(dim=1), num_groups)
    square_NC = _group_mean(x_NPC.square().mean(dim=1), num_groups)
    return mean_NC, torch.rsqrt((square_NC - mean_NC.square()).clamp_min(0.0) + eps)


def _group_mean(x_NC: Tensor, num_groups: int) -> Tensor:
    grouped = x_NC.unflatten(-1, (num_groups, -1))
    return grouped.mean(dim=-1, keepdim=True).expand_as(grouped).flatten(-2)
