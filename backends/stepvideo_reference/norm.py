"""RMSNorm and GroupNorm + SiLU: the meaning, and a cache-sized variant."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_core.ops import GROUP_NORM_SILU, RMS_NORM, OpImpl
from stepvideo_reference.precision import wide


def eager_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The meaning of the operator."""
    x_wide = wide(x)
    scale = torch.rsqrt(x_wide.square().mean(dim=-1, keepdim=True) + eps)
    return (x_wide * scale * wide(weight)).to(x.dtype)


def eager_group_norm_silu(
    x_BCTHW: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    num_groups: int,
    eps: float,
    per_frame: bool,
    silu: bool,
    front_frames: int,
) -> Tensor:
    """The meaning of the operator: explicit two-pass statistics."""
    batch, channels, frames, height, width = x_BCTHW.shape
    x = wide(x_BCTHW).reshape(batch, num_groups, channels // num_groups, frames, height, width)
    axes = (2, 4, 5) if per_frame else (2, 3, 4, 5)
    centred = x - x.mean(dim=axes, keepdim=True)
    variance = centred.square().mean(dim=axes, keepdim=True)
    normed = (centred * torch.rsqrt(variance + eps)).reshape(x_BCTHW.shape)
    affine = (1, channels, 1, 1, 1)
    out = normed * wide(weight_C).view(affine) + wide(bias_C).view(affine)
    if silu:
        out = F.silu(out)
    return F.pad(out, (0, 0, 0, 0, front_frames, 0)).to(x_BCTHW.dtype)


def framewise_group_norm_silu(
    x_BCTHW: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    num_groups: int,
    eps: float,
    per_frame: bool,
    silu: bool,
    front_frames: int,
) -> Tensor:
    """torch's GroupNorm kernel on one frame at a time, channels innermost.

    A frame stays in the cache between the norm, the SiLU and the one write of the result, and its
    float32 copy costs nothing; doing the whole chunk at once took 2-5 x as long (2 CPU threads,
    64 channels, 20 frames of 128 x 128). Statistics over the chunk need the chunk at once.
    """
    batch, channels, frames, height, width = x_BCTHW.shape
    weight, bias = wide(weight_C), wide(bias_C)
    out_BTHWC = x_BCTHW.new_empty((batch, front_frames + frames, height, width, channels))
    out_BTHWC[:, :front_frames] = 0
    out_BCTHW = out_BTHWC.permute(0, 4, 1, 2, 3)
    step = 1 if per_frame else frames
    for first in range(0, frames, step):
        part = x_BCTHW[:, :, first : first + step]
        part = wide(part.squeeze(2) if per_frame else part)
        normed = F.group_norm(part, num_groups, weight, bias, eps)
        if silu:
            normed = F.silu(normed, inplace=True)
        place = out_BCTHW[:, :, front_frames + first : front_frames + first + step]
        place.copy_(normed.unsqueeze(2) if per_frame else normed)
    return out_BCTHW


IMPLS = (
    OpImpl(op=RMS_NORM, name="eager", fn=eager_rms_norm),
    OpImpl(op=GROUP_NORM_SILU, name="eager", fn=eager_group_norm_silu),
    OpImpl(op=GROUP_NORM_SILU, name="framewise", fn=framewise_group_norm_silu, rank=10),
)
