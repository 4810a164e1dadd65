"""RMSNorm and GroupNorm + SiLU: the meaning, and torch's own kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_core.ops import GROUP_NORM_SILU, RMS_NORM, OpImpl, Site
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


def native_group_norm_silu(
    x_BCTHW: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    num_groups: int,
    eps: float,
    per_frame: bool,
    silu: bool,
    front_frames: int,
) -> Tensor:
    """torch's GroupNorm kernel, SiLU in place, written once into a buffer with the front frames.

    One frame (or the chunk, when statistics span it) is normalised at a time, so that the
    intermediate stays in the cache instead of doubling the activation.
    """
    batch, channels, frames, height, width = x_BCTHW.shape
    out = x_BCTHW.new_empty((batch, channels, front_frames + frames, height, width))
    out[:, :, :front_frames] = 0
    if per_frame:
        for frame in range(frames):
            normed = F.group_norm(x_BCTHW[:, :, frame], num_groups, weight_C, bias_C, eps)
            out[:, :, front_frames + frame] = F.silu(normed, inplace=True) if silu else normed
    else:
        normed = F.group_norm(x_BCTHW, num_groups, weight_C, bias_C, eps)
        out[:, :, front_frames:] = F.silu(normed, inplace=True) if silu else normed
    return out


def _native_why_not(site: Site) -> list[str]:
    if site.dtype in (torch.bfloat16, torch.float16):
        name = str(site.dtype).removeprefix("torch.")
        return [f"it rounds to {name} between the norm and the SiLU"]
    return []


IMPLS = (
    OpImpl(op=RMS_NORM, name="eager", fn=eager_rms_norm),
    OpImpl(op=GROUP_NORM_SILU, name="eager", fn=eager_group_norm_silu),
    OpImpl(
        op=GROUP_NORM_SILU,
        name="native",
        fn=native_group_norm_silu,
        rank=10,
        why_not=_native_why_not,
    ),
)
