"""RoPE-3D, alone and fused with the query/key normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

from stepvideo_core.ops import QK_NORM_ROPE, ROPE_3D, OpImpl
from stepvideo_reference.norm import eager_rms_norm
from stepvideo_reference.precision import wide


def _rotate_half(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([-b, a], dim=-1)


def eager_rope_3d(
    x_BSHD: Tensor, cos_SD: Tensor, sin_SD: Tensor, axes: tuple[int, int, int]
) -> Tensor:
    """The meaning of the operator."""
    x = wide(x_BSHD)
    rotated = torch.cat([_rotate_half(part) for part in x.split(axes, dim=-1)], dim=-1)
    return (x * cos_SD[:, None] + rotated * sin_SD[:, None]).to(x_BSHD.dtype)


def eager_qk_norm_rope(
    qkv_BSHX: Tensor,
    q_weight_D: Tensor,
    k_weight_D: Tensor,
    eps: float,
    cos_SD: Tensor,
    sin_SD: Tensor,
    axes: tuple[int, int, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """The meaning of the operator: its two steps, one after the other."""
    q_BSHD, k_BSHD, v_BSHD = qkv_BSHX.chunk(3, dim=-1)
    q_BSHD = eager_rope_3d(eager_rms_norm(q_BSHD, q_weight_D, eps), cos_SD, sin_SD, axes)
    k_BSHD = eager_rope_3d(eager_rms_norm(k_BSHD, k_weight_D, eps), cos_SD, sin_SD, axes)
    return q_BSHD, k_BSHD, v_BSHD


IMPLS = (
    OpImpl(op=ROPE_3D, name="eager", fn=eager_rope_3d),
    OpImpl(op=QK_NORM_ROPE, name="eager", fn=eager_qk_norm_rope),
)
